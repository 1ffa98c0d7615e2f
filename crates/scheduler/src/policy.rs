//! The policies of a schedule for times at which it cannot simply fire.

use std::fmt;
use std::str::FromStr;

/// An enum with one word for each value, in JSON and SQL alike.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// Its word in JSON and SQL.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or("is not a known value")
            }
        }
    };
}

words! {
    /// What happens to due times that passed while nothing fired: no instance ran, or the database was away.
    CatchUp {
        /// None of them fires.
        Skip = "skip",
        /// The last of them fires, late.
        Latest = "latest",
        /// Each of them fires, late, and in order; at most [`MAX_CAUGHT_UP`](crate::MAX_CAUGHT_UP).
        All = "all",
    }
}

words! {
    /// What happens at a due time while a run of an earlier one has not ended.
    Overlap {
        /// Another run starts beside it.
        Allow = "allow",
        /// Nothing starts.
        Skip = "skip",
        /// One run waits until the earlier ones have ended. While one waits, further due times are skipped.
        QueueOne = "queue_one",
        /// The earlier runs are cancelled, and the new one starts when they have ended.
        CancelPrevious = "cancel_previous",
    }
}

words! {
    /// Why a due time started nothing.
    SkipReason {
        /// The schedule was paused.
        Paused = "paused",
        /// A run of an earlier due time had not ended.
        Overlap = "overlap",
        /// It passed while nothing fired, and the policy does not catch it up.
        Missed = "missed",
        /// The clocks skip it.
        DstGap = "dst_gap",
        /// It is on a day on which the schedule does not fire.
        Excluded = "excluded",
        /// What it starts cannot be started: the pipeline is disabled, or gone.
        NotStartable = "not_startable",
        /// The input that the run would get does not fit the input schema of the pipeline.
        InvalidInput = "invalid_input",
        /// The event was caused by the schedule itself, directly or through runs of others, or by too many in a row.
        Loop = "loop",
        /// It was planned by old rules of its time zone; by the new ones it is at another time.
        ZoneData = "zone_data",
        /// More due times passed than are recorded or caught up one by one.
        Bound = "bound",
    }
}

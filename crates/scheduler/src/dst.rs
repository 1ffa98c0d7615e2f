//! The policies for due times when the clocks change.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

/// The policy for due times that a change of the clocks skips or repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dst {
    /// A skipped time does not fire. A repeated time fires once, the first time.
    Skip,
    /// A skipped time fires later by as much as the clocks moved (02:30 at 03:30, as in RFC 5545). A repeated time
    /// fires once, the first time.
    Shift,
    /// A skipped time fires later, as with `Shift`. A repeated time fires both times.
    Both,
}

/// A time that an expression matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurrence {
    /// It fires at this moment.
    Due(DateTime<Utc>),
    /// The clocks skip it and the policy is [`Dst::Skip`], so it does not fire. The moment is the one at which it would
    /// fire under [`Dst::Shift`].
    LeftOut(DateTime<Utc>),
    /// It is on a day on which the schedule does not fire.
    Excluded(DateTime<Utc>),
}

impl Occurrence {
    /// Its moment.
    pub const fn at(self) -> DateTime<Utc> {
        match self {
            Occurrence::Due(at) | Occurrence::LeftOut(at) | Occurrence::Excluded(at) => at,
        }
    }

    /// Its moment, if it fires.
    pub const fn due(self) -> Option<DateTime<Utc>> {
        match self {
            Occurrence::Due(at) => Some(at),
            Occurrence::LeftOut(_) | Occurrence::Excluded(_) => None,
        }
    }
}

impl Dst {
    /// Every policy.
    pub const ALL: [Dst; 3] = [Dst::Skip, Dst::Shift, Dst::Both];

    /// The policy's name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dst::Skip => "skip",
            Dst::Shift => "shift",
            Dst::Both => "both",
        }
    }
}

impl fmt::Display for Dst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Dst {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        Dst::ALL.into_iter().find(|dst| dst.as_str() == text).ok_or("must be one of skip, shift, both")
    }
}

//! Deliveries: what became of a call, and what a store writes of it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use gathering_domain::{DeliveryId, HookId, PipelineId, ProjectId, RunId, UserId};
use serde_json::Value;

use crate::events::{EventSeq, NewEvent};
use crate::runs::{PipelineToStart, PlannedRun, StartedBy};
use crate::{Conflict, ControlError};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $n:literal { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$word_doc])* $variant,)+ }

        impl $name {
            /// Every one.
            pub const ALL: [Self; $n] = [$(Self::$variant,)+];

            /// The word for it in JSON and SQL.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let named = Self::ALL.into_iter().find(|word| word.as_str() == text);
                named.ok_or_else(|| format!("unknown word `{text:.40}`"))
            }
        }
    };
}

words! {
    /// What became of a call.
    DeliveryOutcome: 3 {
        /// It became an event, or started a run.
        Accepted = "accepted",
        /// It was trusted, and there was nothing to do.
        Filtered = "filtered",
        /// Nothing was done.
        Refused = "refused",
    }
}

words! {
    /// Why there was nothing to do.
    FilterReason: 3 {
        /// The filter says no.
        When = "when",
        /// The sender tries whether the address answers.
        Ping = "ping",
        /// The sender wants to have a text repeated.
        Challenge = "challenge",
    }
}

words! {
    /// Why a call was refused.
    RefusalReason: 9 {
        /// No proof in it is of a secret of the hook.
        BadSignature = "bad_signature",
        /// Its time stamp is too old, or in the future.
        TooOld = "too_old",
        /// The hook was called too often.
        RateLimited = "rate_limited",
        /// Its body is larger than the hook accepts.
        TooLarge = "too_large",
        /// Its body cannot be read.
        NotJson = "not_json",
        /// The hook is disabled.
        Disabled = "disabled",
        /// The filter or the mapping has no value for it.
        Expression = "expression",
        /// What the mapping makes of it is no event or input.
        Invalid = "invalid",
        /// The pipeline is disabled, or gone.
        NotStartable = "not_startable",
    }
}

/// An entry of a hook's ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct HookDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The sender's id of it.
    pub key: Option<String>,
    /// What became of it.
    pub outcome: DeliveryOutcome,
    /// Why nothing came of it: the words of [`FilterReason`] and [`RefusalReason`].
    pub reason: Option<String>,
    /// What is wrong, with its place in the hook.
    pub detail: Option<String>,
    /// The run that it started.
    pub run: Option<RunId>,
    /// The event that it became.
    pub event: Option<EventSeq>,
    /// The delivery that somebody had sent again.
    pub redelivery_of: Option<DeliveryId>,
    /// The length of its body.
    pub size_bytes: i64,
    /// How often it came again with the same id.
    pub n_repeats: i64,
    /// For how many calls the entry stands: those that were refused alike, beyond what the ledger lists one by one.
    pub n_calls: i64,
    /// Whether it can be sent again.
    pub is_kept: bool,
    /// When it came, in UTC.
    pub received_at: DateTime<Utc>,
}

/// What a call is to do. Only this crate makes one.
#[derive(Debug, Clone, PartialEq)]
pub enum PlannedAct {
    /// Nothing.
    Nothing(FilterReason),
    /// To become this event.
    Event(Box<NewEvent>),
    /// To start a run of this pipeline.
    Run {
        /// The pipeline.
        pipeline: PipelineId,
        /// The version; the latest if absent.
        version: Option<i32>,
        /// The run's input.
        input: Value,
    },
}

/// A trusted call that a store enters in the ledger and acts upon, all at once or not at all. Only this crate makes one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PlannedDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The hook.
    pub hook: HookId,
    /// The project of the hook.
    pub project: ProjectId,
    /// The sender's id of it. Of two deliveries with one id, one does something; those that somebody had sent again do
    /// not count.
    pub key: Option<String>,
    /// The delivery that is sent again.
    pub redelivery_of: Option<DeliveryId>,
    /// Who has it sent again.
    pub by: Option<UserId>,
    /// What is kept of the call, so that it can be sent again.
    pub call: Value,
    /// The length of its body.
    pub size_bytes: i64,
    /// What it is to do.
    pub act: PlannedAct,
}

impl RefusalReason {
    /// Why a call is refused that the pipeline of the hook cannot be started for.
    pub(super) const fn of_conflict(conflict: &Conflict) -> Self {
        match conflict {
            Conflict::InvalidInput(_) => Self::Invalid,
            _ => Self::NotStartable,
        }
    }
}

impl PlannedDelivery {
    /// The run that it starts, of its pipeline as it stands under a lock; `None` if the pipeline is gone.
    ///
    /// # Errors
    /// [`Conflict::PipelineDisabled`], [`Conflict::HookTargetGone`] or [`Conflict::InvalidInput`].
    pub fn plan_run(&self, found: Option<&PipelineToStart>) -> Result<PlannedRun, ControlError> {
        let gone = || ControlError::from(Conflict::HookTargetGone);
        let PlannedAct::Run { version, input, .. } = &self.act else { return Err(gone()) };
        let found = found.ok_or_else(gone)?;
        let by = StartedBy::Hook { hook: self.hook, delivery: self.id, by: self.by };
        found.plan_run(by, self.project, *version, input.clone()).map_err(|error| match error {
            ControlError::Invalid(_) | ControlError::NotFound => gone(),
            other => other,
        })
    }

    /// What becomes of it.
    pub const fn outcome(&self) -> (DeliveryOutcome, Option<FilterReason>) {
        match &self.act {
            PlannedAct::Nothing(reason) => (DeliveryOutcome::Filtered, Some(*reason)),
            PlannedAct::Event(_) | PlannedAct::Run { .. } => (DeliveryOutcome::Accepted, None),
        }
    }
}

/// A delivery that was entered in the ledger, now or before.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// The entry: the first one of its key.
    pub delivery: HookDelivery,
    /// Whether it was there before.
    pub is_repeated: bool,
}

/// Calls that were refused alike, for the ledger. Only this crate makes one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// The id of the entry, if it gets one of its own.
    pub id: DeliveryId,
    /// The hook.
    pub hook: HookId,
    /// Why.
    pub reason: RefusalReason,
    /// What is wrong, with its place in the hook.
    pub detail: Option<String>,
    /// The sender's id of it.
    pub key: Option<String>,
    /// The delivery that was sent again.
    pub redelivery_of: Option<DeliveryId>,
    /// What is kept of the call, so that it can be sent again.
    pub call: Option<Value>,
    /// The length of its body.
    pub size_bytes: i64,
    /// How many they are.
    pub n_calls: i64,
}

impl Refusal {
    /// One call of which nothing is kept.
    pub(super) fn of_untrusted(hook: HookId, reason: RefusalReason, size_bytes: i64) -> Self {
        let id = DeliveryId::new();
        let (detail, key, redelivery_of, call) = (None, None, None, None);
        Self { id, hook, reason, detail, key, redelivery_of, call, size_bytes, n_calls: 1 }
    }
}

/// What the ledger kept of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCall {
    /// The call; `None` if it was not kept.
    pub call: Option<Value>,
    /// The sender's id of it.
    pub key: Option<String>,
    /// The delivery that it sent again.
    pub redelivery_of: Option<DeliveryId>,
    /// The length of its body.
    pub size_bytes: i64,
}

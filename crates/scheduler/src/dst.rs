//! What happens to due times when clocks are moved.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

/// What happens to a due time that a change of the clocks leaves out or repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dst {
    /// A time that is left out does not fire. A time that is repeated fires once, the first time.
    Skip,
    /// A time that is left out fires as much later as the clocks were moved (02:30 at 03:30, as RFC 5545 reads it).
    /// A time that is repeated fires once, the first time.
    Shift,
    /// A time that is left out fires later, as with `Shift`. A time that is repeated fires both times.
    Both,
}

/// A time that an expression names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurrence {
    /// It fires at this moment.
    Due(DateTime<Utc>),
    /// The clocks leave it out and the policy is [`Dst::Skip`], so nothing fires; the moment is the one at which it
    /// would have under [`Dst::Shift`].
    LeftOut(DateTime<Utc>),
}

impl Occurrence {
    /// Its moment.
    pub const fn at(self) -> DateTime<Utc> {
        match self {
            Occurrence::Due(at) | Occurrence::LeftOut(at) => at,
        }
    }
}

impl Dst {
    /// Every policy.
    pub const ALL: [Dst; 3] = [Dst::Skip, Dst::Shift, Dst::Both];

    /// The word for it in JSON.
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

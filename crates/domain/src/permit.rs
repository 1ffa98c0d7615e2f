//! Permits: what a run asks for before it starts, if its pipeline limits how many of its runs execute at once or start in
//! a second; and what becomes of runs and nodes that find none.

use std::fmt;
use std::str::FromStr;

/// What becomes of a run that finds no permit of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnLimit {
    /// It waits for one.
    #[default]
    Queue,
    /// It ends as cancelled, and never starts.
    Skip,
    /// It waits for one, and the oldest runs of the key are cancelled for it.
    CancelOldest,
}

impl OnLimit {
    /// Every word, as definitions write it.
    pub const WORDS: [&'static str; 3] = ["queue", "skip", "cancel_oldest"];

    /// The word in definitions, SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnLimit::Queue => "queue",
            OnLimit::Skip => "skip",
            OnLimit::CancelOldest => "cancel_oldest",
        }
    }
}

impl fmt::Display for OnLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OnLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [OnLimit::Queue, OnLimit::Skip, OnLimit::CancelOldest]
            .into_iter()
            .find(|word| word.as_str() == text)
            .ok_or_else(|| format!("unknown word `{text}` for what happens at a limit"))
    }
}

/// What becomes of a node that finds no permit of its key. No node ends the attempt of another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NodeOnLimit {
    /// It waits for one.
    #[default]
    Queue,
    /// It is skipped, unless it was begun before.
    Skip,
}

impl NodeOnLimit {
    /// Every word, as definitions write it.
    pub const WORDS: [&'static str; 2] = ["queue", "skip"];

    /// The word in definitions.
    pub const fn as_str(self) -> &'static str {
        match self {
            NodeOnLimit::Queue => "queue",
            NodeOnLimit::Skip => "skip",
        }
    }
}

impl FromStr for NodeOnLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [NodeOnLimit::Queue, NodeOnLimit::Skip]
            .into_iter()
            .find(|word| word.as_str() == text)
            .ok_or_else(|| format!("unknown word `{text}` for what happens at a limit of a node"))
    }
}

/// What a run asks for before it starts: a permit of its key, which it holds from its first claim to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct PermitRequest {
    /// The runs of its pipeline with the same key share the permits.
    pub key: String,
    /// How many of them may execute at once; `None`: any number.
    pub permits: Option<u32>,
    /// What becomes of it if there is none.
    pub on_limit: OnLimit,
    /// How many of them may start in a second; `None`: any number.
    pub per_second: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_definitions_are_those_of_the_enum() {
        for word in OnLimit::WORDS {
            assert_eq!(word.parse::<OnLimit>().unwrap().as_str(), word);
        }
        assert!("wait".parse::<OnLimit>().is_err());
        for word in NodeOnLimit::WORDS {
            assert_eq!(word.parse::<NodeOnLimit>().unwrap().as_str(), word);
        }
        assert!("cancel_oldest".parse::<NodeOnLimit>().is_err());
    }
}

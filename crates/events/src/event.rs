//! What is published, and who wants it.

use serde_json::Value;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What kind of thing, such as `run_ended`.
    pub topic: String,
    /// What it happened to, such as a run's id. Events with one key arrive in the order in which they were published,
    /// and one that repeats the last of its topic and key within the window does not arrive.
    pub key: Option<String>,
    /// The rest.
    pub payload: Value,
}

/// Which topics a subscriber wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Every one.
    All,
    /// These.
    Of(Vec<String>),
}

impl Topics {
    /// Whether an event of this topic is wanted.
    pub fn contain(&self, topic: &str) -> bool {
        match self {
            Topics::All => true,
            Topics::Of(topics) => topics.iter().any(|wanted| wanted == topic),
        }
    }
}

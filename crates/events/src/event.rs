//! Events and topics.

use serde_json::Value;

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The kind of event, such as `run_ended`.
    pub topic: String,
    /// The subject of the event, such as a run's id. Events with the same key arrive in the order of their publication.
    /// An event that repeats the last one of its topic and key within the window is dropped.
    pub key: Option<String>,
    /// The content.
    pub payload: Value,
}

/// The topics of a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// All topics.
    All,
    /// These topics.
    Of(Vec<String>),
}

impl Topics {
    /// Whether the topic is one of these.
    pub fn contain(&self, topic: &str) -> bool {
        match self {
            Topics::All => true,
            Topics::Of(topics) => topics.iter().any(|wanted| wanted == topic),
        }
    }
}

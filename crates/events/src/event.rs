//! Events and topics.

use std::fmt;

use serde_json::Value;

/// An event, with a content of type `P`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<P = Value> {
    /// The kind of event, such as `run_ended`.
    pub topic: String,
    /// The subject of the event, such as a run's id. Events with the same key arrive in the order of their publication.
    /// An event that repeats the last one of its topic and key within the window is dropped.
    pub key: Option<String>,
    /// The content.
    pub payload: P,
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

/// Whether a subscriber wants an event.
type Wanted<P> = Box<dyn Fn(&Event<P>) -> bool + Send + Sync>;

/// What a subscriber wants.
pub(crate) enum Interest<P> {
    Topics(Topics),
    Where(Wanted<P>),
}

impl<P> Interest<P> {
    pub(crate) fn takes(&self, event: &Event<P>) -> bool {
        match self {
            Interest::Topics(topics) => topics.contain(&event.topic),
            Interest::Where(wanted) => wanted(event),
        }
    }
}

impl<P> fmt::Debug for Interest<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interest::Topics(topics) => topics.fmt(f),
            Interest::Where(_) => f.write_str("Where(..)"),
        }
    }
}

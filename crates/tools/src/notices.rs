//! What a tool tells about its work before it has a result.
//!
//! Owns the words and the port. Never knows who listens.

use std::fmt;
use std::sync::Arc;

/// Something that a tool tells while it works.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ToolNotice {
    /// How far the call is.
    Progress {
        /// How far it is; grows.
        progress: f64,
        /// How far it will be, if that is known.
        total: Option<f64>,
        /// What it does now.
        message: Option<String>,
    },
    /// An entry of its log.
    Log {
        /// Such as `info`; the tool's word.
        level: String,
        /// The entry.
        text: String,
    },
    /// It asks people something, and the call waits for the answer.
    Question {
        /// The id by which the question is answered.
        id: String,
        /// What it asks.
        message: String,
    },
}

/// Hears what tools tell.
pub trait ToolListener: Send + Sync {
    /// Takes a notice. The tool waits for this, so it must neither block nor take long.
    fn told(&self, notice: ToolNotice);
}

/// Where a call tells what it does. Cloning is cheap and shares the listener.
#[derive(Clone)]
pub struct ToolNotices(Arc<dyn ToolListener>);

impl ToolNotices {
    /// Tells this listener.
    pub fn to(listener: impl ToolListener + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Tells it. Whether anybody heard it, the tool does not know.
    pub fn tell(&self, notice: ToolNotice) {
        self.0.told(notice);
    }
}

impl fmt::Debug for ToolNotices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToolNotices")
    }
}

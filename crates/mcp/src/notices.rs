//! What servers tell about their work: progress, logs, changes.
//!
//! Invariant: a server that tells more than anybody reads costs bounded memory. At the bound the oldest notice is
//! dropped, and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;

/// Notices that are kept by default.
const DEFAULT_CAPACITY: usize = 256;

/// A bounded queue of notices, of one server or of several. Clones share it.
#[derive(Debug, Clone)]
pub struct McpNotices {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    capacity: usize,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    notices: VecDeque<McpNotice>,
    dropped: u64,
}

/// Something that a server tells.
#[derive(Debug, Clone, PartialEq)]
pub struct McpNotice {
    /// The server, by its name in the settings.
    pub server: String,
    /// What it tells.
    pub kind: McpNoticeKind,
}

/// What a server tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum McpNoticeKind {
    /// How far a call is.
    Progress {
        /// The tool that is called, by the server's name.
        tool: String,
        /// How far it is; grows.
        progress: f64,
        /// How far it will be, if the server knows.
        total: Option<f64>,
        /// What the server does now.
        message: Option<String>,
    },
    /// An entry of its log.
    Log {
        /// Such as `info`; the server's word.
        level: String,
        /// The entry as JSON, shortened to 4 KiB.
        text: String,
    },
    /// Its tools were listed anew.
    ToolsChanged,
    /// It is connected.
    Connected,
    /// It is not connected any more, or not yet; the next try follows by itself.
    Down {
        /// Why.
        reason: String,
    },
}

impl Default for McpNotices {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl McpNotices {
    /// A queue of at most `capacity` notices, and of one at least.
    pub fn new(capacity: usize) -> Self {
        let queue = Queue { waiting: Mutex::default(), capacity: capacity.max(1), came: Notify::new() };
        Self { queue: Arc::new(queue) }
    }

    /// The next notice, as soon as there is one. Cancel: safe, nothing is lost.
    pub async fn next(&self) -> McpNotice {
        loop {
            let came = self.queue.came.notified();
            if let Some(notice) = self.try_next() {
                return notice;
            }
            came.await;
        }
    }

    /// The next notice, if there is one.
    pub fn try_next(&self) -> Option<McpNotice> {
        let mut waiting = self.lock();
        let next = waiting.notices.pop_front();
        if !waiting.notices.is_empty() {
            self.queue.came.notify_one();
        }
        next
    }

    /// How many notices were dropped because nobody read them.
    pub fn n_dropped(&self) -> u64 {
        self.lock().dropped
    }

    pub(crate) fn tell(&self, server: &str, kind: McpNoticeKind) {
        let mut waiting = self.lock();
        if waiting.notices.len() == self.queue.capacity {
            waiting.notices.pop_front();
            waiting.dropped += 1;
        }
        waiting.notices.push_back(McpNotice { server: server.to_owned(), kind });
        self.queue.came.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl McpNoticeKind {
    /// The progress that `params` tell of a call of `tool`.
    pub(crate) fn progress(tool: &str, params: &Value) -> Option<Self> {
        Some(Self::Progress {
            tool: tool.to_owned(),
            progress: params.get("progress")?.as_f64()?,
            total: params.get("total").and_then(Value::as_f64),
            message: params.get("message").and_then(Value::as_str).map(str::to_owned),
        })
    }

    pub(crate) fn log(params: &Value) -> Self {
        let level = params.get("level").and_then(Value::as_str).unwrap_or("info");
        let text = params.get("data").map(Value::to_string).unwrap_or_default();
        Self::Log { level: level.chars().take(16).collect(), text }
    }

    /// The same, with texts that are not too long to be kept.
    pub(crate) fn shortened(mut self) -> Self {
        match &mut self {
            Self::Progress { message, .. } => message.iter_mut().for_each(shorten),
            Self::Log { text, .. } => shorten(text),
            Self::ToolsChanged | Self::Connected | Self::Down { .. } => {}
        }
        self
    }
}

fn shorten(text: &mut String) {
    *text = crate::message::shortened(text, 4096);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_notice_is_dropped_at_the_bound_and_counted() {
        let notices = McpNotices::new(2);
        for level in ["1", "2", "3"] {
            let kind = McpNoticeKind::Log { level: level.to_owned(), text: String::new() };
            notices.tell("a", kind);
        }
        let level = |notice: McpNotice| match notice.kind {
            McpNoticeKind::Log { level, .. } => level,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (level(notices.next().await), level(notices.next().await)),
            ("2".to_owned(), "3".to_owned())
        );
        assert_eq!((notices.try_next(), notices.n_dropped()), (None, 1));
    }
}

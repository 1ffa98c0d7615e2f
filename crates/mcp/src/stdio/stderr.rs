//! The last lines that a server wrote to its standard error: often the only words on why it failed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::io::AsyncRead;

use super::lines::{Line, Lines};

/// The longest line that is kept whole.
const MAX_LINE: usize = 1024;

/// The last lines.
#[derive(Debug)]
pub(super) struct LastLines {
    lines: Mutex<VecDeque<String>>,
    capacity: usize,
}

impl LastLines {
    pub(super) fn new(capacity: usize) -> Self {
        Self { lines: Mutex::default(), capacity }
    }

    /// Reads to the end of `stderr`.
    pub(super) async fn read(&self, stderr: impl AsyncRead + Unpin) {
        let mut lines = Lines::new(stderr, MAX_LINE);
        while let Ok(Some(line)) = lines.next().await {
            self.keep(match line {
                Line::Whole(line) => String::from_utf8_lossy(&line).trim_end().to_owned(),
                Line::TooLong { head, .. } => format!("{}…", String::from_utf8_lossy(&head)),
            });
        }
    }

    pub(super) fn list(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn keep(&self, line: String) {
        let mut lines = self.lock();
        if !line.is_empty() {
            lines.push_back(line);
        }
        if lines.len() > self.capacity {
            lines.pop_front();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

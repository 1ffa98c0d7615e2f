//! What follows from a failed attempt: another one, and when, or the failure of the node.

use std::time::Duration;

use gathering_domain::Digest;

use super::Driver;
use crate::journal::{JournalEvent, NodeFailure};

/// The longest pause of the other side that a retry waits for; the longest back-off is a day as well.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

impl Driver {
    /// The record of a failed attempt. The time of the next one is in it, so a replay keeps that time.
    pub(super) fn after_failure(&mut self, node: usize, failure: NodeFailure) -> JournalEvent {
        let spec = &self.graph.nodes[node].spec;
        let run = self.progress.node(node);
        let failures = run.failures + 1;
        if !failure.retryable || failures >= spec.retry.max_attempts {
            return JournalEvent::Failed(failure);
        }
        let draw = draw(&format!("{}/{}/{}", self.claimed.claim.run, spec.id, run.attempt));
        let backoff = spec.retry.backoff_after(failures, draw);
        let pause = failure.retry_after().unwrap_or_default().min(MAX_PAUSE);
        let until = self.around.clock.now() + backoff.max(pause);
        self.timers.insert((until, node));
        JournalEvent::Retrying { failure, until }
    }
}

/// A number from 0 to 1 that is spread evenly over names and the same for the same name.
fn draw(name: &str) -> f64 {
    let digest = Digest::of(name.as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

//! When a runner polls the queue: at once after a wake-up, in larger batches in a rush, and rarely otherwise.

use std::time::Duration;

use tokio::time::Instant;

use super::SIGNALS;

/// How long a claim of the rest waits until there is room for a whole batch.
pub(super) const GATHER: Duration = Duration::from_millis(2);

/// How long after the last claim that took a run a rush counts as over.
pub(super) const QUIET: Duration = Duration::from_millis(20);

/// When a runner polls the queue next, and how.
#[derive(Debug, Clone, Copy)]
pub(super) enum NextPoll {
    /// Claims now: a run may be available.
    Claim,
    /// The last claim did not reach the end of the queue: claims once there is room for a batch, at the latest at `by`.
    ClaimRest { by: Instant },
    /// Claims then.
    ClaimAt(Instant),
    /// Asks now when a run will be available.
    Ask,
    /// Asks then, in case a wake-up was missed.
    AskAt(Instant),
    /// A run may be available, but there is no room until another ends.
    Full,
}

/// What a claim found.
pub(super) enum Claimed {
    /// As many runs as its limit: there may be more.
    Batch,
    /// Every available run.
    Some,
    /// Nothing.
    None,
    /// The store did not answer, or claims are not allowed now.
    Unknown,
}

impl NextPoll {
    /// When to poll, and how, if nothing happens before.
    pub(super) fn when_nothing_happens(self) -> (Instant, NextPoll) {
        match self {
            NextPoll::Claim | NextPoll::Ask => (Instant::now(), self),
            NextPoll::ClaimRest { by } => (by, NextPoll::Claim),
            NextPoll::ClaimAt(at) => (at, NextPoll::Claim),
            NextPoll::AskAt(at) => (at, NextPoll::Ask),
            // The end of a run makes room, and changes the next poll.
            NextPoll::Full => (Instant::now() + SIGNALS, NextPoll::Full),
        }
    }

    /// The next poll after some runs have ended; `may_be_claimed`: one of them may be claimed again.
    pub(super) fn after_ends(self, may_be_claimed: bool) -> NextPoll {
        match self {
            NextPoll::Full => NextPoll::ClaimRest { by: Instant::now() + GATHER },
            next if !may_be_claimed => next,
            _ => NextPoll::Claim,
        }
    }
}

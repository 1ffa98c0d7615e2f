//! When a runner looks at the queue: at once when there may be something, in larger portions in a rush, rarely else.

use std::time::Duration;

use tokio::time::Instant;

use super::ACTS;

/// How long a claim of the rest waits for room for a whole batch.
pub(super) const GATHER: Duration = Duration::from_millis(2);

/// How long after the last claim that found something a rush is taken to be over.
pub(super) const QUIET: Duration = Duration::from_millis(20);

/// When a runner looks at the queue next, and how.
#[derive(Debug, Clone, Copy)]
pub(super) enum NextPoll {
    /// Claims now: there may be something.
    Claim,
    /// The last claim did not find the end of the queue: claims once there is room for a batch, but not later than this.
    ClaimRest { by: Instant },
    /// Claims then.
    ClaimAt(Instant),
    /// Asks now when there will be something to claim.
    Ask,
    /// Asks then, in case nobody said that there is something.
    AskAt(Instant),
    /// There may be something, but there is no room until a run ends.
    Full,
}

/// What a claim found.
pub(super) enum Claimed {
    /// As many as it may take: there may be more.
    Batch,
    /// What there was.
    Some,
    /// Nothing.
    None,
    /// The store did not answer, or nothing may be claimed now.
    Unknown,
}

impl NextPoll {
    /// When to look if nothing happens before, and how.
    pub(super) fn when_nothing_happens(self) -> (Instant, NextPoll) {
        match self {
            NextPoll::Claim | NextPoll::Ask => (Instant::now(), self),
            NextPoll::ClaimRest { by } => (by, NextPoll::Claim),
            NextPoll::ClaimAt(at) => (at, NextPoll::Claim),
            NextPoll::AskAt(at) => (at, NextPoll::Ask),
            // The end of a run makes room, and changes how to look.
            NextPoll::Full => (Instant::now() + ACTS, NextPoll::Full),
        }
    }

    /// As some runs have ended; whether one of them may be claimed again.
    pub(super) fn after_ends(self, may_be_claimed: bool) -> NextPoll {
        match self {
            NextPoll::Full => NextPoll::ClaimRest { by: Instant::now() + GATHER },
            next if !may_be_claimed => next,
            _ => NextPoll::Claim,
        }
    }
}

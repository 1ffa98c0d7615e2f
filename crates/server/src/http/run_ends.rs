//! Requests that wait until a run has ended.

use std::time::Duration;

use gathering_control::Run;
use gathering_dag_engine::StoreError;
use gathering_domain::UserId;
use gathering_edge::limits::{Slot, Slots};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::readiness::Readiness;
use gathering_persistence::{Runs, Wake, WakeBus};
use tokio::sync::watch;
use tokio::time::Instant;

/// The maximum per instance: each queries the database once a second while another instance drives its run.
const MAX_WAITING: usize = 1024;

/// The maximum per account.
const MAX_WAITING_OF_ONE: usize = 512;

/// When a run is read for the first time if nothing was heard of it: it may have ended before anybody listened.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// How often a run is read that nothing was heard of.
const SAFETY_NET: Duration = Duration::from_secs(1);

/// The least time between two reads because another run has ended, while another instance may drive this one.
const APART: Duration = Duration::from_millis(50);

/// Waits for the ends of runs, whichever instance drives them. Cloning is cheap and shares the slots.
#[derive(Clone)]
pub(crate) struct RunEnds {
    slots: Slots,
    runs: Runs,
    wakes: WakeBus,
    readiness: Readiness,
}

impl RunEnds {
    pub(crate) fn new(runs: Runs, wakes: WakeBus, readiness: Readiness) -> Self {
        Self {
            slots: Slots::new("waiting requests", MAX_WAITING, MAX_WAITING_OF_ONE),
            runs,
            wakes,
            readiness,
        }
    }

    /// A place to wait, taken before anything is started.
    ///
    /// # Errors
    /// 429 if the account has the maximum, 503 if the instance has.
    pub(crate) fn take_slot(&self, user: UserId) -> Result<Slot, ProblemDetails> {
        self.slots.take(user)
    }

    /// The run, given as it was read last, when it has ended; `None` if it has not after `limit`, or when this instance
    /// shuts down: the run goes on then. Cancel: safe.
    ///
    /// # Errors
    /// The store's. The run goes on.
    pub(crate) async fn wait(
        &self,
        _slot: &Slot,
        run: &Run,
        limit: Duration,
    ) -> Result<Option<Run>, StoreError> {
        if run.state.is_terminal() {
            return Ok(Some(run.clone()));
        }
        let (mut seen, deadline) = (Instant::now(), Instant::now() + limit);
        let (mut ends, mut following) = (self.wakes.subscribe(Wake::Events), self.wakes.follow(run.id));
        let mut next_look = seen + FIRST_LOOK;
        loop {
            // A run that is driven here tells its end itself. Those of others say nothing about it.
            let end_of_another = end_of_another(&mut ends, seen, !following.is_driven_here());
            tokio::select! {
                () = self.readiness.drained() => {}
                () = following.ended() => {}
                () = end_of_another => {}
                () = tokio::time::sleep_until(deadline.min(next_look)) => {}
            }
            seen = Instant::now();
            next_look = seen + SAFETY_NET;
            match self.runs.find(run.id).await? {
                Some(run) if run.state.is_terminal() => return Ok(Some(run)),
                Some(_) if !self.readiness.is_draining() && seen < deadline => {}
                _ => return Ok(None),
            }
        }
    }
}

/// Waits for the end of any run, and until some time has passed since the last read.
async fn end_of_another(ends: &mut watch::Receiver<u64>, seen: Instant, is_of_interest: bool) {
    if !is_of_interest {
        return std::future::pending().await;
    }
    ends.changed().await.ok();
    tokio::time::sleep_until(seen + APART).await;
}

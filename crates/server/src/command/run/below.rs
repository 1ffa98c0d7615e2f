//! The runs below the one that was asked for: nobody else may be there to drive them.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use gathering_dag_engine::{ClaimedRun, RunStore as _, SignalledRun, Signals};
use gathering_domain::RunId;
use gathering_persistence::Wake;

use crate::instance::{Identity, Instance};

/// How many of them are driven at once.
const MAX_AT_ONCE: usize = 64;

/// How often is looked for new ones, and for acts, when nothing says that there are any.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A run with everything below it, driven in this process under one identity.
pub(super) struct Tree<'a> {
    pub(super) instance: &'a Instance,
    pub(super) identity: &'a Identity,
    pub(super) root: RunId,
    /// What may end each of its drives from outside; each gets tokens of its own for what concerns it alone.
    pub(super) signals: Signals,
}

impl Tree<'_> {
    /// Drives what is below the root and passes on what people ask of the root, whose drive has `root_signals`. Never
    /// ends; dropped with the root's drive, when nothing below is left that it waits for.
    pub(super) async fn accompany(&self, root_signals: &Signals) {
        let (mut queue, mut acts) =
            (self.instance.wakes.subscribe(Wake::Runs), self.instance.wakes.subscribe(Wake::Signals));
        let mut driven: HashMap<RunId, Signals> = HashMap::from([(self.root, root_signals.clone())]);
        let mut driving = FuturesUnordered::new();
        let mut may_hold_undriven = false;
        loop {
            if may_hold_undriven {
                let driven: Vec<RunId> = driven.keys().copied().collect();
                let released = self.instance.store.release_undriven(self.identity.id, &driven).await;
                may_hold_undriven = released.is_err();
            } else {
                match self.claim(MAX_AT_ONCE.saturating_sub(driving.len())).await {
                    Some(claimed) => {
                        for claimed in claimed {
                            let run = claimed.claim.run;
                            let signals = self.signals_of_its_own();
                            driven.insert(run, signals.clone());
                            let drive = self.instance.engine.drive(claimed, signals);
                            driving.push(async move { (run, drive.await) });
                        }
                    }
                    None => may_hold_undriven = true,
                }
            }
            tokio::select! {
                Some((run, _end)) = driving.next() => {
                    driven.remove(&run);
                }
                Ok(()) = queue.changed() => {}
                Ok(()) = acts.changed() => self.forward_signals(&driven).await,
                () = tokio::time::sleep(LOOK_INTERVAL) => self.forward_signals(&driven).await,
            }
        }
    }

    /// `None` if it is unknown what was claimed.
    async fn claim(&self, room: usize) -> Option<Vec<ClaimedRun>> {
        if room == 0 || self.signals.drain.is_cancelled() || self.identity.fence.is_cancelled() {
            return Some(Vec::new());
        }
        let claimed = self.instance.store.claim_children(self.identity.id, self.root, room).await;
        claimed.inspect_err(|error| tracing::debug!(error = %error, "runs below cannot be claimed")).ok()
    }

    fn signals_of_its_own(&self) -> Signals {
        let shared = self.signals.clone();
        Signals { drain: shared.drain, release: shared.release, fence: shared.fence, ..Signals::default() }
    }

    async fn forward_signals(&self, driven: &HashMap<RunId, Signals>) {
        let ids: Vec<RunId> = driven.keys().copied().collect();
        match self.instance.store.list_signalled(self.identity.id, &ids).await {
            Ok(signalled) => {
                for SignalledRun { run, cancel_requested } in signalled {
                    match driven.get(&run) {
                        Some(signals) if cancel_requested => signals.cancel.cancel(),
                        Some(signals) => signals.wake_up.notify_one(),
                        None => {}
                    }
                }
            }
            Err(error) => tracing::debug!(error = %error, "it cannot be looked for who acted on a run"),
        }
    }
}

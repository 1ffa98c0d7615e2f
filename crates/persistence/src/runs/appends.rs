//! Readers in this process that follow a run hear at once when the process has appended to its journal or ended it.
//!
//! Knows nothing of other instances: a reader finds what they append by polling.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gathering_domain::RunId;
use tokio::sync::watch;

/// The runs that are followed in this process: those that have a [`Following`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Appends(Arc<Mutex<HashMap<RunId, watch::Sender<Told>>>>);

/// What the followers of a run were told so far.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    of_entries: bool,
    of_its_end: bool,
}

/// Follows the journal of one run, until it is dropped.
#[derive(Debug)]
pub struct Following {
    run: RunId,
    told: watch::Receiver<Told>,
    appends: Appends,
}

impl Appends {
    pub(crate) fn follow(&self, run: RunId) -> Following {
        let told =
            self.locked().entry(run).or_insert_with(|| watch::Sender::new(Told::default())).subscribe();
        Following { run, told, appends: self.clone() }
    }

    /// Tells the followers of these runs, each with whether it has ended.
    pub(crate) fn tell(&self, runs: impl Iterator<Item = (RunId, bool)>) {
        let followed = self.locked();
        if followed.is_empty() {
            return;
        }
        for (run, has_ended) in runs {
            if let Some(sender) = followed.get(&run) {
                sender.send_modify(|told| {
                    *told = Told { of_entries: true, of_its_end: told.of_its_end || has_ended };
                });
            }
        }
    }

    /// Nothing that panics happens under the lock.
    fn locked(&self) -> MutexGuard<'_, HashMap<RunId, watch::Sender<Told>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following {
    /// Waits until this process has appended to the journal since the last call, or since it began to follow. The entries
    /// can be read then. Cancel: safe.
    pub async fn appended(&mut self) {
        // This receiver keeps the sender alive.
        self.told.changed().await.ok();
    }

    /// Waits until this process has ended the run, if it did not before. Cancel: safe.
    pub async fn ended(&mut self) {
        self.told.wait_for(|told| told.of_its_end).await.ok();
    }

    /// Whether this process has appended to the journal since somebody began to follow the run: it drives the run, or did.
    pub fn is_driven_here(&self) -> bool {
        self.told.borrow().of_entries
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut followed = self.appends.locked();
        // The last receiver is this one.
        if followed.get(&self.run).is_some_and(|sender| sender.receiver_count() <= 1) {
            followed.remove(&self.run);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_follower_hears_of_its_own_run_alone_and_is_forgotten_when_it_is_dropped() {
        let appends = Appends::default();
        let (one, other) = (RunId::new(), RunId::new());
        let (mut first, mut second) = (appends.follow(one), appends.follow(one));
        let mut third = appends.follow(other);
        assert!(first.appended().now_or_never().is_none(), "nothing was appended yet");
        appends.tell([one, RunId::new(), one].map(|run| (run, false)).into_iter());
        assert!(first.appended().now_or_never().is_some());
        assert!(first.appended().now_or_never().is_none(), "it was told once");
        assert!(second.appended().now_or_never().is_some());
        assert!(third.appended().now_or_never().is_none());
        drop(first);
        assert!(second.is_driven_here() && !third.is_driven_here());
        assert!(second.ended().now_or_never().is_none(), "it has not ended");
        appends.tell([(one, true)].into_iter());
        assert!(second.appended().now_or_never().is_some(), "a follower that leaves takes no other along");
        appends.tell([(one, false)].into_iter());
        assert!(second.ended().now_or_never().is_some() && third.ended().now_or_never().is_none());
        drop((second, third));
        assert!(appends.locked().is_empty());
    }
}

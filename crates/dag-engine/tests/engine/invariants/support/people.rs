//! People who decide and cancel, independently of the processes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::DateTime;
use gathering_dag_engine::testing::{MemoryStore, StoredRun};
use gathering_dag_engine::{Decision, RunnerHandle};
use gathering_domain::{NodeId, RunId, RunState};
use tokio::task::JoinSet;

/// The tasks of people, and the processes that get a wake-up from them.
#[derive(Clone, Default)]
pub struct People {
    acts: Arc<Mutex<HashSet<(RunId, NodeId)>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    /// The processes that get a wake-up at once.
    told: Arc<Mutex<Vec<RunnerHandle>>>,
}

impl People {
    pub fn tell(&self, handle: RunnerHandle) {
        self.told.lock().unwrap().push(handle);
    }

    pub fn cancel_after(&self, time: Duration, run: RunId, store: &MemoryStore) {
        let store = store.clone();
        self.after(time, move || store.request_cancel(run));
    }

    pub fn act_after(&self, time: Duration, run: RunId, node: &NodeId, store: &MemoryStore) {
        let (acts, act, store) = (Arc::clone(&self.acts), (run, node.clone()), store.clone());
        self.after(time, move || {
            acts.lock().unwrap().insert(act);
            store.act_on(run);
        });
    }

    pub fn decide_after(
        &self,
        time: Duration,
        run: RunId,
        node: &NodeId,
        approve: bool,
        store: &MemoryStore,
    ) {
        let (node, store) = (node.clone(), store.clone());
        let decision = Decision {
            approve,
            comment: None,
            decided_by: "somebody".to_owned(),
            decided_at: DateTime::UNIX_EPOCH,
        };
        self.after(time, move || {
            // It may be late or a repeat.
            store.decide(run, &node, decision);
        });
    }

    /// Sends a wake-up at once for each change of the store, as the store on PostgreSQL does.
    pub fn send_wake_ups(&self, store: &MemoryStore) {
        let (told, store) = (Arc::clone(&self.told), store.clone());
        self.tasks.lock().unwrap().spawn(async move {
            let (mut acts, mut queued) = (HashSet::new(), HashSet::new());
            let mut seen = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let stands = store.n_changes();
                if std::mem::replace(&mut seen, stands) == stands {
                    continue;
                }
                let runs = store.runs();
                let signalled =
                    |run: &&StoredRun| run.owner.is_some() && (run.is_signalled || run.cancel_requested);
                let stands = |run: &StoredRun| (run.new.id, run.epoch, run.cancel_requested);
                let is_signalled =
                    runs.iter().filter(signalled).fold(false, |new, run| acts.insert(stands(run)) | new);
                let is_queued = |run: &&StoredRun| RunState::CLAIMABLE.contains(&run.state);
                let is_changed = runs
                    .iter()
                    .filter(is_queued)
                    .fold(false, |new, run| queued.insert((stands(run), run.available_at)) | new);
                let told = told.lock().unwrap();
                if is_signalled {
                    told.iter().for_each(RunnerHandle::wake_up_driven);
                }
                if is_changed {
                    told.iter().for_each(RunnerHandle::wake);
                }
            }
        });
    }

    fn after(&self, time: Duration, act: impl FnOnce() + Send + 'static) {
        let told = Arc::clone(&self.told);
        self.tasks.lock().unwrap().spawn(async move {
            tokio::time::sleep(time).await;
            act();
            told.lock().unwrap().iter().for_each(RunnerHandle::wake_up_driven);
        });
    }

    pub fn have_acted(&self, run: RunId, node: &NodeId) -> bool {
        self.acts.lock().unwrap().contains(&(run, node.clone()))
    }

    /// Stops all tasks.
    pub async fn leave(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        tasks.shutdown().await;
    }
}

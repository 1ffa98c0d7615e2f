//! The store in memory: the twin of the one on PostgreSQL.
//!
//! It is every port that the engine has: runs, the runs that nodes start, decisions and circuit breakers. Each call is
//! subject to the same fault plan; what people do from outside is not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{Digest, FailureKind, InstanceId, NodeId, PipelineId, RunId, RunState};
use serde_json::Value;

pub use self::runs::{Place, StoredRun};
use super::faults::{Fault, Faults};
use crate::breaker::{Breaker, BreakerKey};
use crate::clock::Clock;
use crate::decisions::{Decision, NodeDecisions};
use crate::journal::{JournalEntry, JournalEvent, Record, Seq};
use crate::store::{
    Checkpoint, Claim, ClaimScope, ClaimedRun, NewRun, Recovered, RunEnd, RunError, RunResult, RunSource,
    RunStore, SignalledRun, StoreError,
};

mod breakers;
mod children;
mod decisions;
mod permits;
mod runs;

/// Runs in memory, shared by several instances, each with its own faults.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    clock: Arc<dyn Clock>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Shared {
    graphs: HashMap<Digest, Value>,
    runs: BTreeMap<RunId, StoredRun>,
    journals: HashMap<RunId, Vec<JournalEntry>>,
    dead: HashSet<InstanceId>,
    /// The awaited children of each run, in the order in which they were started.
    children: HashMap<RunId, Vec<RunId>>,
    decisions: HashMap<(RunId, NodeId), Decision>,
    outcomes: HashMap<RunId, NodeDecisions>,
    breakers: HashMap<BreakerKey, Breaker>,
    /// In the order in which they asked.
    permits: Vec<permits::Asked>,
    /// How many calls may have changed the store.
    n_changes: u64,
}

impl MemoryStore {
    /// An empty store on this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::default(), clock, faults: Arc::default() }
    }

    /// The same store as another instance sees it: with these faults.
    #[must_use]
    pub fn seen_with(&self, faults: Arc<Faults>) -> Self {
        Self { faults, ..self.clone() }
    }

    /// Declares an instance dead, as the end of its liveness session would.
    pub fn kill(&self, instance: InstanceId) {
        self.lock().dead.insert(instance);
    }

    /// Cancels a run, as the API would: at once if none of its nodes ever started, else through its driver.
    pub fn request_cancel(&self, run: RunId) {
        let now = self.clock.now();
        self.lock().request_cancel(run, now);
    }

    /// Marks that a wait of one of the run's nodes may be over: the run can be claimed, or its owner gets a wake-up.
    pub fn act_on(&self, run: RunId) {
        let now = self.clock.now();
        if let Some(run) = self.lock().runs.get_mut(&run) {
            run.act(now);
        }
    }

    /// Assigns a run to this pipeline, as its acceptance would.
    pub fn make_run_of(&self, pipeline: PipelineId, run: RunId) {
        if let Some(run) = self.lock().runs.get_mut(&run) {
            run.pipeline = Some(pipeline);
        }
    }

    /// Accepts a run whose journal begins with these records, as that of a rerun does.
    pub fn accept_rerun(&self, new: NewRun, records: Vec<Record>) {
        let now = self.clock.now();
        let mut shared = self.lock();
        let entry = |(record, seq)| JournalEntry { seq, record, owner: None, epoch: 0, at: now };
        shared.journals.insert(new.id, records.into_iter().zip(1..).map(entry).collect());
        shared.runs.insert(new.id, StoredRun::accepted(new, now));
    }

    /// Every run, by id.
    pub fn runs(&self) -> Vec<StoredRun> {
        self.peek().runs.values().cloned().collect()
    }

    /// The current state of a run.
    pub fn run(&self, run: RunId) -> Option<StoredRun> {
        self.peek().runs.get(&run).cloned()
    }

    /// Forgets a run and its journal.
    pub fn forget(&self, run: RunId) {
        let mut shared = self.lock();
        shared.runs.remove(&run);
        shared.journals.remove(&run);
        shared.children.remove(&run);
    }

    /// The current journal of a run.
    pub fn journal(&self, run: RunId) -> Vec<JournalEntry> {
        self.peek().journals.get(&run).cloned().unwrap_or_default()
    }

    /// The definition with this digest.
    pub fn graph(&self, digest: Digest) -> Option<Value> {
        self.peek().graphs.get(&digest).cloned()
    }

    /// A number that grows with every change, so that a watcher need not compare everything.
    pub fn n_changes(&self) -> u64 {
        self.peek().n_changes
    }

    /// For reading only.
    fn peek(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        let mut shared = self.peek();
        shared.n_changes += 1;
        shared
    }

    /// Performs one call, with the fault that is planned for it.
    async fn call<T, E: From<StoreError>>(
        &self,
        act: impl FnOnce(&mut Shared) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        // A real store always takes a moment, in which other tasks run.
        tokio::task::yield_now().await;
        if self.faults.crashed().is_cancelled() {
            match self.faults.crash().await {}
        }
        let fault = self.faults.next();
        match fault {
            Some(Fault::FailBefore) => return Err(StoreError::Unavailable("a planned fault".into()).into()),
            Some(Fault::CrashBefore) => match self.faults.crash().await {},
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        let answer = act(&mut self.lock());
        match fault {
            Some(Fault::FailAfter) => Err(StoreError::TimedOut("a planned fault".into()).into()),
            Some(Fault::CrashAfter) => match self.faults.crash().await {},
            _ => answer,
        }
    }
}

impl Shared {
    fn recover(&mut self, max_recoveries: i32, now: DateTime<Utc>) -> usize {
        let dead = &self.dead;
        let orphans: Vec<RunId> = self
            .runs
            .values()
            .filter(|run| run.owner.is_some_and(|owner| dead.contains(&owner)))
            .map(|run| run.new.id)
            .collect();
        for &id in &orphans {
            let mut failed = false;
            let Some(run) = self.runs.get_mut(&id) else { continue };
            let Some(owner) = run.owner.take() else { continue };
            run.recoveries += 1;
            run.epoch += 1;
            if run.recoveries > max_recoveries {
                let message = format!("it was recovered {} times", run.recoveries);
                let error = RunError::of(FailureKind::Poisonous, message);
                run.state = RunState::Failed;
                run.end = Some(RunEnd {
                    result: RunResult::Failed(error),
                    abandons_children: true,
                    is_limited: false,
                });
                failed = true;
            } else {
                run.state = RunState::Queued;
            }
            // Raises the number that a late append of the former owner would need.
            let claim = Claim { run: id, owner, epoch: run.epoch };
            if failed {
                self.free_permits(id, None, now);
                self.wake_parent(id, now);
                self.abandon_children(id, now);
            }
            self.append(claim, vec![Record::of_run(JournalEvent::TakenOver)], now);
        }
        orphans.len()
    }
}

#[async_trait]
impl RunStore for MemoryStore {
    async fn ensure_graph(&self, digest: Digest, definition: &Value) -> Result<(), StoreError> {
        self.call(|shared| {
            shared.graphs.entry(digest).or_insert_with(|| definition.clone());
            Ok(())
        })
        .await
    }

    async fn load_graph(&self, digest: Digest) -> Result<Value, StoreError> {
        self.call(|shared| {
            let missing = || StoreError::Missing { what: format!("graph {digest}") };
            shared.graphs.get(&digest).cloned().ok_or_else(missing)
        })
        .await
    }

    async fn load_source(&self, run: RunId) -> Result<RunSource, StoreError> {
        self.call(|shared| {
            let missing = || StoreError::Missing { what: format!("run {run}") };
            let NewRun { graph, input, .. } = &shared.runs.get(&run).ok_or_else(missing)?.new;
            Ok(RunSource { graph: *graph, input: input.clone() })
        })
        .await
    }

    async fn enqueue(&self, new: NewRun) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            shared.runs.entry(new.id).or_insert_with(|| StoredRun::accepted(new, now));
            Ok(())
        })
        .await
    }

    async fn claim(
        &self,
        owner: InstanceId,
        scope: ClaimScope,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            let mut available: Vec<_> = shared
                .runs
                .values()
                .filter(|run| shared.available_from(run, scope).is_some_and(|at| at <= now))
                .map(|run| (-run.new.priority, run.new.id))
                .collect();
            available.sort_unstable();
            Ok(available.into_iter().take(limit).filter_map(|(_, id)| shared.claim(id, owner, now)).collect())
        })
        .await
    }

    async fn claim_ending(
        &self,
        owner: InstanceId,
        scope: ClaimScope,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            let ending = shared.runs.values().filter(|run| shared.is_in(run, scope) && run.is_ending(now));
            let ending: Vec<RunId> = ending.map(|run| run.new.id).take(limit).collect();
            Ok(ending.into_iter().filter_map(|id| shared.claim(id, owner, now)).collect())
        })
        .await
    }

    async fn claim_run(&self, owner: InstanceId, run: RunId) -> Result<Option<ClaimedRun>, StoreError> {
        let now = self.clock.now();
        self.call(|shared| Ok(shared.claim(run, owner, now))).await
    }

    async fn load_journal(
        &self,
        run: RunId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        self.call(|shared| {
            let journal = shared.journals.get(&run).map(Vec::as_slice).unwrap_or_default();
            // The index of an entry is its place minus 1.
            let first = usize::try_from(after).unwrap_or(0);
            Ok(journal.iter().skip(first).take(limit).cloned().collect())
        })
        .await
    }

    async fn find_outcomes(&self, run: RunId) -> Result<NodeDecisions, StoreError> {
        self.call(|shared| Ok(shared.outcomes.get(&run).cloned().unwrap_or_default())).await
    }

    async fn commit(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let now = self.clock.now();
        self.faults.check(checkpoints)?;
        self.call(|shared| Ok(checkpoints.iter().map(|checkpoint| shared.commit(checkpoint, now)).collect()))
            .await
    }

    async fn rehearse(&self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.faults.check(std::slice::from_ref(checkpoint))
    }

    async fn next_available_in(&self, scope: ClaimScope) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            let times = shared.runs.values().filter_map(|run| shared.available_from(run, scope));
            Ok(times.min().map(|at| (at - now).to_std().unwrap_or(Duration::ZERO)))
        })
        .await
    }

    async fn list_signalled(
        &self,
        owner: InstanceId,
        driven: &[RunId],
    ) -> Result<Vec<SignalledRun>, StoreError> {
        let listed = self.call(|shared| {
            let own =
                driven.iter().filter_map(|id| shared.runs.get(id)).filter(|run| run.owner == Some(owner));
            Ok(own
                .filter(|run| run.cancel_requested || run.is_signalled)
                .map(|run| SignalledRun {
                    run: run.new.id,
                    cancel_requested: run.cancel_requested,
                    cancel_reason: run.cancel_reason.clone(),
                })
                .collect::<Vec<_>>())
        });
        let signalled: Vec<SignalledRun> = listed.await?;
        let mut shared = self.lock();
        for run in signalled.iter().filter(|run| run.cancel_requested) {
            if let Some(run) = shared.runs.get_mut(&run.run).filter(|run| run.owner == Some(owner)) {
                run.is_end_heard = true;
            }
        }
        Ok(signalled)
    }

    async fn release_undriven(&self, owner: InstanceId, driven: &[RunId]) -> Result<usize, StoreError> {
        self.call(|shared| {
            let undriven = shared
                .runs
                .values_mut()
                .filter(|run| run.owner == Some(owner) && !driven.contains(&run.new.id));
            Ok(undriven
                .map(|run| {
                    run.owner = None;
                    run.state = RunState::Queued;
                })
                .count())
        })
        .await
    }

    async fn recover_dead_instances(&self, max_recoveries: i32) -> Result<Recovered, StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            let is_anyone_driving = shared.runs.values().any(|run| run.owner.is_some());
            Ok(Recovered { n_runs: shared.recover(max_recoveries, now), is_anyone_driving })
        })
        .await
    }
}

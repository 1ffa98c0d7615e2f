//! The store in memory: the twin of the one on PostgreSQL.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{Digest, InstanceId, RunEvent, RunId, RunState};
use serde_json::Value;

use super::faults::{Fault, Faults};
use crate::clock::Clock;
use crate::journal::{JournalEntry, JournalEvent, Record, Seq};
use crate::store::{
    ActedOn, Checkpoint, Claim, ClaimedRun, NewRun, Recovered, Release, RunEnd, RunError, RunStore,
    StoreError,
};

/// Runs in memory, shared by several instances, each of which sees its own faults.
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
}

/// A run as it stands in the store.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// What was accepted.
    pub new: NewRun,
    /// Where it stands.
    pub state: RunState,
    /// Who drives it.
    pub owner: Option<InstanceId>,
    /// The last claim.
    pub epoch: i64,
    /// How often its owner died.
    pub recoveries: i32,
    /// Not to be claimed before.
    pub available_at: Option<DateTime<Utc>>,
    /// Whether somebody asked for its end.
    pub cancel_requested: bool,
    /// Whether somebody acted on it since it was claimed.
    pub acted: bool,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// How it ended.
    pub end: Option<RunEnd>,
}

impl StoredRun {
    /// From when it can be claimed, if nobody acts on it before.
    fn claimable_from(&self) -> Option<DateTime<Utc>> {
        match self.state {
            RunState::Queued => Some(self.available_at.unwrap_or(self.created_at)),
            RunState::Waiting => self.available_at,
            _ => None,
        }
    }
}

impl MemoryStore {
    /// An empty store whose time is this clock's.
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

    /// Asks for a run's end, as the API would: at once if nobody drives it.
    pub fn request_cancel(&self, run: RunId) {
        let mut shared = self.lock();
        if let Some(run) = shared.runs.get_mut(&run) {
            run.cancel_requested = true;
            if run.owner.is_none()
                && let Ok(state) = run.state.after(RunEvent::Cancelled)
            {
                run.state = state;
            }
        }
    }

    /// Says that something came that a node of the run may wait for: the run can be claimed, or its owner is told.
    pub fn act_on(&self, run: RunId) {
        let now = self.clock.now();
        if let Some(run) = self.lock().runs.get_mut(&run) {
            match run.state {
                RunState::Waiting => run.available_at = Some(now),
                _ => run.acted = true,
            }
        }
    }

    /// A run as it stands now.
    pub fn run(&self, run: RunId) -> Option<StoredRun> {
        self.lock().runs.get(&run).cloned()
    }

    /// Forgets a run and its journal.
    pub fn forget(&self, run: RunId) {
        let mut shared = self.lock();
        shared.runs.remove(&run);
        shared.journals.remove(&run);
    }

    /// A run's journal as it stands now.
    pub fn journal(&self, run: RunId) -> Vec<JournalEntry> {
        self.lock().journals.get(&run).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one call as the fault plan has it.
    async fn call<T>(
        &self,
        act: impl FnOnce(&mut Shared) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        // A real store always takes a moment, in which others go on.
        tokio::task::yield_now().await;
        if self.faults.crashed().is_cancelled() {
            match self.faults.crash().await {}
        }
        let away = || StoreError::Unavailable("a planned fault".into());
        let fault = self.faults.next();
        match fault {
            Some(Fault::FailBefore) => return Err(away()),
            Some(Fault::CrashBefore) => match self.faults.crash().await {},
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        let answer = act(&mut self.lock());
        match fault {
            Some(Fault::FailAfter) => Err(away()),
            Some(Fault::CrashAfter) => match self.faults.crash().await {},
            _ => answer,
        }
    }
}

impl Shared {
    fn claim(&mut self, id: RunId, owner: InstanceId, now: DateTime<Utc>) -> Option<ClaimedRun> {
        // Who was declared dead has no identity any more in which it could claim.
        if self.dead.contains(&owner) {
            return None;
        }
        let run = self.runs.get_mut(&id)?;
        run.state = run.state.after(RunEvent::Claimed).ok()?;
        run.owner = Some(owner);
        run.epoch += 1;
        run.available_at = None;
        run.acted = false;
        let claimed = ClaimedRun {
            claim: Claim { run: id, owner, epoch: run.epoch },
            project: run.new.project,
            graph: run.new.graph,
            input: run.new.input.clone(),
            deadline_at: run.new.timeout.map(|timeout| run.created_at + timeout),
            cancel_requested: run.cancel_requested,
            is_rerun: false,
            pipeline: None,
            is_item: false,
            created_at: run.created_at,
        };
        if claimed.was_claimed_before() {
            self.append(claimed.claim, vec![Record::of_run(JournalEvent::TakenOver)], now);
        }
        Some(claimed)
    }

    fn append(&mut self, claim: Claim, records: Vec<Record>, now: DateTime<Utc>) {
        let journal = self.journals.entry(claim.run).or_default();
        for record in records {
            let seq = journal.len() as Seq + 1;
            journal.push(JournalEntry { seq, record, owner: Some(claim.owner), epoch: claim.epoch, at: now });
        }
    }

    fn commit(&mut self, checkpoint: &Checkpoint, now: DateTime<Utc>) -> Result<(), StoreError> {
        let claim = checkpoint.claim;
        let lost = || StoreError::ClaimLost { run: claim.run };
        let journal = self.journals.get(&claim.run).map(Vec::as_slice).unwrap_or_default();
        let first = usize::try_from(checkpoint.first_seq - 1).map_err(|_| lost())?;
        let there = journal.get(first..).ok_or_else(lost)?;
        let written_before = !checkpoint.records.is_empty()
            && there.len() >= checkpoint.records.len()
            && there.iter().zip(&checkpoint.records).all(|(entry, record)| {
                entry.record == *record && entry.epoch == claim.epoch && entry.owner == Some(claim.owner)
            });
        if !there.is_empty() && !written_before {
            return Err(lost());
        }
        let run = self.runs.get_mut(&claim.run).ok_or_else(lost)?;
        if let Some(release) = &checkpoint.release {
            if (run.owner, run.epoch) == (Some(claim.owner), claim.epoch) {
                run.state = run.state.after(release.event()).map_err(|_| lost())?;
                run.owner = None;
                match release {
                    Release::End(end) => run.end = Some(end.clone()),
                    Release::Park { .. } if run.acted => run.available_at = Some(now),
                    Release::Park { until, .. } => run.available_at = *until,
                    Release::HandBack => {}
                }
            } else if !(run.epoch == claim.epoch && released_as(run, release)) {
                return Err(lost());
            }
        }
        if !written_before {
            self.append(claim, checkpoint.records.clone(), now);
        }
        Ok(())
    }

    fn recover(&mut self, max_recoveries: i32, now: DateTime<Utc>) -> usize {
        let dead = &self.dead;
        let orphans: Vec<RunId> = self
            .runs
            .values()
            .filter(|run| run.owner.is_some_and(|owner| dead.contains(&owner)))
            .map(|run| run.new.id)
            .collect();
        for &id in &orphans {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            let Some(owner) = run.owner.take() else { continue };
            run.recoveries += 1;
            run.epoch += 1;
            if run.recoveries > max_recoveries {
                let message = format!("it was recovered {} times", run.recoveries);
                let error = RunError { kind: "poisonous".to_owned(), message, node_id: None };
                run.state = RunState::Failed;
                let end = RunEnd {
                    event: RunEvent::Failed,
                    output: None,
                    error: Some(error),
                    abandons_children: true,
                };
                run.end = Some(end);
            } else {
                run.state = RunState::Queued;
            }
            // Raises the number that a late append of the former owner would need.
            let claim = Claim { run: id, owner, epoch: run.epoch };
            self.append(claim, vec![Record::of_run(JournalEvent::TakenOver)], now);
        }
        orphans.len()
    }
}

/// Whether the run stands as this release would leave it: the answer to the first try got lost.
fn released_as(run: &StoredRun, release: &Release) -> bool {
    run.owner.is_none() && RunState::Running.after(release.event()).is_ok_and(|state| state == run.state)
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

    async fn enqueue(&self, new: NewRun) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            shared.runs.entry(new.id).or_insert_with(|| StoredRun {
                state: RunState::Queued,
                owner: None,
                epoch: 0,
                recoveries: 0,
                available_at: new.available_at,
                cancel_requested: false,
                acted: false,
                created_at: now,
                end: None,
                new,
            });
            Ok(())
        })
        .await
    }

    async fn claim(&self, owner: InstanceId, limit: usize) -> Result<Vec<ClaimedRun>, StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            let mut available: Vec<_> = shared
                .runs
                .values()
                .filter(|run| run.claimable_from().is_some_and(|at| at <= now))
                .map(|run| (-run.new.priority, run.new.id))
                .collect();
            available.sort_unstable();
            Ok(available.into_iter().take(limit).filter_map(|(_, id)| shared.claim(id, owner, now)).collect())
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
            // An entry stands at its place, counted from 1.
            let first = usize::try_from(after).unwrap_or(0);
            Ok(journal.iter().skip(first).take(limit).cloned().collect())
        })
        .await
    }

    async fn commit(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let now = self.clock.now();
        self.call(|shared| Ok(checkpoints.iter().map(|checkpoint| shared.commit(checkpoint, now)).collect()))
            .await
    }

    async fn next_available_in(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            let times = shared.runs.values().filter_map(StoredRun::claimable_from);
            Ok(times.min().map(|at| (at - now).to_std().unwrap_or(Duration::ZERO)))
        })
        .await
    }

    async fn list_acted_on(&self, owner: InstanceId) -> Result<Vec<ActedOn>, StoreError> {
        self.call(|shared| {
            let own = shared.runs.values().filter(|run| run.owner == Some(owner));
            Ok(own
                .filter(|run| run.cancel_requested || run.acted)
                .map(|run| ActedOn { run: run.new.id, cancel_requested: run.cancel_requested })
                .collect())
        })
        .await
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

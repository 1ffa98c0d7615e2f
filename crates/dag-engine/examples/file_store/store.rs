//! `RunStore` on one file: everything that the engine needs of a store, in a few hundred lines.
//!
//! The state is in memory, and every change is written to the log first. One process has the log open, so the instances of
//! earlier processes are dead. The log only grows; a store for production would rewrite it sometimes, without the runs
//! that ended long ago.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use gathering_dag_engine::{
    Checkpoint, Claim, ClaimScope, ClaimedRun, Clock, GraphRole, JournalAtClaim, JournalEntry, JournalEvent,
    NewRun, NodeDecisions, Record, Recovered, Release, RunSource, RunStore, Seq, SignalledRun, StoreError,
};
use gathering_domain::{Digest, InstanceId, NodeId, ProjectId, RunEvent, RunId, RunState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::log::Log;

/// One change of a transaction. It contains the new value, so a replay decides nothing.
#[derive(Serialize, Deserialize)]
enum Change {
    Graph(String, Value),
    Run(Row),
    Entry(RunId, Entry),
}

/// The current state of a run.
#[derive(Clone, Serialize, Deserialize)]
struct Row {
    id: RunId,
    project: ProjectId,
    graph: String,
    input: Value,
    priority: i32,
    state: String,
    owner: Option<InstanceId>,
    epoch: i64,
    recoveries: i32,
    available_at: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    output: Option<Value>,
    error: Option<Value>,
}

/// A journal entry as it is stored: its event as a kind and a payload.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    seq: Seq,
    node: Option<NodeId>,
    attempt: i32,
    kind: String,
    payload: Option<Value>,
    owner: InstanceId,
    epoch: i64,
    at: DateTime<Utc>,
}

#[derive(Default)]
struct State {
    graphs: HashMap<String, Value>,
    runs: BTreeMap<RunId, Row>,
    journals: HashMap<RunId, Vec<Entry>>,
    dead: HashSet<InstanceId>,
}

struct Inner {
    log: Log,
    state: State,
}

/// Runs in a file. Cheap to clone.
#[derive(Clone)]
pub struct FileStore {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
}

impl FileStore {
    /// Opens the store in this directory, or makes it. Fails while another process has it open.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut state = State::default();
        let log = Log::open(&directory.join("runs.log"), |changes: Vec<Change>| state.apply(changes))?;
        state.dead = state.runs.values().filter_map(|run| run.owner).collect();
        Ok(Self { inner: Arc::new(Mutex::new(Inner { log, state })), clock })
    }

    /// Declares an instance dead; its runs are recovered.
    pub fn bury(&self, instance: InstanceId) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).state.dead.insert(instance);
    }

    /// Every run with its state and its output.
    pub async fn list_runs(&self) -> Result<Vec<(RunId, RunState, Option<Value>)>, StoreError> {
        self.read(|state| {
            state.runs.values().map(|run| Ok((run.id, run.state()?, run.output.clone()))).collect()
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(move |state| Ok((read(state)?, Vec::new()))).await
    }

    /// Decides on the current state, writes the changes, and then applies them. Dropping the future does not stop it, so a
    /// transaction takes effect completely or not at all.
    async fn transact<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&State) -> Result<(T, Vec<Change>), StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        // Writing blocks, so it is not for the runtime's own threads.
        let transaction = tokio::task::spawn_blocking(move || {
            let Inner { log, state } = &mut *inner.lock().unwrap_or_else(PoisonError::into_inner);
            let (answer, changes) = decide(state)?;
            if !changes.is_empty() {
                log.append(&changes).map_err(|error| StoreError::Unavailable(error.into()))?;
                state.apply(changes);
            }
            Ok(answer)
        });
        transaction.await.map_err(|error| StoreError::Unavailable(error.into()))?
    }
}

impl State {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Graph(digest, definition) => drop(self.graphs.insert(digest, definition)),
                Change::Run(run) => drop(self.runs.insert(run.id, run)),
                Change::Entry(run, entry) => self.journals.entry(run).or_default().push(entry),
            }
        }
    }

    fn journal(&self, run: RunId) -> &[Entry] {
        self.journals.get(&run).map(Vec::as_slice).unwrap_or_default()
    }

    fn entries(&self, claim: Claim, records: &[Record], now: DateTime<Utc>) -> Vec<Change> {
        let after = self.journal(claim.run).len() as Seq;
        let entries = records.iter().zip(after + 1..).map(|(record, seq)| Entry::of(record, seq, claim, now));
        entries.map(|entry| Change::Entry(claim.run, entry)).collect()
    }

    /// Claims an available run: the answer to the owner, and the changes.
    fn claim(&self, run: &Row, owner: InstanceId, now: DateTime<Utc>) -> Option<Claimed> {
        let state = run.state().ok()?.after(RunEvent::Claimed).ok()?;
        let claim = Claim { run: run.id, owner, epoch: run.epoch + 1 };
        let claimed = ClaimedRun {
            claim,
            project: run.project,
            graph: run.graph.parse().ok()?,
            input: Ok(run.input.clone()),
            deadline_at: run.deadline_at,
            cancel_requested: false,
            cancel_reason: None,
            role: GraphRole::Standalone,
            takes_up: None,
            created_at: run.created_at,
            is_limited: false,
            journal: if run.epoch == 0 {
                JournalAtClaim::New { started: Vec::new() }
            } else {
                JournalAtClaim::Existing
            },
        };
        let mut changes = Vec::new();
        if claimed.was_claimed_before() {
            changes = self.entries(claim, &[Record::of_run(JournalEvent::TakenOver)], now);
        }
        let (owner, epoch) = (Some(owner), claim.epoch);
        changes.push(Change::Run(Row { owner, epoch, available_at: None, ..run.in_state(state) }));
        Some((claimed, changes))
    }

    /// The changes of a checkpoint; none if it was written before.
    fn commit(&self, checkpoint: &Checkpoint, now: DateTime<Utc>) -> Result<Vec<Change>, StoreError> {
        let Checkpoint { claim, first_seq, records, release, frees: _ } = checkpoint;
        let lost = || StoreError::ClaimLost { run: claim.run };
        let run = self.runs.get(&claim.run).ok_or_else(lost)?;
        let first = usize::try_from(first_seq - 1).map_err(|_| lost())?;
        let there = self.journal(claim.run).get(first..).ok_or_else(lost)?;
        let stands = there.len() >= records.len()
            && there.iter().zip(records).all(|(entry, record)| {
                (entry.owner, entry.epoch) == (claim.owner, claim.epoch)
                    && entry.record().is_ok_and(|stored| stored == *record)
            });
        let is_held = (run.owner, run.epoch) == (Some(claim.owner), claim.epoch);
        match release {
            Some(release) if stands && run.was_released_as(claim, release) => return Ok(Vec::new()),
            None if stands && is_held && !records.is_empty() => return Ok(Vec::new()),
            _ if !is_held || !(records.is_empty() || there.is_empty()) => return Err(lost()),
            _ => {}
        }
        let mut changes = self.entries(*claim, records, now);
        if let Some(release) = release {
            let state = run.state()?.after(release.event()).map_err(|_| lost())?;
            let mut released = Row { owner: None, ..run.in_state(state) };
            match release {
                Release::End(end) => {
                    released.output = end.result.output().cloned();
                    released.error = end.result.error().map(|error| json!(error));
                }
                Release::Park { until, .. } => released.available_at = *until,
                Release::Requeue => {}
            }
            changes.push(Change::Run(released));
        }
        Ok(changes)
    }

    /// Takes a run from a dead owner.
    fn recover(&self, run: &Row, max_recoveries: i32, now: DateTime<Utc>) -> Option<Vec<Change>> {
        let owner = run.owner.filter(|owner| self.dead.contains(owner))?;
        let (epoch, recoveries) = (run.epoch + 1, run.recoveries + 1);
        // Takes the number that a late append of the former owner would need.
        let claim = Claim { run: run.id, owner, epoch };
        let mut changes = self.entries(claim, &[Record::of_run(JournalEvent::TakenOver)], now);
        let is_poisonous = recoveries > max_recoveries;
        let state = if is_poisonous { RunState::Failed } else { RunState::Queued };
        let error = is_poisonous.then(|| json!({"kind": "poisonous", "message": "each of its owners died"}));
        changes.push(Change::Run(Row { owner: None, epoch, recoveries, error, ..run.in_state(state) }));
        Some(changes)
    }
}

type Claimed = (ClaimedRun, Vec<Change>);

impl Row {
    fn state(&self) -> Result<RunState, StoreError> {
        let corrupt = |source| StoreError::Corrupt { what: format!("run {}", self.id), source };
        self.state.parse().map_err(|_| corrupt(format!("there is no state `{}`", self.state).into()))
    }

    fn in_state(&self, state: RunState) -> Self {
        Self { state: state.to_string(), ..self.clone() }
    }

    /// Whether this release was written before: its answer was lost, and it is repeated.
    fn was_released_as(&self, claim: &Claim, release: &Release) -> bool {
        let after = RunState::Running.after(release.event());
        self.owner.is_none()
            && self.epoch == claim.epoch
            && after.is_ok_and(|state| state.to_string() == self.state)
    }

    /// From when it can be claimed in this scope, if no wake-up comes before.
    fn available_from(&self, scope: ClaimScope) -> Option<DateTime<Utc>> {
        match self.state() {
            _ if !self.is_in(scope) => None,
            Ok(RunState::Queued) if scope == ClaimScope::Tree(self.id) => Some(self.created_at),
            Ok(RunState::Queued) => Some(self.available_at.unwrap_or(self.created_at)),
            Ok(RunState::Waiting) => self.available_at,
            _ => None,
        }
    }

    /// Whether a claim in this scope may take it: no run here has children.
    fn is_in(&self, scope: ClaimScope) -> bool {
        matches!(scope, ClaimScope::Queue) || scope == ClaimScope::Tree(self.id)
    }
}

impl Entry {
    fn of(record: &Record, seq: Seq, claim: Claim, at: DateTime<Utc>) -> Self {
        let (kind, payload) = (record.event.kind().to_owned(), record.event.payload());
        let Record { node, attempt, .. } = record.clone();
        Self { seq, node, attempt, kind, payload, owner: claim.owner, epoch: claim.epoch, at }
    }

    fn record(&self) -> Result<Record, StoreError> {
        let corrupt = |source| StoreError::Corrupt { what: format!("journal entry {}", self.seq), source };
        let event = JournalEvent::from_stored(&self.kind, self.payload.clone());
        let event = event.map_err(|error| corrupt(Box::new(error) as _))?;
        Ok(Record { node: self.node.clone(), attempt: self.attempt, event })
    }
}

#[async_trait]
impl RunStore for FileStore {
    async fn ensure_graph(&self, digest: Digest, definition: &Value) -> Result<(), StoreError> {
        let (digest, definition) = (digest.to_string(), definition.clone());
        self.transact(move |state| {
            let is_new = !state.graphs.contains_key(&digest);
            Ok(((), is_new.then(|| Change::Graph(digest, definition)).into_iter().collect()))
        })
        .await
    }

    async fn load_graph(&self, digest: Digest) -> Result<Value, StoreError> {
        self.read(move |state| {
            let missing = || StoreError::Missing { what: format!("graph {digest}") };
            state.graphs.get(&digest.to_string()).cloned().ok_or_else(missing)
        })
        .await
    }

    async fn load_source(&self, run: RunId) -> Result<RunSource, StoreError> {
        self.read(move |state| {
            let missing = || StoreError::Missing { what: format!("run {run}") };
            let row = state.runs.get(&run).ok_or_else(missing)?;
            let graph = row.graph.parse().map_err(|_| missing())?;
            Ok(RunSource { graph, input: row.input.clone() })
        })
        .await
    }

    async fn enqueue(&self, new: NewRun) -> Result<(), StoreError> {
        let now = self.clock.now();
        let deadline_at = new.timeout.map(|timeout| now + timeout);
        let run = Row {
            id: new.id,
            project: new.project,
            graph: new.graph.to_string(),
            input: new.input,
            priority: new.priority,
            state: RunState::Queued.to_string(),
            owner: None,
            epoch: 0,
            recoveries: 0,
            available_at: new.available_at.map(|at| deadline_at.map_or(at, |deadline| at.min(deadline))),
            deadline_at,
            created_at: now,
            output: None,
            error: None,
        };
        self.transact(move |state| {
            let is_new = !state.runs.contains_key(&run.id);
            Ok(((), is_new.then(|| Change::Run(run)).into_iter().collect()))
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
        self.transact(move |state| {
            let is_available = |run: &&Row| run.available_from(scope).is_some_and(|at| at <= now);
            let mut available: Vec<&Row> = state.runs.values().filter(is_available).collect();
            // Ids are made of their time, so their order is that of age.
            available.sort_by_key(|run| (-run.priority, run.id));
            let claims = available.into_iter().take(limit).filter_map(|run| state.claim(run, owner, now));
            let (claimed, changes): (Vec<_>, Vec<_>) = claims.unzip();
            Ok((claimed, changes.into_iter().flatten().collect()))
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
        self.transact(move |state| {
            // Runs of this store cannot be cancelled.
            let is_overdue =
                |run: &&Row| run.is_in(scope) && run.deadline_at.is_some_and(|deadline| deadline <= now);
            let overdue = state.runs.values().filter(is_overdue);
            // Those that are driven or have ended are refused.
            let claims = overdue.filter_map(|run| state.claim(run, owner, now)).take(limit);
            let (claimed, changes): (Vec<_>, Vec<_>) = claims.unzip();
            Ok((claimed, changes.into_iter().flatten().collect()))
        })
        .await
    }

    async fn claim_run(&self, owner: InstanceId, run: RunId) -> Result<Option<ClaimedRun>, StoreError> {
        let now = self.clock.now();
        self.transact(move |state| {
            let claimed = state.runs.get(&run).and_then(|run| state.claim(run, owner, now));
            Ok(claimed.map_or((None, Vec::new()), |(claimed, changes)| (Some(claimed), changes)))
        })
        .await
    }

    async fn load_journal(
        &self,
        run: RunId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        self.read(move |state| {
            let after = usize::try_from(after).unwrap_or(usize::MAX);
            let entries = state.journal(run).iter().skip(after).take(limit);
            entries
                .map(|entry| {
                    let (record, owner) = (entry.record()?, Some(entry.owner));
                    Ok(JournalEntry { seq: entry.seq, record, owner, epoch: entry.epoch, at: entry.at })
                })
                .collect()
        })
        .await
    }

    /// Nobody decides about these runs.
    async fn find_outcomes(&self, _run: RunId) -> Result<NodeDecisions, StoreError> {
        Ok(NodeDecisions::default())
    }

    async fn commit(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let (checkpoints, now) = (checkpoints.to_vec(), self.clock.now());
        // All of them are one line of the log, and one flush.
        self.transact(move |state| {
            let mut changes = Vec::new();
            let answers = checkpoints
                .iter()
                .map(|checkpoint| state.commit(checkpoint, now).map(|change| changes.extend(change)))
                .collect();
            Ok((answers, changes))
        })
        .await
    }

    /// A line of the log takes any values, so a checkpoint that is rejected is never at fault itself.
    async fn rehearse(&self, _checkpoint: &Checkpoint) -> Result<(), StoreError> {
        Err(StoreError::Fault("this store rejects no checkpoint for its values".into()))
    }

    async fn next_available_in(&self, scope: ClaimScope) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now();
        self.read(move |state| {
            let next = state.runs.values().filter_map(|run| run.available_from(scope)).min();
            Ok(next.map(|at| (at - now).max(TimeDelta::zero()).to_std().unwrap_or_default()))
        })
        .await
    }

    /// The runs of this store get no signals.
    async fn list_signalled(
        &self,
        _owner: InstanceId,
        _driven: &[RunId],
    ) -> Result<Vec<SignalledRun>, StoreError> {
        Ok(Vec::new())
    }

    async fn release_undriven(&self, owner: InstanceId, driven: &[RunId]) -> Result<usize, StoreError> {
        let driven = driven.to_vec();
        self.transact(move |state| {
            let held =
                state.runs.values().filter(|run| run.owner == Some(owner) && !driven.contains(&run.id));
            let changes: Vec<Change> =
                held.map(|run| Change::Run(Row { owner: None, ..run.in_state(RunState::Queued) })).collect();
            Ok((changes.len(), changes))
        })
        .await
    }

    async fn recover_dead_instances(&self, max_recoveries: i32) -> Result<Recovered, StoreError> {
        let now = self.clock.now();
        self.transact(move |state| {
            let is_anyone_driving = state.runs.values().any(|run| run.owner.is_some());
            let recovered: Vec<_> =
                state.runs.values().filter_map(|run| state.recover(run, max_recoveries, now)).collect();
            let answer = Recovered { n_runs: recovered.len(), is_anyone_driving };
            Ok((answer, recovered.into_iter().flatten().collect()))
        })
        .await
    }
}

//! The engine's port on PostgreSQL: each method takes a connection, calls the function of its noun and sends the wake-ups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diesel_async::AsyncPgConnection;
use gathering_dag_engine::{
    Checkpoint, ClaimScope, ClaimedRun, JournalEntry, NewRun, NodeDecisions, Recovered, RunSource, RunStore,
    Seq, SignalledRun, StoreError,
};
use gathering_domain::{Digest, InstanceId, RunId};
use serde_json::Value;

use crate::cluster::overdue::end_overdue_instances;
use crate::cluster::wake::{Wake, WakeBus};
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::query_backoff::QueryBackoff;
use crate::runs::accept::{Acceptance, RunOrigin};
use crate::runs::dead_instances::search_dead;
use crate::runs::list::Runs;
use crate::runs::next_available::next_available_in;
use crate::runs::permits::{Lines, line, nodes};
use crate::runs::scan_window::ScanWindow;
use crate::runs::transitions::claim::fair::{Turns, claim_fair};
use crate::runs::transitions::claim::permits::claim_permitted;
use crate::runs::transitions::claim::{self, tree};
use crate::runs::transitions::recover::release_undriven;
use crate::runs::{commit, graphs, journal, list, outcomes, row};

/// [`RunStore`] on PostgreSQL. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct PgRunStore {
    pub(crate) pool: Pool,
    pub(crate) wakes: WakeBus,
    pub(crate) polls: Arc<PollSchedules>,
    stuck_limit: Duration,
}

/// How many requests for permits join their lines with one claim.
const REQUESTS_AT_ONCE: i64 = 4000;

/// When each repeated query is due, and how far back it reads.
#[derive(Debug)]
pub(crate) struct PollSchedules {
    queue: ScanWindow,
    deadlines: ScanWindow,
    pub(crate) lines: Lines,
    turns: Turns,
    /// Whether any instance drives. Between two queries the answer is yes.
    anyone_driving: QueryBackoff,
    /// Which instances drive a run past its deadline. That is rare, and the query reads every run that is driven.
    overdue: QueryBackoff,
}

impl Default for PollSchedules {
    fn default() -> Self {
        Self {
            queue: ScanWindow::default(),
            deadlines: ScanWindow::default(),
            lines: Lines::default(),
            turns: Turns::default(),
            anyone_driving: QueryBackoff::new(Duration::ZERO),
            overdue: QueryBackoff::new(Duration::from_secs(10)),
        }
    }
}

impl PollSchedules {
    /// Runs were put back into the queue, perhaps before the scan windows.
    fn reset(&self) {
        self.queue.reset();
        self.deadlines.reset();
    }
}

impl PgRunStore {
    /// Keeps runs in the database of `pool`, and wakes those that claim and drive through `wakes`.
    pub fn new(pool: Pool, wakes: WakeBus) -> Self {
        Self { pool, wakes, polls: Arc::default(), stuck_limit: Self::STUCK_LIMIT }
    }

    /// After how long without a heartbeat an instance that owns runs counts as stuck, by default.
    pub const STUCK_LIMIT: Duration = Duration::from_secs(60);

    /// An instance that owns runs counts as stuck `limit` after its last heartbeat, or `limit` after the deadline of one of
    /// its runs. It must be more than [`Liveness::HEARTBEAT_LIMIT`](crate::Liveness::HEARTBEAT_LIMIT), or healthy instances
    /// lose their sessions.
    #[must_use]
    pub fn with_stuck_limit(self, limit: Duration) -> Self {
        Self { stuck_limit: limit, ..self }
    }
}

impl PgRunStore {
    /// Claims from the lines of keys and from the queue. Each has half of the claim while both have runs.
    async fn claim_from_queue(
        &self,
        conn: &mut AsyncPgConnection,
        owner: InstanceId,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, DatabaseError> {
        let lines = &self.polls.lines;
        if lines.nodes.is_due() && nodes::serve(conn, REQUESTS_AT_ONCE).await? > 0 {
            lines.nodes.note();
            // The runs are available, or their drivers are told.
            self.wakes.wake(Wake::Signals);
        }
        if !lines.runs.is_due() {
            return self.claim_available(conn, owner, limit).await;
        }
        let joined = line::join(conn, REQUESTS_AT_ONCE).await?;
        joined.wake_ups.send(&self.wakes);
        let share = lines.share_of(limit);
        let mut claimed = if share > 0 { claim_permitted(conn, owner, share).await? } else { Vec::new() };
        if joined.n_requests > 0 || !claimed.is_empty() {
            lines.runs.note();
        }
        let mut may_be_more = share == 0 || !claimed.is_empty();
        if claimed.len() < limit {
            let queued = self.claim_available(conn, owner, limit - claimed.len()).await?;
            lines.note_queue(!queued.is_empty());
            claimed.extend(queued);
        }
        while may_be_more && claimed.len() < limit {
            let more = claim_permitted(conn, owner, limit - claimed.len()).await?;
            may_be_more = !more.is_empty();
            claimed.extend(more);
        }
        Ok(claimed)
    }

    /// Claims from the queue: in the order of age, and from the projects in turn while more wait than claims take.
    async fn claim_available(
        &self,
        conn: &AsyncPgConnection,
        owner: InstanceId,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, DatabaseError> {
        let PollSchedules { queue, turns, .. } = &*self.polls;
        let mut claimed =
            if turns.is_due() { claim_fair(conn, owner, turns, limit).await? } else { Vec::new() };
        if claimed.len() < limit {
            let rest = limit - claimed.len();
            let oldest = claim::claim_batch(conn, owner, queue, rest).await?;
            turns.note(oldest.len() == rest);
            claimed.extend(oldest);
        }
        Ok(claimed)
    }

    /// Tells this process that these runs were claimed: those that follow them, and the reader of the log of events, where
    /// a first claim is the start of the run. Other instances read it with the next wake-up.
    fn tell_claimed<'a>(&self, claimed: impl ExactSizeIterator<Item = &'a ClaimedRun>) {
        if claimed.len() > 0 {
            self.wakes.wake_here(Wake::Log);
        }
        self.wakes.appended(claimed.map(|claimed| (claimed.claim.run, false)));
    }
}

#[async_trait]
impl RunStore for PgRunStore {
    async fn ensure_graph(&self, digest: Digest, definition: &Value) -> Result<(), StoreError> {
        let conn = self.pool.get().await?;
        Ok(graphs::ensure(&conn, digest, definition).await?)
    }

    async fn load_graph(&self, digest: Digest) -> Result<Value, StoreError> {
        let conn = self.pool.get().await?;
        Ok(graphs::load(&conn, digest).await?)
    }

    async fn load_source(&self, run: RunId) -> Result<RunSource, StoreError> {
        let conn = self.pool.get().await?;
        Ok(row::load_source(&conn, run).await?)
    }

    async fn enqueue(&self, run: NewRun) -> Result<(), StoreError> {
        match Runs::new(self.pool.clone(), self.wakes.clone()).accept(&run, &RunOrigin::default()).await? {
            Acceptance::Accepted(_) | Acceptance::AcceptedBefore(_) => Ok(()),
            Acceptance::OtherRequest => Err(StoreError::Corrupt {
                what: format!("run {}", run.id),
                source: "a run without an idempotency key met one".into(),
            }),
        }
    }

    async fn claim(
        &self,
        owner: InstanceId,
        scope: ClaimScope,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, StoreError> {
        let mut own = self.pool.get_for_claims().await?;
        let (conn, wire) = own.parts();
        let claimed = match scope {
            ClaimScope::Queue => wire.carry(self.claim_from_queue(conn, owner, limit)).await?,
            ClaimScope::Tree(root) => wire.carry(tree::claim_tree(conn, owner, root, limit)).await?,
        };
        self.tell_claimed(claimed.iter());
        if scope != ClaimScope::Queue && !claimed.is_empty() {
            // They were out of turn, so the other instances do not know yet that an owner may die.
            self.wakes.wake(Wake::Runs);
        }
        Ok(claimed)
    }

    async fn claim_ending(
        &self,
        owner: InstanceId,
        scope: ClaimScope,
        limit: usize,
    ) -> Result<Vec<ClaimedRun>, StoreError> {
        let mut own = self.pool.get_for_claims().await?;
        let (conn, wire) = own.parts();
        let claimed = match scope {
            ClaimScope::Queue => {
                wire.carry(claim::claim_ending(conn, owner, &self.polls.deadlines, limit)).await?
            }
            ClaimScope::Tree(root) => wire.carry(tree::claim_tree_ending(conn, owner, root, limit)).await?,
        };
        self.tell_claimed(claimed.iter());
        Ok(claimed)
    }

    async fn claim_run(&self, owner: InstanceId, run: RunId) -> Result<Option<ClaimedRun>, StoreError> {
        let mut own = self.pool.get_for_claims().await?;
        let (conn, wire) = own.parts();
        let claimed = wire.carry(claim::claim_one(conn, owner, run)).await?;
        if claimed.is_some() {
            self.tell_claimed(claimed.iter());
            // It was out of turn, so the other instances do not know yet that an owner may die.
            self.wakes.wake(Wake::Runs);
        }
        Ok(claimed)
    }

    async fn load_journal(
        &self,
        run: RunId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(journal::load(&conn, run, after, limit).await?)
    }

    async fn find_outcomes(&self, run: RunId) -> Result<NodeDecisions, StoreError> {
        let conn = self.pool.get().await?;
        Ok(outcomes::find(&conn, run).await?)
    }

    async fn commit(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        if checkpoints.is_empty() {
            return Ok(Vec::new());
        }
        let mut own = self.pool.get_for_commits().await?;
        let (conn, wire) = own.parts();
        let committed = wire.carry(commit::commit(conn, checkpoints)).await?;
        if checkpoints.iter().any(|checkpoint| !checkpoint.frees.is_empty()) {
            self.polls.lines.nodes.note();
        }
        committed.wake_ups.send(&self.wakes);
        Ok(committed.answers)
    }

    async fn rehearse(&self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let mut own = self.pool.get_for_commits().await?;
        let (conn, wire) = own.parts();
        Ok(wire.carry(commit::rehearse(conn, checkpoint)).await?)
    }

    async fn next_available_in(&self, scope: ClaimScope) -> Result<Option<Duration>, StoreError> {
        let mut own = self.pool.get_for_claims().await?;
        let (conn, wire) = own.parts();
        Ok(match scope {
            ClaimScope::Queue => {
                wire.carry(next_available_in(conn, &self.polls.queue, &self.polls.lines)).await?
            }
            ClaimScope::Tree(root) => wire.carry(tree::next_available_in_tree(conn, root)).await?,
        })
    }

    async fn list_signalled(
        &self,
        owner: InstanceId,
        driven: &[RunId],
    ) -> Result<Vec<SignalledRun>, StoreError> {
        let mut own = self.pool.get_for_claims().await?;
        let (conn, wire) = own.parts();
        Ok(wire.carry(list::list_signalled(conn, owner, driven)).await?)
    }

    async fn release_undriven(&self, owner: InstanceId, driven: &[RunId]) -> Result<usize, StoreError> {
        let mut own = self.pool.get_for_claims().await?;
        let (conn, wire) = own.parts();
        let released = wire.carry(release_undriven(conn, owner, driven)).await;
        let n_runs = released.map_err(|error| DatabaseError::query("releasing undriven runs", error))?;
        if n_runs > 0 {
            self.polls.reset();
            self.wakes.wake(Wake::Runs);
        }
        Ok(n_runs)
    }

    async fn recover_dead_instances(&self, max_recoveries: i32) -> Result<Recovered, StoreError> {
        let PollSchedules { anyone_driving, overdue, .. } = &*self.polls;
        let limit = self.stuck_limit;
        let searched =
            search_dead(&self.pool, &self.wakes, max_recoveries, limit, Some(anyone_driving)).await;
        // Also after an error: instances may have been recovered before it.
        if searched.as_ref().map_or(true, |found| !found.of.is_empty()) {
            self.polls.reset();
        }
        let mut found = searched?;
        if found.is_anyone_driving && overdue.is_due() {
            let began = Instant::now();
            found.stuck.extend(end_overdue_instances(&self.pool, self.stuck_limit).await?);
            overdue.note(began.elapsed());
        }
        for stuck in &found.stuck {
            tracing::warn!(instance.id = %stuck, "instance {stuck} is stuck: its session was ended");
        }
        for recovery in &found.of {
            tracing::warn!(
                instance.id = %recovery.instance,
                n_requeued = recovery.requeued.len(),
                n_failed = recovery.failed.len(),
                "instance {} is dead: {} of its runs are queued again, {} failed",
                recovery.instance, recovery.requeued.len(), recovery.failed.len(),
            );
        }
        let n_runs = found.of.iter().map(|recovery| recovery.requeued.len() + recovery.failed.len()).sum();
        Ok(Recovered { n_runs, is_anyone_driving: found.is_anyone_driving })
    }
}

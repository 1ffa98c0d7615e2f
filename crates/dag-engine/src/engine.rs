//! The engine drives claimed runs; it does not claim them.

use std::sync::Arc;
use std::time::Duration;

use gathering_domain::{Digest, FailureKind, RunEvent, RunId};
use moka::sync::Cache;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::breaker::Breakers;
use crate::checkpointer::{Checkpointer, CheckpointerService};
use crate::clock::Clock;
use crate::driver::cancelled_by;
use crate::driver::{DriveEnd, Driver, DriverContext, Refused, Signals};
use crate::graph::Graph;
use crate::journal::{JournalEntry, JournalEvent, Record, Seq};
use crate::node_run::NodeRun;
use crate::node_type::{NodeSpecs, NodeTypes};
use crate::permits::NodePermits;
use crate::progress::{Progress, RunScope};
use crate::rerun::{Continuation, EarlierRun, RerunFrom, records_to_take_up};
use crate::store::{
    Checkpoint, Claim, ClaimedRun, JournalAtClaim, Release, RunEnd, RunError, RunResult, RunStore, StoreError,
};
use crate::store_retries::StoreRetries;

const JOURNAL_PAGE: usize = 10_000;

/// The settings of an engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// A run whose next timer is further away than this is parked until then; the driver waits in place for nearer
    /// ones.
    pub park_after: Duration,
    /// How many validated graphs are cached; the least recently used is evicted first.
    pub graph_cache_entries: u64,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { park_after: Duration::from_secs(5), graph_cache_entries: 1000 }
    }
}

/// Drives claimed runs. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    store: Arc<dyn RunStore>,
    around: DriverContext,
    /// By digest, and whether `item` is in scope. When many runs need a graph at once, the first loads it for all.
    graphs: Cache<(Digest, bool), Arc<OnceCell<Arc<Graph>>>>,
}

/// The engine's own task: it writes the checkpoints. It must outlive every drive.
pub struct EngineService(CheckpointerService);

impl EngineService {
    /// Runs until `stop` is cancelled; drives that have not ended by then end as [`DriveEnd::Abandoned`].
    pub async fn run(self, stop: CancellationToken) {
        self.0.run(stop).await;
    }
}

impl Engine {
    /// An engine on this store, and the service that the caller must run.
    pub fn new(
        store: Arc<dyn RunStore>,
        types: NodeTypes,
        clock: Arc<dyn Clock>,
        settings: EngineSettings,
    ) -> (Self, EngineService) {
        let (checkpointer, service) = Checkpointer::new(Arc::clone(&store));
        let around = DriverContext {
            types: Arc::new(types),
            checkpointer,
            clock,
            park_after: settings.park_after,
            breakers: None,
            permits: None,
        };
        let graphs = Cache::new(settings.graph_cache_entries);
        (Self { store, around, graphs }, EngineService(service))
    }

    /// The same engine with circuit breakers; without them, none ever opens.
    #[must_use]
    pub fn with_breakers(mut self, breakers: Breakers) -> Self {
        self.around.breakers = Some(breakers);
        self
    }

    /// The same engine with permits of nodes; without them, no node is limited across runs.
    #[must_use]
    pub fn with_node_permits(mut self, permits: Arc<dyn NodePermits>) -> Self {
        self.around.permits = Some(permits);
        self
    }

    /// The node types that a definition may use here.
    pub fn node_specs(&self) -> &NodeSpecs {
        self.around.types.specs()
    }

    /// The store of the runs.
    pub fn store(&self) -> &Arc<dyn RunStore> {
        &self.store
    }

    /// Drives a claimed run until it ends, waits, or a signal comes.
    ///
    /// Cancellation: dropping it drops every node future; the run stays claimed and has to be recovered. Prefer
    /// signals.
    pub async fn drive(&self, claimed: ClaimedRun, signals: Signals) -> DriveEnd {
        let fence = signals.fence.clone();
        tokio::select! {
            biased;
            () = fence.cancelled() => DriveEnd::Abandoned,
            end = self.load_and_drive(claimed, signals) => end,
        }
    }

    async fn load_and_drive(&self, mut claimed: ClaimedRun, signals: Signals) -> DriveEnd {
        let journal = match self.journal_of(&claimed, &signals).await {
            Ok(journal) => journal,
            Err(error) => return self.give_up(&claimed, 0, error).await,
        };
        if is_of_later_claim(&journal, claimed.claim) {
            return DriveEnd::ClaimLost;
        }
        let n_started = Seq::try_from(claimed.started_with_claim().len()).unwrap_or(Seq::MAX);
        let last_seq = journal.last().map_or(n_started, |entry| entry.seq);
        let input = match std::mem::replace(&mut claimed.input, Ok(Value::Null)) {
            Ok(input) => input,
            Err(reason) => return self.give_up(&claimed, last_seq, LoadError::Unusable(reason.into())).await,
        };
        let graph = match self.graph_of(claimed.graph, claimed.is_item(), &signals).await {
            Ok(graph) => graph,
            Err(error) => return self.give_up(&claimed, last_seq, error).await,
        };
        let taken_up = match self.inherited_records(&claimed, (&graph, &input), &journal, &signals).await {
            Ok(records) => records,
            Err(error) => return self.give_up(&claimed, last_seq, error).await,
        };
        let mut progress = Progress::new(Arc::clone(&graph), RunScope::of(&claimed), input);
        if let Err(error) = progress.replay(&journal) {
            return self.give_up(&claimed, last_seq, LoadError::Unusable(error.into())).await;
        }
        if let Err(error) = progress.inherit(&taken_up, self.around.clock.now()) {
            return self.give_up(&claimed, last_seq, LoadError::Unusable(error.into())).await;
        }
        drop(journal);
        let started = match progress.begin(claimed.started_with_claim(), self.around.clock.now()) {
            Ok(started) => started,
            Err(error) => return self.give_up(&claimed, last_seq, LoadError::Unusable(error.into())).await,
        };
        let claim = claimed.claim;
        let driver = Driver::new(self.around.clone(), claimed, graph, progress, (last_seq + 1, taken_up));
        match Box::pin(driver.drive(started, signals.clone())).await {
            Ok(end) => end,
            Err(refused) => self.end_refused(claim, &signals, refused).await,
        }
    }

    /// The records that the run begins with because it takes up the work of an earlier one; none once it has records of
    /// its own.
    async fn inherited_records(
        &self,
        claimed: &ClaimedRun,
        (graph, input): (&Arc<Graph>, &Value),
        journal: &[JournalEntry],
        signals: &Signals,
    ) -> Result<Vec<Record>, LoadError> {
        let Some(earlier) = claimed.takes_up else { return Ok(Vec::new()) };
        if journal.iter().any(|entry| entry.record.node.is_some()) {
            return Ok(Vec::new());
        }
        let earlier_journal = self.whole_journal(earlier, signals).await?;
        // It was claimed, so it had a journal. Without it nobody knows what must not be repeated.
        if earlier_journal.is_empty() {
            let message = format!("the journal of run {earlier}, whose work it takes up, is no longer kept");
            return Err(LoadError::Unusable(message.into()));
        }
        let source = retry_while_unavailable(signals, || self.store.load_source(earlier)).await?;
        let decisions = retry_while_unavailable(signals, || self.store.find_outcomes(earlier)).await?;
        let earlier = EarlierRun {
            id: earlier,
            project: claimed.project,
            graph: &self.graph_of(source.graph, claimed.is_item(), signals).await?,
            input: &source.input,
            journal: &earlier_journal,
            decisions: &decisions,
        };
        let new = Continuation { graph, input, from: &RerunFrom::Failed };
        records_to_take_up(earlier, new, claimed.is_item()).map_err(|error| LoadError::Unusable(error.into()))
    }

    async fn journal_of(
        &self,
        claimed: &ClaimedRun,
        signals: &Signals,
    ) -> Result<Vec<JournalEntry>, LoadError> {
        match claimed.journal {
            JournalAtClaim::New { .. } => Ok(Vec::new()),
            JournalAtClaim::Existing => self.whole_journal(claimed.claim.run, signals).await,
        }
    }

    async fn whole_journal(&self, run: RunId, signals: &Signals) -> Result<Vec<JournalEntry>, LoadError> {
        let mut journal: Vec<JournalEntry> = Vec::new();
        loop {
            let after = journal.last().map_or(0, |entry| entry.seq);
            let page = retry_while_unavailable(signals, || self.store.load_journal(run, after, JOURNAL_PAGE))
                .await?;
            let complete = page.len() < JOURNAL_PAGE;
            journal.extend(page);
            if complete {
                return Ok(journal);
            }
        }
    }

    async fn graph_of(
        &self,
        graph: Digest,
        is_item: bool,
        signals: &Signals,
    ) -> Result<Arc<Graph>, LoadError> {
        let cell = self.graphs.get_with((graph, is_item), Arc::default);
        cell.get_or_try_init(|| self.load_graph(graph, is_item, signals)).await.cloned()
    }

    async fn load_graph(
        &self,
        graph: Digest,
        is_item: bool,
        signals: &Signals,
    ) -> Result<Arc<Graph>, LoadError> {
        let definition = retry_while_unavailable(signals, || self.store.load_graph(graph)).await?;
        let graph = if is_item {
            Graph::validate_item(&definition, self.node_specs())
        } else {
            Graph::validate(&definition, self.node_specs())
        };
        graph.map(Arc::new).map_err(|problems| LoadError::Unusable(problems.into()))
    }

    /// A run that cannot be driven fails, instead of being claimed again for ever.
    async fn give_up(&self, claimed: &ClaimedRun, last_seq: Seq, error: LoadError) -> DriveEnd {
        let cause = match error {
            LoadError::Stopped => return self.requeue(claimed, last_seq).await,
            LoadError::Unusable(cause) => cause,
        };
        tracing::error!(run.id = %claimed.claim.run, error = %cause, "cannot drive a run; failing it");
        let error = RunError::of(FailureKind::GraphInvalid, cause.to_string());
        let end = RunEnd { result: RunResult::Failed(error), abandons_children: true, is_limited: true };
        let (claim, end) = (claimed.claim, Release::End(end));
        self.release(claim, last_seq, Vec::new(), end, DriveEnd::Ended(RunEvent::Failed)).await
    }

    /// Ends a run whose drive panicked.
    pub(crate) async fn fail_after_panic(&self, claim: Claim, signals: Signals) -> DriveEnd {
        tracing::error!(run.id = %claim.run, "engine panicked while driving a run; failing the run");
        let message = "the engine panicked while driving this run; see the server log";
        let error = RunError::of(FailureKind::Internal, message);
        tokio::select! {
            () = signals.fence.cancelled() => DriveEnd::Abandoned,
            end = self.end_from_journal(claim, &signals, error) => end,
        }
    }

    /// Fails a run whose checkpoint the store rejected: the next driver would be rejected as well.
    async fn end_refused(&self, claim: Claim, signals: &Signals, refused: Refused) -> DriveEnd {
        tracing::error!(run.id = %claim.run, error = %refused.0, "checkpoint rejected by the store; failing the run");
        let message = "the store rejected this run's results; see the server log";
        let error = RunError::of(FailureKind::CheckpointRefused, message);
        self.end_from_journal(claim, signals, error).await
    }

    /// Fails a run from its durable journal: recorded results stay, and open nodes are cancelled (I5).
    async fn end_from_journal(&self, claim: Claim, signals: &Signals, error: RunError) -> DriveEnd {
        let Ok(journal) = self.whole_journal(claim.run, signals).await else { return DriveEnd::Abandoned };
        if is_of_later_claim(&journal, claim) {
            return DriveEnd::ClaimLost;
        }
        let Ok(nodes) = NodeRun::fold(&journal) else { return DriveEnd::Abandoned };
        let open = nodes.into_iter().filter(|(_, node)| !node.state.is_resolved());
        let result = RunResult::Failed(error);
        let why = cancelled_by(&result);
        let records = open
            .map(|(id, node)| Record::of_node(id, node.attempt, JournalEvent::Cancelled(why.clone())))
            .collect();
        let end = RunEnd { result, abandons_children: true, is_limited: true };
        let last_seq = journal.last().map_or(0, |entry| entry.seq);
        match self
            .release(claim, last_seq, records, Release::End(end), DriveEnd::Ended(RunEvent::Failed))
            .await
        {
            // A checkpoint that was in flight may have been written first; the next driver reads it, too.
            DriveEnd::ClaimLost => DriveEnd::Abandoned,
            end => end,
        }
    }

    async fn requeue(&self, claimed: &ClaimedRun, last_seq: Seq) -> DriveEnd {
        self.release(claimed.claim, last_seq, Vec::new(), Release::Requeue, DriveEnd::Requeued).await
    }

    async fn release(
        &self,
        claim: Claim,
        last_seq: Seq,
        records: Vec<Record>,
        release: Release,
        end: DriveEnd,
    ) -> DriveEnd {
        let checkpoint =
            Checkpoint { claim, first_seq: last_seq + 1, records, release: Some(release), frees: Vec::new() };
        match self.around.checkpointer.commit(checkpoint).await {
            Ok(()) => end,
            Err(StoreError::ClaimLost { .. }) => DriveEnd::ClaimLost,
            Err(_) => DriveEnd::Abandoned,
        }
    }
}

/// Whether a later claim has written to the journal: this claim must not go on from it, although the next places are
/// free.
fn is_of_later_claim(journal: &[JournalEntry], claim: Claim) -> bool {
    journal.last().is_some_and(|entry| entry.epoch > claim.epoch)
}

/// Why a run cannot be driven.
enum LoadError {
    /// The instance stops.
    Stopped,
    /// Its stored data is invalid here.
    Unusable(Box<dyn std::error::Error + Send + Sync>),
}

/// How long the store may take to answer while the instance drains: a run that was loaded is released with its place in
/// the journal known.
const LOAD_WHILE_DRAINING: Duration = Duration::from_secs(1);

/// Asks the store until it answers or the instance drains. Warns once after five seconds without an answer.
async fn retry_while_unavailable<T, F, Fut>(signals: &Signals, ask: F) -> Result<T, LoadError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut retries = StoreRetries::for_ever_of("loading a run");
    let answer = async {
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            retries.pause(error).await.map_err(|error| LoadError::Unusable(error.into()))?;
        }
    };
    let stopped = async {
        signals.drain.cancelled().await;
        tokio::time::sleep(LOAD_WHILE_DRAINING).await;
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = stopped => Err(LoadError::Stopped),
    }
}

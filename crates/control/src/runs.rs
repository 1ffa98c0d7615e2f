//! Runs as people and programs know them: started, shown, rerun, cancelled, decided. Driving them is the engine's.

mod cancel;
mod child;
mod decide;
mod decide_outcome;
mod local;
mod nodes;
mod rerun;
mod start;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_dag_engine::{JournalEntry, NewRun, NodeFailure, Record, RunError, Seq};
use gathering_domain::{
    Digest, NodeId, Once, PermitRequest, PipelineId, ProjectId, RunId, RunKind, RunState, ScheduleId,
    WaitingFor,
};
use serde_json::Value;

use crate::access::right::{self, Right};
use crate::access::{OfProject, Scoped};
use crate::graphs::{GraphSummary, Graphs};
use crate::questions::Question;
use crate::{ControlError, ControlStore};

pub use child::ProjectPipelines;
pub use decide::{Decide, DecisionOutcome, NewDecision};
pub use decide_outcome::{DecideOutcome, NewOutcome};
pub use local::{LocalFile, RerunLocal};
pub use nodes::NodeRuns;
pub use rerun::{AcceptedRerun, Rerun};
pub use start::{DEFAULT_PRIORITY, PipelineToStart, StartRun, Startable, StartedBy};

/// A run as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// Its definition.
    pub graph: Digest,
    /// What it is one execution of.
    pub kind: RunKind,
    /// What started it.
    pub trigger: Value,
    /// The pipeline and its version.
    pub pipeline: Option<(PipelineId, i32)>,
    /// The schedule that it belongs to.
    pub schedule: Option<ScheduleId>,
    /// The run that started it.
    pub parent: Option<RunId>,
    /// The run whose successes it reuses.
    pub rerun_of: Option<RunId>,
    /// Its state.
    pub state: RunState,
    /// What it waits for, while it waits.
    pub waiting_for: Option<WaitingFor>,
    /// Its input.
    pub input: Value,
    /// Its output, once it has succeeded.
    pub output: Option<Value>,
    /// Why it did not succeed.
    pub error: Option<RunError>,
    /// 1 to 10; runs with a higher priority are claimed first.
    pub priority: i32,
    /// How often its owner died.
    pub recoveries: i32,
    /// When it must have ended, in UTC.
    pub deadline_at: Option<DateTime<Utc>>,
    /// When its cancellation was requested, in UTC.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// When it was accepted, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it was first claimed, in UTC.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, in UTC.
    pub ended_at: Option<DateTime<Utc>>,
}

impl OfProject for Run {
    fn project(&self) -> ProjectId {
        self.project
    }
}

/// A run that was decided on, and is to be accepted in a project. Only this crate makes one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PlannedRun {
    /// Its id.
    pub id: RunId,
    /// Its definition, stored before.
    pub graph: Digest,
    /// Its input.
    pub input: Value,
    /// 1 to 10; runs with a higher priority are claimed first.
    pub priority: i32,
    /// Not to be claimed before, in UTC.
    pub available_at: Option<DateTime<Utc>>,
    /// How long it may take from its acceptance.
    pub timeout: Option<Duration>,
    /// What it is one execution of.
    pub kind: RunKind,
    /// What started it, as the API shows it.
    pub trigger: Value,
    /// The pipeline and its version.
    pub pipeline: Option<(PipelineId, i32)>,
    /// The schedule that it belongs to.
    pub schedule: Option<ScheduleId>,
    /// The run whose successes it reuses.
    pub rerun_of: Option<RunId>,
    /// What it asks for before it starts, if its pipeline limits its runs.
    pub permit: Option<PermitRequest>,
    /// What makes a repeated request the same.
    pub once: Option<Once>,
    /// What its journal begins with.
    pub begins_with: Vec<Record>,
}

impl PlannedRun {
    /// The run as the engine accepts it, in this project.
    pub fn in_project(&self, project: ProjectId) -> NewRun {
        NewRun {
            id: self.id,
            project,
            graph: self.graph,
            input: self.input.clone(),
            priority: self.priority,
            available_at: self.available_at,
            timeout: self.timeout,
        }
    }

    /// The one plan of every run: who starts it decides its kind and its trigger. It belongs to no pipeline, and begins with
    /// nothing.
    pub(crate) fn new(by: StartedBy<'_>, graph: Digest, timeout: Option<Duration>, start: StartRun) -> Self {
        let StartRun { input, priority, available_at, .. } = start;
        Self {
            id: RunId::new(),
            graph,
            input,
            priority,
            available_at,
            timeout,
            kind: by.kind(),
            trigger: by.trigger(),
            pipeline: None,
            schedule: by.schedule(),
            rerun_of: None,
            permit: None,
            once: None,
            begins_with: Vec::new(),
        }
    }
}

/// A run as it is shown by itself.
#[derive(Debug)]
pub struct RunDetails {
    /// The run.
    pub run: Run,
    /// Its graph.
    pub graph: Arc<GraphSummary>,
    /// What became of the nodes; at least as new as the run.
    pub nodes: NodeRuns,
    /// What its tools asked people, the oldest first.
    pub questions: Vec<Question>,
}

/// What may be done with runs. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct RunControl {
    store: Arc<dyn ControlStore>,
    graphs: Graphs,
}

impl RunControl {
    /// The runs of this store, whose graphs are these.
    pub fn new(store: Arc<dyn ControlStore>, graphs: Graphs) -> Self {
        Self { store, graphs }
    }

    pub(crate) fn store(&self) -> &dyn ControlStore {
        &*self.store
    }

    /// The run, if the caller may do `R` with it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn find<R: Right>(&self, caller: &Caller, run: RunId) -> Result<Scoped<Run, R>, ControlError> {
        Scoped::check(caller, self.store.find_run(caller, run).await?)
    }

    /// The run with its graph and what became of its nodes.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn show(&self, caller: &Caller, run: RunId) -> Result<RunDetails, ControlError> {
        // The run first: what its journal says is then at least as far.
        let run = self.find::<right::Read>(caller, run).await?;
        let graph = self.graphs.summarize(run.graph).await?;
        let nodes = self.load_nodes(&run).await?;
        // Only what calls tools asks people.
        let questions = match graph.calls_tools() {
            true => self.store.list_questions(run.id).await?,
            false => Vec::new(),
        };
        Ok(RunDetails { run: run.into_thing(), graph, nodes, questions })
    }

    /// At most `limit` entries of the run's journal, in order, after the entry `after`; 0 for the first.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn list_journal(
        &self,
        caller: &Caller,
        run: RunId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, ControlError> {
        let run = self.find::<right::Read>(caller, run).await?;
        Ok(self.graphs.store().load_journal(run.id, after, limit).await?)
    }

    /// Why a node of a run failed; `None` if it did not, or nothing is kept of it.
    pub(crate) async fn find_failure(
        &self,
        run: RunId,
        node: &NodeId,
    ) -> Result<Option<NodeFailure>, ControlError> {
        let mut nodes = NodeRuns::load(&**self.graphs.store(), run).await?;
        Ok(nodes.take(node).and_then(|node| node.failure))
    }

    /// Stores a definition that was checked before. Repeats: safe.
    pub(crate) async fn ensure_graph(&self, definition: &Value) -> Result<Digest, ControlError> {
        self.graphs.ensure(definition).await
    }

    /// The input that a run of this graph gets.
    async fn complete_input(&self, graph: Digest, input: Value) -> Result<Value, ControlError> {
        self.graphs.summarize(graph).await?.rules.complete_input_of_request(input).await
    }

    /// The nodes of a run, as its journal has them. What it holds is at least as new as the run that was found.
    ///
    /// # Errors
    /// The store's.
    pub async fn load_nodes<R: Right>(&self, run: &Scoped<Run, R>) -> Result<NodeRuns, ControlError> {
        NodeRuns::load(&**self.graphs.store(), run.id).await
    }
}

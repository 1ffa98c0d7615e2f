//! What a node can be: the port to the code that executes it, and the types that need nothing but the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{NodeId, ProjectId, RunId, WaitingFor};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::effects::Effects;
use crate::fields::Fields;
use crate::journal::NodeFailure;

mod approval;
mod builtin;
mod map;

pub use self::approval::Approval;
pub use self::map::MapNode;

/// A kind of node: how its config is checked and how one attempt executes.
#[async_trait]
pub trait NodeType: Send + Sync + 'static {
    /// Checks the config of a node when its definition is validated. Every field that the type knows must be asked for.
    fn check(&self, config: &mut Fields<'_>);

    /// The fields of the config that are expressions as a whole: an attempt sees their values.
    fn expressions(&self) -> &'static [&'static str] {
        &[]
    }

    /// The field of the config that holds a graph of its own, with `item` and `index` in scope: an attempt sees it as it
    /// was written.
    fn sub_graph(&self) -> Option<&'static str> {
        None
    }

    /// Whether edges out of such a node are taken by its output's `result`, where they have no `when` of their own.
    fn decides_edges(&self) -> bool {
        false
    }

    /// Whether an attempt sees the outputs of its direct predecessors.
    fn collects_upstream(&self) -> bool {
        false
    }

    /// The fields that the output of a node with this config can have, where that is known before it runs: an
    /// expression that reads another one is then refused. `None` where it is not known.
    fn output_fields(&self, _config: &Value) -> Option<&'static [&'static str]> {
        None
    }

    /// Whether an attempt of a node with this config may fail. What only follows on its failure can never run otherwise,
    /// and a definition that has such a node is refused.
    fn can_fail(&self, _config: &Value) -> bool {
        true
    }

    /// Looks whether what a waiting node waits for has come. Asked when somebody acted on the run and when the run is taken
    /// up again, any number of times, so what it does must be safe to repeat; it records no effects.
    ///
    /// Cancellation: as [`NodeType::execute`].
    ///
    /// # Errors
    /// [`NodeFailure`]: what it waited for came to nothing.
    async fn poll(&self, _attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        Ok(PollOutcome::Pending)
    }

    /// Executes one attempt.
    ///
    /// Cancellation: the future is dropped when the run is cancelled, times out or is handed back; it must hold nothing
    /// that dropping does not release, and no transaction. Work that dropping cannot reach watches [`Attempt::stop`].
    ///
    /// # Errors
    /// [`NodeFailure`], which says whether another attempt may help.
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure>;
}

/// One try to execute a node.
#[derive(Debug)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// Whose run it is.
    pub project: ProjectId,
    /// The node.
    pub node: NodeId,
    /// Which try, from 1.
    pub attempt: i32,
    /// How many attempts failed before; interrupted ones do not count.
    pub failures: u32,
    /// The config, computed.
    pub config: Arc<Value>,
    /// The run's input.
    pub input: Arc<Value>,
    /// The outputs of the direct predecessors by id, for types that collect them.
    pub upstream: Map<String, Value>,
    /// Whether an earlier call of this node asked to wait, and that wait is over.
    pub woken: bool,
    /// When the run must have ended.
    pub deadline_at: Option<DateTime<Utc>>,
    /// By the engine's clock.
    pub now: DateTime<Utc>,
    /// What the node did outside already, and where it records what it is about to do.
    pub effects: Effects,
    /// Cancelled when the attempt is dropped.
    pub stop: CancellationToken,
}

impl Attempt {
    /// The key under which everything outside sees this node of this run: the same on every attempt and instance.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.run, self.node)
    }
}

/// What an attempt came to, when it did not fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The node succeeded with this output.
    Done(Value),
    /// The node holds nothing until what it waits for comes.
    Wait(Wait),
}

/// What a waiting node finds when it looks.
#[derive(Debug, Clone, PartialEq)]
pub enum PollOutcome {
    /// What it waits for has not come: it waits on, and nothing is recorded.
    Pending,
    /// It came, and with it the end of the attempt.
    Ended(Outcome),
    /// It came: the same attempt goes on, executed again as [`Attempt::woken`].
    Resume,
}

impl From<Option<Outcome>> for PollOutcome {
    fn from(outcome: Option<Outcome>) -> Self {
        outcome.map_or(Self::Pending, Self::Ended)
    }
}

/// What a node waits for while it holds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// What.
    pub on: WaitingFor,
    /// When the node is executed again, [`Attempt::woken`], whatever came; never if absent.
    pub until: Option<DateTime<Utc>>,
}

impl Wait {
    /// A wait for a time and nothing else.
    pub const fn until(time: DateTime<Utc>) -> Self {
        Self { on: WaitingFor::Timer, until: Some(time) }
    }
}

/// The node types that definitions may use.
#[derive(Clone, Default)]
pub struct NodeTypes(BTreeMap<String, Arc<dyn NodeType>>);

impl NodeTypes {
    /// The types that need nothing but the engine: `trigger`, `condition`, `parallel` and `delay`. [`MapNode`] and
    /// [`Approval`] need a store each.
    pub fn builtin() -> Self {
        Self::default()
            .with("trigger", builtin::Trigger)
            .with("condition", builtin::Condition)
            .with("parallel", builtin::Parallel)
            .with("delay", builtin::Delay)
    }

    /// These and one more; a type of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, node_type: impl NodeType) -> Self {
        self.0.insert(name.to_owned(), Arc::new(node_type));
        self
    }

    pub(crate) fn barrier() -> Arc<dyn NodeType> {
        Arc::new(builtin::Parallel)
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn NodeType>> {
        self.0.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for NodeTypes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

//! Node types: what is known of a kind of node before it runs, and the code that executes it.
//!
//! A [`NodeSpec`] is pure, so a definition is validated without any service. A [`NodeExecutor`] does the work. Only the
//! engine needs both.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{NodeId, Pointer, ProjectId, RunId, WaitingFor};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::effects::Effects;
use crate::fields::Fields;
use crate::journal::NodeFailure;
use crate::secret_slots::SecretSlots;

mod approval;
mod builtin;
mod map;
mod registry;

pub use self::approval::{Approval, ApprovalSpec};
pub use self::map::{MapNode, MapSpec};
pub use self::registry::{NodeSpecs, NodeTypes};

/// What validation knows of a node type. Every method is a pure function of the node's config as the definition has it.
pub trait NodeSpec: Send + Sync + 'static {
    /// Checks the config of a node. It must read every field that the type knows: a field that it does not read is
    /// reported as unknown. By default the type has no fields.
    fn check(&self, _config: &mut Fields<'_>) {}

    /// The config fields that are whole expressions: an attempt sees their values.
    fn expressions(&self) -> &'static [&'static str] {
        &[]
    }

    /// The config field that holds a graph, with `item` and `index` in scope: an attempt sees that graph unevaluated.
    fn sub_graph(&self) -> Option<&'static str> {
        None
    }

    /// Whether `result` in the node's output decides its outgoing edges that have no `when`.
    fn decides_edges(&self) -> bool {
        false
    }

    /// Whether an attempt sees the outputs of the node's direct predecessors.
    fn collects_upstream(&self) -> bool {
        false
    }

    /// Whether the result of an attempt depends on all of the run's input, whatever the config reads of it. A rerun with
    /// another input then does not keep the result.
    fn reads_input(&self) -> bool {
        false
    }

    /// The only fields that the output of a node with this config can have: validation refuses an expression that reads
    /// another one. `None` if they are unknown before the node runs.
    fn output_fields(&self, _config: &Value) -> Option<&'static [&'static str]> {
        None
    }

    /// The fields of this config in which secrets may stand. Their values are for what the node sends, and are shown
    /// nowhere. By default there are none.
    fn secret_fields(&self, _config: &Value) -> SecretFields {
        SecretFields::default()
    }

    /// Whether the node always ends its run. If so, validation refuses edges out of it.
    fn ends_run(&self) -> bool {
        false
    }

    /// Whether an attempt of a node with this config can fail. If not, validation refuses nodes that run only after its
    /// failure.
    fn can_fail(&self, _config: &Value) -> bool {
        true
    }
}

/// The fields of a config in which secrets may stand, as JSON pointers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecretFields {
    /// They, and everything below them.
    pub within: &'static [&'static str],
    /// Fields below those in which none may stand.
    pub except: &'static [&'static str],
}

impl SecretFields {
    /// Whether a secret may stand at this place of the config.
    pub(crate) fn take(&self, place: &Pointer) -> bool {
        let is_within = |field: &&str| {
            place
                .as_str()
                .strip_prefix(*field)
                .is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        self.within.iter().any(&is_within) && !self.except.iter().any(is_within)
    }

    /// Where they may stand, for a message.
    pub(crate) fn describe(&self, node_type: &str) -> String {
        let code =
            |fields: &[&str]| fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
        match (self.within, self.except) {
            ([], _) => format!(
                "no secret may stand here: this node of type `{node_type}` takes none; secrets are for fields that a \
                 node sends to the outside, such as a header"
            ),
            (within, []) => format!("no secret may stand here: this node takes secrets in {}", code(within)),
            (within, except) => format!(
                "no secret may stand here: this node takes secrets in {}, without {}",
                code(within),
                code(except)
            ),
        }
    }
}

/// The code of a node type.
#[async_trait]
pub trait NodeExecutor: Send + Sync + 'static {
    /// Executes one attempt.
    ///
    /// Cancellation: the engine drops the future when the run is cancelled, times out or is released. The future must hold
    /// nothing that dropping does not free, and no transaction. Work that dropping cannot reach watches [`Attempt::stop`].
    ///
    /// # Errors
    /// [`NodeFailure`], which says whether another attempt may help.
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure>;

    /// Checks whether the wait of a waiting node is over. The engine calls it after each signal to the run and whenever the
    /// run is claimed again. It must be safe to repeat, and it records no effects. By default only the end of
    /// [`Wait::until`] ends a wait.
    ///
    /// Cancellation: as [`NodeExecutor::execute`].
    ///
    /// # Errors
    /// [`NodeFailure`]: the attempt fails.
    async fn poll(&self, _attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        Ok(PollOutcome::Pending)
    }
}

/// One try to execute a node.
#[derive(Debug)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// The project of the run.
    pub project: ProjectId,
    /// The node.
    pub node: NodeId,
    /// The number of the attempt, from 1.
    pub attempt: i32,
    /// How many attempts failed before this one; interrupted attempts do not count.
    pub failures: u32,
    /// The config, with its expressions evaluated. References to secrets stand in it as they are written.
    pub config: Arc<Value>,
    /// Where they stand.
    pub secrets: Arc<SecretSlots>,
    /// The run's input.
    pub input: Arc<Value>,
    /// The outputs of the direct predecessors by id; empty unless [`NodeSpec::collects_upstream`].
    pub upstream: Map<String, Value>,
    /// The runs in which the node was begun before this one, the latest first: what its child runs achieved there is
    /// taken over.
    pub earlier_runs: Vec<RunId>,
    /// Whether this attempt has waited, and that wait is over.
    pub woken: bool,
    /// Whether its timeout passed while it waited: it only ends what it began.
    pub is_overdue: bool,
    /// The deadline of the run, by the store's clock.
    pub deadline_at: Option<DateTime<Utc>>,
    /// The start of this call, by the engine's clock.
    pub now: DateTime<Utc>,
    /// The node's part of the effect ledger.
    pub effects: Effects,
    /// Cancelled when the engine drops the attempt.
    pub stop: CancellationToken,
}

/// The result of an attempt that did not fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The node succeeded with this output.
    Done(Value),
    /// The node waits, and holds nothing while it does.
    Wait(Wait),
}

/// The result of [`NodeExecutor::poll`].
#[derive(Debug, Clone, PartialEq)]
pub enum PollOutcome {
    /// The wait goes on. Nothing is recorded.
    Pending,
    /// The wait is over, and this is the result of the attempt.
    Ended(Outcome),
    /// The wait is over: the engine executes the same attempt again, with [`Attempt::woken`].
    Resume,
}

impl From<Option<Outcome>> for PollOutcome {
    fn from(outcome: Option<Outcome>) -> Self {
        outcome.map_or(Self::Pending, Self::Ended)
    }
}

/// What a node waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The wait reason.
    pub on: WaitingFor,
    /// When the engine executes the node again, with [`Attempt::woken`], even if nothing else ended the wait; `None` for no
    /// limit.
    pub until: Option<DateTime<Utc>>,
}

impl Wait {
    /// A wait that ends at this time.
    pub const fn until(time: DateTime<Utc>) -> Self {
        Self { on: WaitingFor::Timer, until: Some(time) }
    }
}

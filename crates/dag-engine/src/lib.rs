#![doc = include_str!("../README.md")]

mod breaker;
mod budget_ledger;
mod checkpointer;
mod children;
mod clock;
mod decisions;
mod document;
mod driver;
mod effects;
mod engine;
mod expression;
mod fields;
mod first_nodes;
mod graph;
mod journal;
mod node_run;
mod node_type;
mod permits;
mod progress;
mod rehearsal;
mod rerun;
mod runner;
mod secret_slots;
mod store;
mod store_retries;
mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod value_template;
mod values;

pub use breaker::{Breaker, BreakerKey, BreakerStore, Breakers};
pub use budget_ledger::{BudgetLedger, Call, Grant};
pub use children::{
    ChildKind, ChildRuns, ChildState, ChildSummary, EARLIER_CHILDREN_PAUSE, MAX_DEPTH, NewChild, Parent,
    StartChildrenError, Unsuccessful, end_earlier_round, poll_only_child, retry_while_unavailable,
    start_children,
};
pub use clock::{Clock, SystemClock};
pub use decisions::{DecidedOutcome, Decision, Decisions, NodeDecision, NodeDecisions, UnknownOutcome};
pub use document::definition_file::{DefinitionFile, InvalidDefinitionFile};
pub use document::json::read_json;
pub use document::limits::{MAX_DOCUMENT_BYTES, MAX_EDGES, MAX_NESTING, MAX_NODES};
pub use document::source_map::SourceMap;
pub use driver::{DriveEnd, Signals};
pub use effects::{ActFailed, Effects, Redaction};
pub use engine::{Engine, EngineService, EngineSettings};
pub use expression::{
    EvaluationError, Expression, ExpressionProblem, MAX_SOURCE_BYTES, MAX_STEPS, MAX_WORK, Scope,
};
pub use fields::{Fields, Shape};
pub use first_nodes::first_nodes;
pub use gathering_domain::{EffectClass, FailureKind};
pub use graph::{Graph, InputSchema, RunLimits, ToolOffer};
pub use journal::{
    CorruptEntry, EffectEnd, EffectStart, JournalEntry, JournalEvent, NodeFailure, Record, Reuse,
    ReusedEffect, Seq,
};
pub use node_run::{IllegalRecord, NodeRun, NodeState};
pub use node_type::{
    Approval, ApprovalSpec, Attempt, MapNode, MapSpec, NodeExecutor, NodeSpec, NodeSpecs, NodeTypes, Outcome,
    PollOutcome, SecretFields, Wait,
};
pub use permits::{NodePermit, NodePermits, PermitScope};
pub use rerun::{
    Continuation, EarlierRun, NotKept, NotKeptReason, RerunFrom, RerunPlan, RerunRefused, plan_rerun,
};
pub use runner::{Runner, RunnerHandle, RunnerSettings};
pub use secret_slots::{SecretSegment, SecretSlot, SecretSlots};
pub use store::{
    Checkpoint, Claim, ClaimScope, ClaimedRun, FailedNode, GraphRole, JournalAtClaim, NewRun, Recovered,
    Release, RunEnd, RunError, RunResult, RunSource, RunStore, SignalledRun, StoreError,
};
pub use value_template::ValueTemplate;
pub use values::{MAX_VALUE_BYTES, MAX_VALUE_DEPTH, ValueLimit, ValueRole, check_value};

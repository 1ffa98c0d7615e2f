#![doc = include_str!("../README.md")]

mod checkpointer;
mod clock;
mod document;
mod driver;
mod effects;
mod engine;
mod expression;
mod fields;
mod graph;
mod journal;
mod node_run;
mod node_type;
mod progress;
mod runner;
mod store;
mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use clock::{Clock, SystemClock};
pub use document::MAX_NODES;
pub use driver::{DriveEnd, Signals};
pub use effects::Effects;
pub use engine::{Engine, EngineService, EngineSettings};
pub use expression::{EvaluationError, Expression, ExpressionProblem, MAX_SOURCE_BYTES, MAX_STEPS, Scope};
pub use fields::{Fields, Shape};
pub use gathering_domain::EffectClass;
pub use graph::Graph;
pub use journal::{CorruptEntry, EffectStart, JournalEntry, JournalEvent, NodeFailure, Record, Seq};
pub use node_run::{IllegalRecord, NodeRun, NodeState};
pub use node_type::{Attempt, NodeType, NodeTypes, Outcome, Wait};
pub use runner::{Runner, RunnerHandle, RunnerSettings};
pub use store::{
    ActedOn, Checkpoint, Claim, ClaimedRun, NewRun, Release, RunEnd, RunError, RunStore, StoreError,
};

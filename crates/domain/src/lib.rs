//! Ids, states, definitions and problems shared by every GatheRing crate.
//!
//! Owns the words of the product and the rules that hold wherever they are used. Never knows I/O, async, a
//! database or HTTP.

mod definition;
mod digest;
mod email;
mod ids;
mod pointer;
mod problem;
mod run_state;

pub use definition::{
    CircuitBreaker, Definition, Edge, EdgeOn, Join, Node, RetryPolicy, DEFAULT_MAX_CONCURRENCY,
};
pub use digest::Digest;
pub use email::{Email, InvalidEmail};
pub use ids::{
    AgentId, ApiKeyId, InstanceId, InvalidId, NodeId, PipelineId, ProjectId, RequestId, RunId, ScheduleId, TaskId,
    UserId,
};
pub use pointer::Pointer;
pub use problem::{Problem, Problems};
pub use run_state::{IllegalRunEvent, RunEvent, RunState, WaitingFor};
pub use secrecy::{ExposeSecret, SecretString as Secret};

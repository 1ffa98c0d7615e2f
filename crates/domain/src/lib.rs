#![doc = include_str!("../README.md")]

mod budget;
mod definition;
mod digest;
mod effect;
mod email;
mod error_chain;
mod failure_kind;
mod idempotency;
mod ids;
mod mcp_server_name;
mod permit;
mod pointer;
mod problem;
mod run_kind;
mod run_state;
mod secret_name;
mod tool_name;

pub use budget::{Amounts, MAX_AMOUNT, Resource};
pub use definition::{
    CircuitBreaker, DEFAULT_MAX_CONCURRENCY, Definition, Edge, EdgeOn, Join, Node, NodeConcurrency,
    RetryPolicy,
};
pub use digest::Digest;
pub use effect::EffectClass;
pub use email::{Email, InvalidEmail};
pub use error_chain::with_causes;
pub use failure_kind::{CustomKind, FailureKind, InvalidFailureKind};
pub use idempotency::{IdempotencyKey, InvalidIdempotencyKey, KeyedBody, Once};
pub use ids::{
    AgentId, ApiKeyId, AuditEventId, DeliveryId, HookId, InstanceId, InvalidId, NodeId, PipelineId,
    ProjectId, QuestionId, RequestId, RunId, ScheduleId, SecretId, SessionId, TaskId, TokenId, UserId,
};
pub use mcp_server_name::{InvalidMcpServerName, McpServerName};
pub use permit::{NodeOnLimit, OnLimit, PermitRequest};
pub use pointer::Pointer;
pub use problem::{Problem, Problems};
pub use run_kind::RunKind;
pub use run_state::{IllegalRunEvent, RunEvent, RunState, WaitingFor};
pub use secrecy::{ExposeSecret, SecretString as Secret};
pub use secret_name::{InvalidSecretName, SecretName};
pub use tool_name::{MAX_TOOL_NAME, is_tool_name, is_tool_name_character};

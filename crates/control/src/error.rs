//! Why something is not done, by what the reader does about it.

use gathering_auth::Denied;
use gathering_dag_engine::StoreError;
use gathering_domain::{AgentId, HookId, NodeId, PipelineId, Problems, RunId};

use crate::mcp_servers::{MAX_MCP_PINS_BYTES, MAX_MCP_SERVERS};
use crate::secrets::{MAX_SECRETS, MAX_SECRETS_BYTES};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why something is not done. Nothing was changed, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The thing is absent, or the caller may not see it.
    #[error("no such resource, or you have no access to it")]
    NotFound,
    /// The caller's role in the project, or the scopes of their API key, do not allow it.
    #[error("your role, or the scopes of your API key, do not allow this")]
    Forbidden,
    /// The node names its approvers, and the caller is not one of them.
    #[error("you are not one of this node's approvers")]
    NotApprover,
    /// The caller's credential or account is no longer valid.
    #[error("the credential is no longer valid")]
    Revoked,
    /// The pipeline is not the one that the request expects.
    #[error("pipeline {0} is no longer the expected one: read it again")]
    PipelineChanged(PipelineId),
    /// The agent is not the one that the request expects.
    #[error("agent {0} is no longer the expected one: read it again")]
    AgentChanged(AgentId),
    /// What the request was made for has been changed since it was read.
    #[error("the resource was changed concurrently: try again")]
    Outdated,
    /// The request is wrong, at these places of it.
    #[error("the request is invalid: {0}")]
    Invalid(Problems),
    /// It conflicts with what is stored.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The store cannot be reached or is too busy: whether it was done is unknown. Later it may work.
    #[error("the store is unavailable")]
    Unavailable(#[source] Cause),
    /// The store took too long: whether it was done is unknown. Later it may work.
    #[error("the store timed out")]
    TimedOut(#[source] Cause),
    /// Something went wrong that nobody expected, such as a stored value that makes no sense. A person has to look.
    #[error("the store, or what it holds, is broken")]
    Broken(#[source] Cause),
}

/// What stands against it. The texts are for the caller: what is wrong, then what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The pipeline starts no runs.
    #[error("the pipeline is disabled: enable it first")]
    PipelineDisabled,
    /// A pipeline is not deleted while runs of it have not ended.
    #[error("the pipeline has runs that have not ended: cancel them, or wait for them")]
    PipelineRunsActive,
    /// The project would have no owner.
    #[error("a project needs an owner: add another, or delete the project")]
    LastOwner,
    /// The project is the default project of an account.
    #[error("an account's default project cannot be deleted")]
    DefaultProject,
    /// Runs of the project have not ended.
    #[error("the project has runs that have not ended: cancel them, or wait for them")]
    RunsActive,
    /// The idempotency key came with another request before.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// The same request created a thing before, and it has been deleted since.
    #[error("this request created something before, and it has been deleted: use another idempotency key")]
    CreatedAndDeleted,
    /// A run that has not ended is not rerun, and the ends of its nodes are not decided.
    #[error("the run has not ended: wait for it, or cancel it")]
    RunNotEnded,
    /// A child run is not rerun by itself.
    #[error("this is a child run: rerun its parent, run {0}")]
    ChildRun(RunId),
    /// Every node of the run succeeded.
    #[error("no node of this run failed: rerun it from the start or from a node")]
    NothingFailed,
    /// The results that a rerun would keep are no longer stored.
    #[error("the journal of this run is no longer kept: rerun it from `start`")]
    JournalPruned,
    /// A run that has ended is not cancelled, and takes no decision.
    #[error("the run has ended already")]
    RunEnded,
    /// The node does not wait for an approval.
    #[error("node `{0}` is not waiting for an approval")]
    NotWaitingForApproval(NodeId),
    /// The question was answered before, or its call has ended.
    #[error("the question is no longer open: it was answered, or the call that asks has ended")]
    QuestionClosed,
    /// Nothing of the node is unknown that a person could decide.
    #[error(
        "node `{0}` has nothing of unknown end: only a node whose effect may have taken place is decided"
    )]
    EndKnown(NodeId),
    /// The node was decided before.
    #[error("node `{0}` already has a decision, and decisions are final")]
    AlreadyDecided(NodeId),
    /// The pipeline that a schedule starts is gone, or has no such version.
    #[error("the schedule's pipeline, or the version that it names, no longer exists: change the schedule")]
    NotStartable,
    /// What a schedule, a hook or a node would start the pipeline with does not fit its input schema.
    #[error("the input does not fit the pipeline's input schema: {0}")]
    InvalidInput(Problems),
    /// The pipeline that a hook starts is gone, or has no such version.
    #[error("the hook's pipeline, or the version that it names, no longer exists: change the hook")]
    HookTargetGone,
    /// The same request created a hook before, whose token cannot be shown again.
    #[error(
        "this request created hook {0} before, and its token cannot be shown again: use another idempotency key"
    )]
    HookCreatedBefore(HookId),
    /// Nothing is kept of a call that could be sent again.
    #[error("the body of this delivery is not kept, so it cannot be sent again")]
    NotRedeliverable,
    /// The project has as many secrets as it may.
    #[error("the project has {MAX_SECRETS} secrets, and may have no more: delete one first")]
    TooManySecrets,
    /// The values of the project's secrets are as large as they may be.
    #[error("the secrets of a project have at most {MAX_SECRETS_BYTES} bytes together: delete one first")]
    SecretsTooLarge,
    /// The project has a mounted server of this name.
    #[error("the project has an MCP server of this name: unmount it first, or take another name")]
    McpServerExists,
    /// The project has as many mounted servers as it may.
    #[error("the project has {MAX_MCP_SERVERS} MCP servers, and may have no more: unmount one first")]
    TooManyMcpServers,
    /// The accepted definitions of the project's mounted servers are as large as they may be.
    #[error(
        "the tools of a project's MCP servers have at most {MAX_MCP_PINS_BYTES} bytes together: unmount one first"
    )]
    McpToolsTooLarge,
    /// An allowance is for runs that wait for it.
    #[error("no run of this tree waits for its budget")]
    NoBudgetWait,
}

impl From<Denied> for ControlError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Invisible => Self::NotFound,
            Denied::Forbidden => Self::Forbidden,
        }
    }
}

impl ControlError {
    /// The same for the engine, which asked through one of its ports.
    pub(crate) fn into_store_error(self) -> StoreError {
        match self {
            Self::Unavailable(cause) => StoreError::Unavailable(cause),
            Self::TimedOut(cause) => StoreError::TimedOut(cause),
            other => StoreError::Fault(other.into()),
        }
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error.into()),
            StoreError::TimedOut(_) => Self::TimedOut(error.into()),
            other => Self::Broken(other.into()),
        }
    }
}

//! What a tool is, what it is given and how it fails.
//!
//! Owns the two traits that tools implement and their error. Never knows a single tool.

use async_trait::async_trait;
use gathering_domain::Problems;
use serde_json::Value;

use crate::outbound::OutboundError;
use crate::pool::BlockingWorkPanicked;
use crate::spec::ToolSpec;
use crate::workspace::{Workspace, WorkspaceError};
use gathering_domain::EffectClass;

/// Something that an agent or a pipeline can use.
#[async_trait]
pub trait Tool: Send + Sync {
    /// What it says of itself; the same each time.
    fn spec(&self) -> &ToolSpec;

    /// Does the thing. `params` have been checked against the schema.
    ///
    /// Cancel: must be safe to drop at any await, leaving nothing running that it started.
    ///
    /// # Errors
    /// [`ToolError`]; whether the call may have had an effect is for its class of effect to say.
    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError>;

    /// What repeating a call with these parameters does, where that depends on them.
    fn class_of(&self, _params: &Value) -> EffectClass {
        self.spec().class
    }
}

/// A tool that blocks its thread. A toolbox runs it on its bounded blocking pool.
pub trait BlockingTool: Send + Sync {
    /// What it says of itself; the same each time.
    fn spec(&self) -> &ToolSpec;

    /// Does the thing. `params` have been checked against the schema. A caller that leaves does not stop it.
    ///
    /// # Errors
    /// As [`Tool::call`].
    fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError>;
}

/// What a call may touch besides its parameters.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ToolContext {
    /// The files it may use, if any.
    pub workspace: Option<Workspace>,
    /// A name of this call that is the same on every attempt, which outgoing requests carry as `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

impl ToolContext {
    /// A context that allows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows the use of `workspace`.
    #[must_use]
    pub fn with_workspace(mut self, workspace: Workspace) -> Self {
        self.workspace = Some(workspace);
        self
    }

    /// Names the call.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The workspace.
    ///
    /// # Errors
    /// [`ToolError::NoWorkspace`] if the context has none.
    pub fn workspace(&self) -> Result<&Workspace, ToolError> {
        self.workspace.as_ref().ok_or(ToolError::NoWorkspace)
    }
}

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// No tool has this name.
    #[error("no tool is named `{name}`; there are: {known}")]
    UnknownTool {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The parameters do not fit; nothing was executed.
    #[error("the parameters do not fit the tool: {0}")]
    InvalidParameters(Problems),
    /// The tool needs files, and the call has none to give.
    #[error("the tool needs a workspace, and this call has none")]
    NoWorkspace,
    /// The workspace refused or failed.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The outgoing request was refused or failed.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The other side answered, and did not take the request.
    #[error("`{host}` answered with status {status}")]
    Status {
        /// Whom we asked.
        host: String,
        /// The HTTP status of the answer.
        status: u16,
    },
    /// The tool panicked.
    #[error("the tool ended abnormally")]
    Panicked(#[source] BlockingWorkPanicked),
    /// Another cause, which passes.
    #[error("{message}")]
    Temporary {
        /// What happened, for the caller.
        message: String,
    },
    /// Another cause, which stays.
    #[error("{message}")]
    Permanent {
        /// What happened, for the caller.
        message: String,
    },
}

impl ToolError {
    /// A short word for the cause that does not change between versions.
    pub fn kind(&self) -> &'static str {
        match self {
            ToolError::UnknownTool { .. } => "unknown_tool",
            ToolError::InvalidParameters(_) => "invalid_parameters",
            ToolError::NoWorkspace => "no_workspace",
            ToolError::Workspace(error) => error.kind(),
            ToolError::Outbound(error) => error.kind(),
            ToolError::Status { .. } => "http",
            ToolError::Panicked(_) => "panicked",
            ToolError::Temporary { .. } | ToolError::Permanent { .. } => "failed",
        }
    }

    /// Whether something may have come of the call all the same. Of a cause that says nothing about it, it may.
    pub const fn may_have_taken_place(&self) -> bool {
        match self {
            ToolError::UnknownTool { .. } | ToolError::InvalidParameters(_) | ToolError::NoWorkspace => false,
            ToolError::Outbound(error) => error.may_have_been_sent(),
            ToolError::Workspace(_)
            | ToolError::Status { .. }
            | ToolError::Panicked(_)
            | ToolError::Temporary { .. }
            | ToolError::Permanent { .. } => true,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            ToolError::UnknownTool { .. }
            | ToolError::InvalidParameters(_)
            | ToolError::NoWorkspace
            | ToolError::Panicked(_)
            | ToolError::Permanent { .. } => false,
            ToolError::Workspace(error) => error.is_retryable(),
            ToolError::Outbound(error) => error.is_retryable(),
            ToolError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            ToolError::Temporary { .. } => true,
        }
    }
}

//! The traits of tools, the context of a call, and its errors.
//!
//! Owns the two traits that tools implement and their error. Never knows a particular tool.

use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::{FailureKind, Problems};
use serde_json::Value;
use tokio::time::Instant;

use crate::mail::MailError;
use crate::notices::ToolNotices;
use crate::outbound::{OutboundError, is_refusal};
use crate::pool::BlockingWorkPanicked;
use crate::questions::ToolQuestions;
use crate::spec::ToolSpec;
use crate::workspace::{Workspace, WorkspaceError};
use gathering_domain::EffectClass;

/// A tool that an agent or a pipeline can use.
#[async_trait]
pub trait Tool: Send + Sync {
    /// The description of the tool, always the same.
    fn spec(&self) -> &ToolSpec;

    /// Calls the tool. `params` have been checked against the schema.
    ///
    /// Cancel: must be safe to drop at any await and must leave nothing running.
    ///
    /// # Errors
    /// [`ToolError`]. The effect class says whether the call may have had an effect.
    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError>;

    /// What is wrong with these parameters that the schema cannot say. It may see values that the schema refuses, and
    /// passes over them.
    fn check(&self, _params: &Value) -> Problems {
        Problems::new()
    }

    /// Whether a call may use the workspace. A caller that has to look it up need not do so for the others.
    fn uses_files(&self) -> bool {
        true
    }

    /// What repeating a call with these parameters may do, if that depends on them.
    fn class_of(&self, _params: &Value) -> EffectClass {
        self.spec().class
    }
}

/// A tool that blocks its thread. A toolbox runs it on its bounded blocking pool.
pub trait BlockingTool: Send + Sync {
    /// The description of the tool, always the same.
    fn spec(&self) -> &ToolSpec;

    /// Calls the tool. `params` have been checked against the schema. A caller that goes away does not stop the call.
    ///
    /// # Errors
    /// As [`Tool::call`].
    fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError>;
}

/// What a call may use besides its parameters.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ToolContext {
    /// The files that it may use, if any.
    pub workspace: Option<Workspace>,
    /// A key of this call, the same on every attempt. Outgoing requests carry it as `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// When the call ends at the latest, if it must.
    pub deadline: Option<Instant>,
    /// Who hears what the tool tells while it works, if anybody does.
    pub notices: Option<ToolNotices>,
    /// Who answers what the tool asks a person while it works, if anybody does.
    pub questions: Option<ToolQuestions>,
}

impl ToolContext {
    /// A context that allows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows the call to use `workspace`.
    #[must_use]
    pub fn with_workspace(mut self, workspace: Workspace) -> Self {
        self.workspace = Some(workspace);
        self
    }

    /// Sets the idempotency key of the call.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Ends the call at `deadline`, if it has not ended by then.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Has the tool tell what it does while it works.
    #[must_use]
    pub fn with_notices(mut self, notices: ToolNotices) -> Self {
        self.notices = Some(notices);
        self
    }

    /// Has the tool ask people what it wants to know.
    #[must_use]
    pub fn with_questions(mut self, questions: ToolQuestions) -> Self {
        self.questions = Some(questions);
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

/// Why a tool call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// No tool has this name.
    #[error("unknown tool `{name}`; known tools: {known}")]
    UnknownTool {
        /// The requested name.
        name: String,
        /// The known names.
        known: String,
    },
    /// The parameters are invalid; nothing was executed.
    #[error("invalid parameters: {0}")]
    InvalidParameters(Problems),
    /// The tool needs files, and the call has no workspace.
    #[error("the tool needs a workspace, and this call has none")]
    NoWorkspace,
    /// The workspace refused or failed.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The outgoing request was refused or failed.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The message could not be sent, or its delivery is unknown.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// The other system answered and refused the request.
    #[error("`{host}` answered with status {status}")]
    Status {
        /// The host that answered.
        host: String,
        /// The HTTP status of the answer.
        status: u16,
    },
    /// The operator has not set up what the call needs; nothing was executed.
    #[error("{message}")]
    NotConfigured {
        /// What is missing, and how to set it up.
        message: String,
    },
    /// The deadline of the call has passed. It may have had an effect, and a blocking tool may still be running.
    #[error("the tool `{name}` did not end in time")]
    TimedOut {
        /// The tool.
        name: String,
    },
    /// What carries out the call cannot be reached now; nothing was executed.
    #[error("{message}")]
    Unavailable {
        /// What cannot be reached, and why.
        message: String,
    },
    /// The tool panicked.
    #[error("the tool panicked")]
    Panicked(#[source] BlockingWorkPanicked),
    /// Another cause, which may pass.
    #[error("{message}")]
    Temporary {
        /// A description for the caller.
        message: String,
    },
    /// Another cause, which is permanent.
    #[error("{message}")]
    Permanent {
        /// A description for the caller.
        message: String,
    },
}

impl ToolError {
    /// A short name of the cause, which is the same in all versions.
    pub fn kind(&self) -> FailureKind {
        match self {
            ToolError::UnknownTool { .. } => FailureKind::UnknownTool,
            ToolError::InvalidParameters(_) => FailureKind::InvalidParameters,
            ToolError::NoWorkspace => FailureKind::NoWorkspace,
            ToolError::Workspace(error) => error.kind(),
            ToolError::Outbound(error) => error.kind(),
            ToolError::Mail(error) => error.kind(),
            ToolError::Status { .. } => FailureKind::Http,
            ToolError::NotConfigured { .. } => FailureKind::NotConfigured,
            ToolError::TimedOut { .. } => FailureKind::Unanswered,
            ToolError::Unavailable { .. } => FailureKind::Connection,
            ToolError::Panicked(_) => FailureKind::Panicked,
            ToolError::Temporary { .. } | ToolError::Permanent { .. } => FailureKind::Failed,
        }
    }

    /// How long the other system wants no further call, if it said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            ToolError::Outbound(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Whether the call may have had an effect nevertheless. If the cause does not tell, it may.
    pub const fn may_have_taken_place(&self) -> bool {
        match self {
            ToolError::UnknownTool { .. }
            | ToolError::InvalidParameters(_)
            | ToolError::NoWorkspace
            | ToolError::NotConfigured { .. }
            | ToolError::Unavailable { .. } => false,
            ToolError::Outbound(error) => error.may_have_been_sent(),
            ToolError::Mail(error) => error.may_have_been_delivered(),
            ToolError::Status { status, .. } => !is_refusal(*status),
            ToolError::Workspace(error) => error.may_have_taken_place(),
            ToolError::TimedOut { .. }
            | ToolError::Panicked(_)
            | ToolError::Temporary { .. }
            | ToolError::Permanent { .. } => true,
        }
    }

    /// Whether nobody knows whether the message of the call was delivered.
    pub const fn is_unknown_delivery(&self) -> bool {
        matches!(self, ToolError::Mail(error) if error.may_have_been_delivered())
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            ToolError::UnknownTool { .. }
            | ToolError::InvalidParameters(_)
            | ToolError::NoWorkspace
            | ToolError::NotConfigured { .. }
            | ToolError::Panicked(_)
            | ToolError::Permanent { .. } => false,
            ToolError::Workspace(error) => error.is_retryable(),
            ToolError::Outbound(error) => error.is_retryable(),
            ToolError::Mail(error) => error.is_retryable(),
            ToolError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            ToolError::Unavailable { .. } | ToolError::TimedOut { .. } | ToolError::Temporary { .. } => true,
        }
    }
}

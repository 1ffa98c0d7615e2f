//! The port to the files of a project.

use std::error::Error;

use async_trait::async_trait;
use gathering_dag_engine::NodeFailure;
use gathering_domain::{FailureKind, ProjectId, with_causes};
use gathering_tools::Workspace;

/// Where the files of each project are.
#[async_trait]
pub trait ProjectFiles: Send + Sync + 'static {
    /// Opens the workspace of a project.
    ///
    /// # Errors
    /// [`OpenFilesError`].
    async fn open(&self, project: ProjectId) -> Result<Workspace, OpenFilesError>;
}

/// Why a workspace did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenFilesError {
    /// It may open later.
    #[error(transparent)]
    Unavailable(Box<dyn Error + Send + Sync>),
    /// The project has no workspace that can be used.
    #[error(transparent)]
    NoWorkspace(Box<dyn Error + Send + Sync>),
}

impl From<OpenFilesError> for NodeFailure {
    fn from(error: OpenFilesError) -> Self {
        let message = with_causes(&error);
        match error {
            OpenFilesError::Unavailable(_) => NodeFailure::retryable(FailureKind::Unavailable, message),
            OpenFilesError::NoWorkspace(_) => NodeFailure::permanent(FailureKind::NoWorkspace, message),
        }
    }
}

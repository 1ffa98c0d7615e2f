//! Where the files of each project are, and the open handles to them.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use gathering_dag_engine::NodeFailure;
use gathering_domain::ProjectId;
use gathering_persistence::{DatabaseError, Pool, Projects};
use gathering_tools::{BlockingPool, Workspace, WorkspaceError, WorkspacePath};
use moka::sync::Cache;

use crate::nodes::ProjectFiles;

/// Open workspaces that are kept; each holds one directory handle.
const MAX_OPEN: u64 = 1000;

/// The workspaces of all projects. Cloning is cheap and shares the open ones.
#[derive(Clone)]
pub struct Workspaces {
    projects: Projects,
    root: PathBuf,
    /// The database, keys and the like: no workspace reaches into it, wherever it lies.
    data_dir: PathBuf,
    blocking: BlockingPool,
    open: Cache<ProjectId, Workspace>,
}

/// Why a workspace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenWorkspaceError {
    /// There is no such project.
    #[error("project {0} does not exist")]
    NoProject(ProjectId),
    /// Nobody can say where it is.
    #[error("the workspace of a project cannot be looked up")]
    Database(#[from] DatabaseError),
    /// It is not accessible.
    #[error("the workspace of project {project} cannot be opened")]
    Workspace {
        /// Whose.
        project: ProjectId,
        /// Why.
        #[source]
        source: WorkspaceError,
    },
}

impl Workspaces {
    /// Workspaces below `root`, but for projects of the local command line, which have their own place.
    pub fn new(pool: Pool, root: PathBuf, data_dir: PathBuf, blocking: BlockingPool) -> Self {
        Self { projects: Projects::new(pool), root, data_dir, blocking, open: Cache::new(MAX_OPEN) }
    }

    /// Opens the workspace of a project, making its directory where it is missing.
    ///
    /// # Errors
    /// [`OpenWorkspaceError`]; nothing was made.
    pub async fn open(&self, project: ProjectId) -> Result<Workspace, OpenWorkspaceError> {
        if let Some(open) = self.open.get(&project) {
            return Ok(open);
        }
        let found = self.projects.find(project).await?.ok_or(OpenWorkspaceError::NoProject(project))?;
        let root = found.workspace_path.map_or_else(|| self.root.join(project.to_string()), PathBuf::from);
        let closed = closed_part(&root, &self.data_dir).await;
        let opened = Workspace::open(root, self.blocking.clone()).await;
        let opened = opened.map_err(|source| OpenWorkspaceError::Workspace { project, source })?;
        let opened = match closed {
            Some(closed) => opened.without(closed),
            None => opened,
        };
        self.open.insert(project, opened.clone());
        Ok(opened)
    }
}

/// The data directory as a path in the workspace, if it lies there: the command line keeps it in the current directory.
async fn closed_part(root: &Path, data_dir: &Path) -> Option<WorkspacePath> {
    let (root, data_dir) =
        (tokio::fs::canonicalize(root).await.ok()?, tokio::fs::canonicalize(data_dir).await.ok()?);
    data_dir.strip_prefix(&root).ok()?.to_str()?.parse().ok()
}

#[async_trait]
impl ProjectFiles for Workspaces {
    async fn open(&self, project: ProjectId) -> Result<Workspace, NodeFailure> {
        Workspaces::open(self, project).await.map_err(|error| {
            let message = crate::nodes::with_causes(&error);
            match error {
                OpenWorkspaceError::Database(_) => NodeFailure::retryable("unavailable", message),
                OpenWorkspaceError::NoProject(_) | OpenWorkspaceError::Workspace { .. } => {
                    NodeFailure::permanent("no_workspace", message)
                }
            }
        })
    }
}

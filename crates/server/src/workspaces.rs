//! Where the files of each project are, and the open handles to them.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use gathering_cache::BoundedCache;
use gathering_control::{ControlError, FilesRoot, ProjectControl};
use gathering_domain::ProjectId;
use gathering_nodes::{OpenFilesError, ProjectFiles};
use gathering_tools::{BlockingPool, DirectoryCache, Workspace, WorkspaceError, WorkspacePath};

use crate::config::Config;

/// The workspaces of all projects. Cloning is cheap and shares the open ones.
#[derive(Clone)]
pub struct Workspaces {
    projects: ProjectControl,
    root: PathBuf,
    /// The database, keys and the like: no workspace reaches into it, wherever it lies.
    data_dir: PathBuf,
    blocking: BlockingPool,
    directories: DirectoryCache,
    open: BoundedCache<ProjectId, Workspace>,
}

/// Why a workspace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenWorkspaceError {
    /// The project does not exist.
    #[error("project {0} does not exist")]
    NoProject(ProjectId),
    /// Its directory cannot be determined.
    #[error("the workspace of a project cannot be looked up")]
    Lookup(#[from] ControlError),
    /// It is not accessible.
    #[error("the workspace of project {project} cannot be opened")]
    Workspace {
        /// The project of the workspace.
        project: ProjectId,
        /// Why.
        #[source]
        source: WorkspaceError,
    },
}

/// Why some or all files of a deleted project could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("the files of the deleted project {project} cannot be removed")]
pub struct RemoveWorkspaceError {
    project: ProjectId,
    #[source]
    source: std::io::Error,
}

impl Workspaces {
    /// Workspaces below the configured root. Projects of the local command line have their own directories.
    pub fn new(projects: ProjectControl, config: &Config, blocking: BlockingPool) -> Self {
        Self {
            projects,
            root: config.workspace_root.clone(),
            data_dir: config.data_dir.clone(),
            blocking,
            directories: DirectoryCache::new(config.cache_directories_entries),
            open: BoundedCache::new("workspaces", config.cache_workspaces_entries),
        }
    }

    /// Opens the workspace of a project; creates its directory if it is missing. Every call checks that the project
    /// exists: this or another instance may have deleted it.
    ///
    /// # Errors
    /// [`OpenWorkspaceError`]; nothing was created.
    pub async fn open(&self, project: ProjectId) -> Result<Workspace, OpenWorkspaceError> {
        let Some(root) = self.projects.find_files_root(project).await? else {
            self.open.remove(&project);
            return Err(OpenWorkspaceError::NoProject(project));
        };
        if let Some(open) = self.open.get(&project) {
            return Ok(open);
        }
        let root = match root {
            FilesRoot::Operator(directory) => PathBuf::from(directory),
            FilesRoot::Server => {
                // A new directory is as private as its content.
                let made = Workspace::open(&self.root, self.blocking.clone()).await;
                made.map_err(|source| OpenWorkspaceError::Workspace { project, source })?;
                self.root.join(project.to_string())
            }
        };
        let closed = closed_part(&root, &self.data_dir).await;
        let opened = Workspace::open(root, self.blocking.clone()).await;
        let opened = opened.map_err(|source| OpenWorkspaceError::Workspace { project, source })?;
        let opened = opened.remembering(self.directories.clone());
        let opened = match closed {
            Some(closed) => opened.without(closed),
            None => opened,
        };
        self.open.insert(project, opened.clone());
        Ok(opened)
    }

    /// Removes the files of a project that has been deleted. A directory outside of the server's own root, as of
    /// projects of the local command line, belongs to the user and stays. Repeats: safe. Cancel: it goes on.
    ///
    /// # Errors
    /// [`RemoveWorkspaceError`]; a part may be removed.
    pub async fn remove(&self, project: ProjectId) -> Result<(), RemoveWorkspaceError> {
        self.open.remove(&project);
        let root = self.root.join(project.to_string());
        let removed = self.blocking.run(move || std::fs::remove_dir_all(root)).await;
        match removed.map_err(std::io::Error::other).flatten() {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RemoveWorkspaceError { project, source })
            }
            _ => Ok(()),
        }
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
    async fn open(&self, project: ProjectId) -> Result<Workspace, OpenFilesError> {
        Workspaces::open(self, project).await.map_err(|error| match error {
            OpenWorkspaceError::Lookup(_) => OpenFilesError::Unavailable(error.into()),
            OpenWorkspaceError::NoProject(_) | OpenWorkspaceError::Workspace { .. } => {
                OpenFilesError::NoWorkspace(error.into())
            }
        })
    }
}

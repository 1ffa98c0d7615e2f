//! Where the files of each project are, and the open handles to them.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_cache::BoundedCache;
use gathering_domain::ProjectId;
use gathering_nodes::{OpenFilesError, ProjectFiles};
use gathering_tools::{BlockingPool, DirectoryCache, Workspace, WorkspaceError, WorkspacePath};

use crate::access::right::Right;
use crate::{ControlError, FilesRoot, ProjectControl};

/// Where workspaces are, and how many of their handles are kept.
#[derive(Debug, Clone)]
pub struct WorkspaceSettings {
    /// Below it each project has a directory of its own, unless the operator named another one.
    pub root: PathBuf,
    /// The database, keys and the like: no workspace reaches into it, wherever it lies.
    pub data_dir: PathBuf,
    /// How many lists of directories are cached.
    pub n_cached_directories: u64,
    /// How many open workspaces are cached; each holds one directory handle.
    pub n_cached_workspaces: u64,
}

/// The workspaces of all projects. Cloning is cheap and shares the open ones.
#[derive(Clone)]
pub struct Workspaces {
    projects: ProjectControl,
    root: PathBuf,
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
    /// The project is absent to the caller, or its directory cannot be determined.
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
    /// The workspaces of these projects.
    pub fn new(projects: ProjectControl, settings: WorkspaceSettings, blocking: BlockingPool) -> Self {
        Self {
            projects,
            root: settings.root,
            data_dir: settings.data_dir,
            blocking,
            directories: DirectoryCache::new(settings.n_cached_directories),
            open: BoundedCache::new("workspaces", settings.n_cached_workspaces),
        }
    }

    /// Opens the workspace of a project, if the caller may do `R` in the project.
    ///
    /// # Errors
    /// As [`ProjectControl::find`] and [`Workspaces::open`].
    pub async fn open_as<R: Right>(
        &self,
        caller: &Caller,
        project: ProjectId,
    ) -> Result<Workspace, OpenWorkspaceError> {
        let project = self.projects.find::<R>(caller, project).await?;
        self.open(*project.thing()).await
    }

    /// Opens the workspace of a project for the server itself; creates its directory if it is missing. Every call checks
    /// that the project exists: this or another instance may have deleted it.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gathering_auth::Role;
    use tempfile::TempDir;

    use super::*;
    use crate::testing::{ControlFixture as _, MemoryControl};
    use crate::{Operator, right};

    fn workspaces(store: &MemoryControl, directory: &Path) -> Workspaces {
        let settings = WorkspaceSettings {
            root: directory.join("data/workspaces"),
            data_dir: directory.join("data"),
            n_cached_directories: 10,
            n_cached_workspaces: 10,
        };
        let projects = ProjectControl::new(Arc::new(store.clone()));
        Workspaces::new(projects, settings, BlockingPool::new(2))
    }

    fn path(text: &str) -> WorkspacePath {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_files_of_a_project_end_with_it_and_an_open_workspace_does_not_outlive_it() {
        let (store, directory) = (MemoryControl::new(), TempDir::new().unwrap());
        let workspaces = workspaces(&store, directory.path());
        let owner = store.account(Role::Member).await;
        let project = store.project(&owner).await;
        let workspace = workspaces.open_as::<right::Write>(&owner, project).await.unwrap();
        workspace.write(&path("a/b.txt"), "text").await.unwrap();
        let files = directory.path().join("data/workspaces").join(project.to_string());
        assert!(files.join("a/b.txt").is_file());

        workspaces.projects.delete(&owner, project).await.unwrap();
        let gone = workspaces.open(project).await;
        assert!(matches!(gone, Err(OpenWorkspaceError::NoProject(id)) if id == project), "{gone:?}");
        for _ in 0..2 {
            workspaces.remove(project).await.unwrap();
            assert!(!files.exists());
        }
    }

    #[tokio::test]
    async fn a_stranger_opens_no_workspace() {
        let (store, directory) = (MemoryControl::new(), TempDir::new().unwrap());
        let workspaces = workspaces(&store, directory.path());
        let owner = store.account(Role::Member).await;
        let project = store.project(&owner).await;
        let stranger = store.account(Role::Member).await;
        let refused = workspaces.open_as::<right::Read>(&stranger, project).await;
        assert!(matches!(refused, Err(OpenWorkspaceError::Lookup(ControlError::NotFound))), "{refused:?}");
        assert!(!directory.path().join("data/workspaces").exists());
    }

    #[tokio::test]
    async fn a_directory_of_the_operator_stays_and_the_data_directory_in_it_is_closed() {
        let (store, directory) = (MemoryControl::new(), TempDir::new().unwrap());
        let workspaces = workspaces(&store, directory.path());
        std::fs::create_dir(directory.path().join("data")).unwrap();
        std::fs::write(directory.path().join("data/token.key"), "secret").unwrap();
        std::fs::write(directory.path().join("mine.txt"), "text").unwrap();
        let root = directory.path().to_str().unwrap();
        let project = workspaces.projects.ensure_local(Operator, root).await.unwrap().thing().id;

        let workspace = workspaces.open(project).await.unwrap();
        workspace.read(&path("mine.txt"), 100).await.unwrap();
        assert!(workspace.read(&path("data/token.key"), 100).await.is_err());
        workspaces.remove(project).await.unwrap();
        assert!(directory.path().join("mine.txt").is_file());
    }
}

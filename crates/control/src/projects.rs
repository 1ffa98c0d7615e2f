//! Projects: what owns pipelines, runs and files, and what membership is of.

mod change;
mod create;
mod delete;
mod members;

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_domain::{Pointer, Problems, ProjectId};

use crate::access::right::{self, Right};
use crate::access::{Found, OfProject, Operator, Scoped, visible_to};
use crate::{ControlError, ControlStore};

pub use change::ChangeProject;
pub use create::{CreateProject, PlannedProject};
pub use delete::LockedProject;
pub use members::{LockedMember, Member, MemberChange};

/// A project as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was created, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, in UTC.
    pub updated_at: DateTime<Utc>,
}

/// A project of the local command line: its files are a directory of this machine, and it belongs to the operator.
///
/// It has no members and is hidden from every account, admins too: only the operator decides which directory of the
/// machine is a project's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalProject {
    /// Its id.
    pub id: ProjectId,
    /// The last part of its path.
    pub name: String,
    /// Where its files are: an absolute path.
    pub workspace_path: String,
}

/// Where the files of a project are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesRoot {
    /// In a directory of the project below the server's own root.
    Server,
    /// In a directory of the operator, with this absolute path.
    Operator(String),
}

impl OfProject for Project {
    fn project(&self) -> ProjectId {
        self.id
    }
}

impl OfProject for LocalProject {
    fn project(&self) -> ProjectId {
        self.id
    }
}

/// What may be done with projects. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct ProjectControl {
    store: Arc<dyn ControlStore>,
}

impl ProjectControl {
    /// The projects of this store.
    pub fn new(store: Arc<dyn ControlStore>) -> Self {
        Self { store }
    }

    /// The project, if the caller may do `R` in it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn find<R: Right>(
        &self,
        caller: &Caller,
        project: ProjectId,
    ) -> Result<Scoped<ProjectId, R>, ControlError> {
        Scoped::check(caller, self.store.find_project(caller, project).await?)
    }

    /// The project in which a request creates something: the one that it names, or else the caller's default project.
    ///
    /// # Errors
    /// As [`ProjectControl::find`]; [`ControlError::Invalid`] if none is named and the caller has no default project.
    pub async fn find_or_default<R: Right>(
        &self,
        caller: &Caller,
        named: Option<ProjectId>,
    ) -> Result<Scoped<ProjectId, R>, ControlError> {
        let project = match named {
            Some(project) => project,
            None => self.store.find_default_project(caller).await?.ok_or_else(|| {
                let message = "is missing, and you have no default project";
                ControlError::Invalid(Problems::one(Pointer::root().join("project_id"), message))
            })?,
        };
        self.find(caller, project).await
    }

    /// The project as it stands.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn load(
        &self,
        caller: &Caller,
        project: ProjectId,
    ) -> Result<Scoped<Project, right::Read>, ControlError> {
        Scoped::check(caller, self.store.find_whole_project(caller, project).await?)
    }

    /// At most `limit` projects that the caller may see, the newest first: those that they are a member of; to an admin
    /// all. `before` is the last one of the previous page.
    ///
    /// # Errors
    /// [`ControlError::Forbidden`] for an API key without the scope to read, or the store's.
    pub async fn list(
        &self,
        caller: &Caller,
        before: Option<ProjectId>,
        limit: usize,
    ) -> Result<Vec<Found<Project>>, ControlError> {
        let of = visible_to(caller)?;
        self.store.list_projects(caller, of, before, limit).await
    }

    /// Where the files of a project are; `None` if it does not exist. For the server itself: it checks no access.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_files_root(&self, project: ProjectId) -> Result<Option<FilesRoot>, ControlError> {
        self.store.find_files_root(project).await
    }

    /// The operator's project for the files below `workspace_path` (absolute), created if it is new. Repeats: safe; of
    /// two at once both get the same.
    ///
    /// # Errors
    /// The store's.
    pub async fn ensure_local(
        &self,
        operator: Operator,
        workspace_path: &str,
    ) -> Result<Scoped<LocalProject, right::Run>, ControlError> {
        let name = Path::new(workspace_path).file_name().and_then(|name| name.to_str());
        let new = LocalProject {
            id: ProjectId::new(),
            name: name.unwrap_or("workspace").to_owned(),
            workspace_path: workspace_path.to_owned(),
        };
        let project = self.store.ensure_local_project(operator, new).await?;
        Ok(Scoped::of_operator(operator, project))
    }
}

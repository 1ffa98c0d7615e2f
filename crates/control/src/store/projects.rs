//! What is kept of projects and their members.

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_domain::{ProjectId, UserId};

use crate::ControlError;
use crate::access::{Found, Operator, Scoped, right};
use crate::idempotency::Creation;
use crate::projects::{
    ChangeProject, FilesRoot, LocalProject, Member, MemberChange, PlannedProject, Project,
};

/// Keeps projects and their members. What [`ControlStore`](crate::ControlStore) says of every method holds here.
#[async_trait]
pub trait ProjectStore: Send + Sync + 'static {
    /// The project, and the caller's role in it; also if they are not a member.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_project(
        &self,
        by: &Caller,
        project: ProjectId,
    ) -> Result<Option<Found<ProjectId>>, ControlError>;

    /// The caller's default project, where a request that names no project creates things.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_default_project(&self, by: &Caller) -> Result<Option<ProjectId>, ControlError>;

    /// As [`ProjectStore::find_project`], with everything of the project.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_whole_project(
        &self,
        by: &Caller,
        project: ProjectId,
    ) -> Result<Option<Found<Project>>, ControlError>;

    /// At most `limit` projects of accounts, the newest first, each with the caller's role in it: those that the account
    /// `of` is a member of, or all. `before` is the last one of the previous page.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_projects(
        &self,
        by: &Caller,
        of: Option<UserId>,
        before: Option<ProjectId>,
        limit: usize,
    ) -> Result<Vec<Found<Project>>, ControlError>;

    /// Where the files of a project are, a local one too; `None` if it does not exist or was deleted.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_files_root(&self, project: ProjectId) -> Result<Option<FilesRoot>, ControlError>;

    /// Creates a project with the caller as its owner, and writes its event.
    ///
    /// Repeats: with `project.once`, the account's idempotency key creates one project, for at least 24 hours. Of
    /// several such requests at once, one creates it.
    ///
    /// # Errors
    /// [`ControlError::Revoked`] if the caller's account does not exist; nothing was created.
    async fn create_project(
        &self,
        by: &Caller,
        project: &PlannedProject,
    ) -> Result<Creation<Found<Project>>, ControlError>;

    /// Changes what is given, and answers with the project as it stands then.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the project is gone.
    async fn change_project(
        &self,
        project: &Scoped<ProjectId, right::Manage>,
        change: &ChangeProject,
    ) -> Result<Project, ControlError>;

    /// Deletes a project. Locks it first, so that no run of it is accepted meanwhile, then asks
    /// [`LockedProject::check_deletion`](crate::LockedProject::check_deletion), and writes its event.
    ///
    /// From then on nobody finds the project, and no run of it starts. What belongs to it may leave later.
    ///
    /// # Errors
    /// As `check_deletion` answers; [`ControlError::NotFound`] if the project is gone. Nothing was changed.
    async fn delete_project(&self, project: &Scoped<ProjectId, right::Manage>) -> Result<(), ControlError>;

    /// At most `limit` members of a project, ordered by the ids of their accounts. `after` is the last one of the
    /// previous page.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_members(
        &self,
        project: ProjectId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Member>, ControlError>;

    /// Changes a membership. Locks the project first, so that changes of its members follow each other, then asks
    /// [`MemberChange::check`], and writes the change with its event, or nothing.
    ///
    /// # Errors
    /// As `check` answers; [`ControlError::NotFound`] if the project or the account is gone. Nothing was changed.
    async fn change_member(&self, by: &Caller, change: &MemberChange) -> Result<(), ControlError>;

    /// The local project with this path; `new` if there is none yet. Repeats: safe; of two at once both get the same.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn ensure_local_project(
        &self,
        by: Operator,
        new: LocalProject,
    ) -> Result<LocalProject, ControlError>;
}

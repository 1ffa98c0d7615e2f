//! What is kept of projects and their members.

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_domain::ProjectId;

use crate::ControlError;
use crate::access::{Found, Operator};
use crate::projects::LocalProject;

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

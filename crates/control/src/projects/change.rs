//! Changing a project's name and description.

use gathering_auth::Caller;
use gathering_domain::ProjectId;

use super::{Project, ProjectControl};
use crate::ControlError;
use crate::access::{Scoped, right};

/// What to change of a project. Absent fields stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeProject {
    /// The new name.
    pub name: Option<String>,
    /// The new description.
    pub description: Option<String>,
}

impl ProjectControl {
    /// Changes a project, and answers with the project as it stands then.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn change(
        &self,
        caller: &Caller,
        project: ProjectId,
        change: &ChangeProject,
    ) -> Result<Scoped<Project, right::Manage>, ControlError> {
        let scoped = self.find::<right::Manage>(caller, project).await?;
        let changed = self.store.change_project(&scoped, change).await?;
        Ok(scoped.with(changed))
    }
}

//! Deleting projects.

use gathering_auth::{AuditEvent, AuditKind, Caller};
use gathering_domain::ProjectId;
use serde_json::json;

use super::ProjectControl;
use crate::access::{CurrentAccess, Scoped, right};
use crate::{Conflict, ControlError};

/// A project as a store reads it to delete it, while it holds the lock of the project: no run is accepted meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedProject {
    /// What the caller is now.
    pub caller: CurrentAccess,
    /// Whether it is the default project of an account.
    pub is_default: bool,
    /// Whether a run of it has not ended.
    pub has_active_runs: bool,
}

impl LockedProject {
    /// Whether the project may be deleted now, and the event that the store records with the deletion.
    ///
    /// # Errors
    /// As [`Scoped::check_again`]; [`Conflict::DefaultProject`] or [`Conflict::RunsActive`].
    pub fn check_deletion(
        &self,
        project: &Scoped<ProjectId, right::Manage>,
    ) -> Result<AuditEvent, ControlError> {
        project.check_again(&self.caller)?;
        if self.is_default {
            return Err(Conflict::DefaultProject.into());
        }
        if self.has_active_runs {
            return Err(Conflict::RunsActive.into());
        }
        let detail = json!({ "project": project.thing(), "by": project.user() });
        Ok(AuditEvent::new(AuditKind::ProjectDeleted, project.user(), project.origin()).with_detail(detail))
    }
}

impl ProjectControl {
    /// Deletes a project with everything in it but its files. The event is recorded.
    ///
    /// When this returns, the project is absent to everybody and no run of it starts. The store removes its rows
    /// afterwards.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Forbidden`] or [`ControlError::Revoked`];
    /// [`Conflict::DefaultProject`] or [`Conflict::RunsActive`]; nothing was deleted. After
    /// [`ControlError::Unavailable`] it is unknown whether the project is deleted.
    pub async fn delete(&self, caller: &Caller, project: ProjectId) -> Result<(), ControlError> {
        let scoped = self.find::<right::Manage>(caller, project).await?;
        self.store.delete_project(&scoped).await?;
        tracing::info!(project.id = %project, "project {project} deleted");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use gathering_auth::{Account, ProjectRole, Role};

    use super::*;
    use crate::access::Found;
    use crate::testing::{account_of, member};

    fn scoped(caller: &Caller) -> Scoped<ProjectId, right::Manage> {
        let found = Found { thing: ProjectId::new(), membership: Some(ProjectRole::Owner) };
        Scoped::check(caller, Some(found)).unwrap()
    }

    /// A project that its owner may delete.
    fn deletable(owner: &Caller) -> LockedProject {
        let account = Some(account_of(owner, Role::Member));
        let caller = CurrentAccess { account, membership: Some(ProjectRole::Owner) };
        LockedProject { caller, is_default: false, has_active_runs: false }
    }

    #[test]
    fn an_owner_deletes_a_project_unless_it_is_a_default_one_or_has_active_runs() {
        let owner = member();
        let (project, locked) = (scoped(&owner), deletable(&owner));
        let event = locked.check_deletion(&project).unwrap();
        assert_eq!((event.kind, event.user), (AuditKind::ProjectDeleted, Some(owner.user)));
        assert_eq!(event.detail, json!({ "project": project.thing(), "by": owner.user }));
        let default = LockedProject { is_default: true, ..locked.clone() }.check_deletion(&project);
        assert!(matches!(default, Err(ControlError::Conflict(Conflict::DefaultProject))), "{default:?}");
        let active = LockedProject { has_active_runs: true, ..locked }.check_deletion(&project);
        assert!(matches!(active, Err(ControlError::Conflict(Conflict::RunsActive))), "{active:?}");
    }

    #[test]
    fn who_lost_the_right_learns_nothing_of_the_project() {
        let owner = member();
        let (project, locked) = (scoped(&owner), deletable(&owner));
        let blocked = |caller| LockedProject { caller, is_default: true, has_active_runs: true };
        let editor = CurrentAccess { membership: Some(ProjectRole::Editor), ..locked.caller.clone() };
        let refused = blocked(editor).check_deletion(&project);
        assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
        let account = Some(Account { is_active: false, ..account_of(&owner, Role::Member) });
        let refused = blocked(CurrentAccess { account, ..locked.caller }).check_deletion(&project);
        assert!(matches!(refused, Err(ControlError::Revoked)), "{refused:?}");
    }
}

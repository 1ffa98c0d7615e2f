//! The members of a project: listed, added, given another role, removed. A project always keeps an owner.

use chrono::{DateTime, Utc};
use gathering_auth::{Action, AuditEvent, AuditKind, Caller, ProjectRole};
use gathering_domain::{Email, ProjectId, UserId};
use serde_json::json;

use super::ProjectControl;
use crate::access::{CurrentAccess, authorize_credential, right};
use crate::{Conflict, ControlError};

/// A member of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The account.
    pub user: UserId,
    /// Its e-mail.
    pub email: Email,
    /// Its display name.
    pub name: String,
    /// The role in the project.
    pub role: ProjectRole,
    /// When the membership began, in UTC.
    pub created_at: DateTime<Utc>,
}

/// A change of one membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// The project.
    pub project: ProjectId,
    /// The account.
    pub user: UserId,
    /// The role from now on; `None` ends the membership.
    pub role: Option<ProjectRole>,
}

/// A membership as a store reads it to change it, while it holds the lock of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedMember {
    /// What the caller is now.
    pub caller: CurrentAccess,
    /// The role before the change; `None` if the account is not a member.
    pub role: Option<ProjectRole>,
    /// Whether another account owns the project, too.
    pub has_other_owner: bool,
}

impl MemberChange {
    /// Whether the caller may make the change now. The store writes it together with this event; for `None` it writes
    /// nothing, as the member has the role already.
    ///
    /// # Errors
    /// [`ControlError::Revoked`], [`ControlError::NotFound`] or [`ControlError::Forbidden`] for a caller who may not
    /// change it, or not any more; [`ControlError::NotFound`] if there is no membership to end; [`Conflict::LastOwner`].
    pub fn check(&self, by: &Caller, now: &LockedMember) -> Result<Option<AuditEvent>, ControlError> {
        now.caller.check(by, self.required(by))?;
        let (kind, role) = match (now.role, self.role) {
            (None, None) => return Err(ControlError::NotFound),
            (Some(before), Some(after)) if before == after => return Ok(None),
            (Some(ProjectRole::Owner), _) if !now.has_other_owner => return Err(Conflict::LastOwner.into()),
            (None, Some(role)) => (AuditKind::MemberAdded, role),
            (Some(_), Some(role)) => (AuditKind::MemberRoleChanged, role),
            (Some(role), None) => (AuditKind::MemberRemoved, role),
        };
        let detail = json!({ "project": self.project, "role": role.as_str(), "by": by.user });
        Ok(Some(AuditEvent::new(kind, Some(self.user), by.origin).with_detail(detail)))
    }

    /// What the caller must be allowed: every member may leave.
    fn required(&self, by: &Caller) -> Action {
        if self.role.is_none() && self.user == by.user { Action::Read } else { Action::Manage }
    }
}

impl ProjectControl {
    /// At most `limit` members with their accounts, in the order in which the accounts were created. `after` is the last
    /// one of the previous page.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn list_members(
        &self,
        caller: &Caller,
        project: ProjectId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Member>, ControlError> {
        let scoped = self.find::<right::Read>(caller, project).await?;
        self.store.list_members(*scoped.thing(), after, limit).await
    }

    /// Makes the account a member with this role, or gives the member this role. Repeats: safe. The event is recorded.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the project or the account is absent; [`ControlError::Forbidden`] or
    /// [`ControlError::Revoked`] for a caller who may not do it, or not any more; [`Conflict::LastOwner`]. Nothing was
    /// changed.
    pub async fn put_member(
        &self,
        caller: &Caller,
        project: ProjectId,
        user: UserId,
        role: ProjectRole,
    ) -> Result<(), ControlError> {
        self.find::<right::Manage>(caller, project).await?;
        self.store.change_member(caller, &MemberChange { project, user, role: Some(role) }).await
    }

    /// Ends a membership. An owner ends every one; a member ends their own. The event is recorded.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if there is no such project or membership; [`ControlError::Forbidden`] or
    /// [`ControlError::Revoked`] for a caller who may not do it, or not any more; [`Conflict::LastOwner`]. Nothing was
    /// changed.
    pub async fn remove_member(
        &self,
        caller: &Caller,
        project: ProjectId,
        user: UserId,
    ) -> Result<(), ControlError> {
        if user == caller.user {
            self.find::<right::Read>(caller, project).await?;
            // No role is needed to leave, but an API key that may only read ends nothing.
            authorize_credential(caller, Action::Manage)?;
        } else {
            self.find::<right::Manage>(caller, project).await?;
        }
        self.store.change_member(caller, &MemberChange { project, user, role: None }).await
    }
}

#[cfg(test)]
mod tests {
    use gathering_auth::{Account, Role};

    use super::*;
    use crate::testing::{account_of, member, session_caller};

    /// What becomes of a change by a caller with this role, of a membership with this role.
    fn change(
        by: &Caller,
        membership: Option<ProjectRole>,
        change: (UserId, Option<ProjectRole>),
        now: (Option<ProjectRole>, bool),
    ) -> Result<Option<AuditEvent>, ControlError> {
        let caller = CurrentAccess { account: Some(account_of(by, by.role)), membership };
        let now = LockedMember { caller, role: now.0, has_other_owner: now.1 };
        MemberChange { project: ProjectId::new(), user: change.0, role: change.1 }.check(by, &now)
    }

    fn kind(changed: Result<Option<AuditEvent>, ControlError>) -> Option<AuditKind> {
        changed.unwrap().map(|event| event.kind)
    }

    #[test]
    fn an_owner_changes_every_membership_and_the_event_says_what_changed() {
        let (owner, other) = (member(), UserId::new());
        let by_owner =
            |role, before| kind(change(&owner, Some(ProjectRole::Owner), (other, role), (before, true)));
        for role in ProjectRole::ALL {
            assert_eq!(by_owner(Some(role), None), Some(AuditKind::MemberAdded));
            assert_eq!(by_owner(None, Some(role)), Some(AuditKind::MemberRemoved));
            for before in ProjectRole::ALL {
                let expected = (before != role).then_some(AuditKind::MemberRoleChanged);
                assert_eq!(by_owner(Some(role), Some(before)), expected, "{before} to {role}");
            }
        }
        let absent = change(&owner, Some(ProjectRole::Owner), (other, None), (None, true));
        assert!(matches!(absent, Err(ControlError::NotFound)), "{absent:?}");
    }

    #[test]
    fn the_last_owner_stays_owner_whoever_changes_that() {
        let (owner, admin) = (member(), session_caller(UserId::new(), Role::Admin));
        for (by, membership) in [(&owner, Some(ProjectRole::Owner)), (&admin, None)] {
            for role in [None, Some(ProjectRole::Viewer), Some(ProjectRole::Editor)] {
                let changed = |has_other| {
                    change(by, membership, (owner.user, role), (Some(ProjectRole::Owner), has_other))
                };
                let refused = changed(false);
                assert!(matches!(refused, Err(ControlError::Conflict(Conflict::LastOwner))), "{refused:?}");
                assert!(changed(true).is_ok());
            }
            let same = (owner.user, Some(ProjectRole::Owner));
            assert_eq!(kind(change(by, membership, same, (Some(ProjectRole::Owner), false))), None);
        }
    }

    #[test]
    fn a_member_without_the_right_may_only_leave() {
        let (caller, other) = (member(), UserId::new());
        for role in [ProjectRole::Viewer, ProjectRole::Editor] {
            let left = change(&caller, Some(role), (caller.user, None), (Some(role), true));
            assert_eq!(kind(left), Some(AuditKind::MemberRemoved));
            for attempt in [(other, None), (other, Some(role)), (caller.user, Some(ProjectRole::Owner))] {
                let refused = change(&caller, Some(role), attempt, (Some(role), true));
                assert!(matches!(refused, Err(ControlError::Forbidden)), "{attempt:?}: {refused:?}");
            }
        }
        let stranger = change(&caller, None, (caller.user, None), (None, true));
        assert!(matches!(stranger, Err(ControlError::NotFound)), "{stranger:?}");
    }

    #[test]
    fn a_disabled_account_changes_nothing() {
        let by = member();
        let account = Some(Account { is_active: false, ..account_of(&by, Role::Member) });
        let caller = CurrentAccess { account, membership: Some(ProjectRole::Owner) };
        let now = LockedMember { caller, role: Some(ProjectRole::Owner), has_other_owner: true };
        let leave = MemberChange { project: ProjectId::new(), user: by.user, role: None };
        let refused = leave.check(&by, &now);
        assert!(matches!(refused, Err(ControlError::Revoked)), "{refused:?}");
    }
}

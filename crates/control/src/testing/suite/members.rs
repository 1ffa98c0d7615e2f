//! The members of projects, and what is recorded of projects and members.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use gathering_auth::{AuditEvent, AuditKind, Caller, Origin, ProjectRole, Role, Scope};
use gathering_domain::{ProjectId, RequestId, UserId};
use serde_json::{Value, json};

use super::conflict;
use super::projects::create;
use crate::testing::{ControlFixture, with_scopes};
use crate::{ChangeProject, Conflict, ControlError, Member, ProjectControl, right};

/// An owner with a project.
struct Shared {
    projects: ProjectControl,
    owner: Caller,
    project: ProjectId,
}

impl Shared {
    async fn new<F: ControlFixture>(fixture: &F) -> Self {
        let owner = fixture.account(Role::Member).await;
        let project = fixture.project(&owner).await;
        Self { projects: ProjectControl::new(fixture.store()), owner, project }
    }

    async fn put(&self, by: &Caller, user: UserId, role: ProjectRole) -> Result<(), ControlError> {
        self.projects.put_member(by, self.project, user, role).await
    }

    async fn remove(&self, by: &Caller, user: UserId) -> Result<(), ControlError> {
        self.projects.remove_member(by, self.project, user).await
    }

    async fn members(&self, after: Option<UserId>, limit: usize) -> Vec<Member> {
        self.projects.list_members(&self.owner, self.project, after, limit).await.unwrap()
    }

    async fn roles(&self) -> Vec<(UserId, ProjectRole)> {
        self.members(None, 100).await.into_iter().map(|member| (member.user, member.role)).collect()
    }
}

/// What was recorded of projects since `n_before` events.
async fn recorded<F: ControlFixture>(fixture: &F, n_before: usize) -> Vec<AuditEvent> {
    fixture.audit_trail().await.split_off(n_before)
}

/// Each change writes one event, which says who changed what, and from where.
pub async fn what_changes_of_a_project_is_recorded_and_nothing_else<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let (owner, member) = (fixture.account(Role::Member).await, fixture.account(Role::Member).await.user);
    let origin = Origin { request_id: Some(RequestId::new()), ..Origin::default() };
    let owner = Caller { origin, ..owner };
    let n_before = fixture.audit_trail().await.len();
    let project = projects.create(&owner, create("Sales")).await.unwrap().id;
    let renamed = ChangeProject { name: Some("More".to_owned()), description: None };
    projects.change(&owner, project, &renamed).await.unwrap();
    for role in [ProjectRole::Viewer, ProjectRole::Editor, ProjectRole::Editor] {
        projects.put_member(&owner, project, member, role).await.unwrap();
    }
    projects.remove_member(&owner, project, member).await.unwrap();
    projects.delete(&owner, project).await.unwrap();
    let detail = |role: &str| json!({ "project": project, "role": role, "by": owner.user });
    let expected: [(AuditKind, UserId, Value); 5] = [
        (AuditKind::ProjectCreated, owner.user, detail("owner")),
        (AuditKind::MemberAdded, member, detail("viewer")),
        (AuditKind::MemberRoleChanged, member, detail("editor")),
        (AuditKind::MemberRemoved, member, detail("editor")),
        (AuditKind::ProjectDeleted, owner.user, json!({ "project": project, "by": owner.user })),
    ];
    let expected =
        expected.map(|(kind, user, detail)| AuditEvent::new(kind, Some(user), origin).with_detail(detail));
    assert_eq!(recorded(fixture, n_before).await, expected);
}

/// Neither is anything changed.
pub async fn nothing_is_recorded_of_what_is_refused_or_missing<F: ControlFixture>(fixture: &F) {
    let shared = Shared::new(fixture).await;
    let (owner, bob) = (&shared.owner, fixture.account(Role::Member).await);
    let default = *shared.projects.find_or_default::<right::Read>(owner, None).await.unwrap().thing();
    let n_before = fixture.audit_trail().await.len();
    conflict(shared.projects.delete(owner, default).await);
    conflict(shared.remove(owner, owner.user).await);
    for role in [ProjectRole::Editor, ProjectRole::Viewer] {
        assert_eq!(conflict(shared.put(owner, owner.user, role).await), Conflict::LastOwner);
    }
    let missing = [
        shared.put(owner, UserId::new(), ProjectRole::Viewer).await,
        shared.remove(owner, bob.user).await,
        shared.projects.put_member(owner, ProjectId::new(), bob.user, ProjectRole::Viewer).await,
        shared.projects.remove_member(owner, ProjectId::new(), bob.user).await,
        shared.put(&bob, bob.user, ProjectRole::Owner).await,
        shared.remove(&bob, owner.user).await,
    ];
    for refused in missing {
        assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    }
    assert_eq!(recorded(fixture, n_before).await, []);
    assert_eq!(shared.roles().await, [(owner.user, ProjectRole::Owner)]);
}

/// In the order of the accounts' ids.
pub async fn members_are_listed_with_their_accounts_in_pages<F: ControlFixture>(fixture: &F) {
    let shared = Shared::new(fixture).await;
    let (owner, bob) = (&shared.owner, fixture.account(Role::Member).await);
    let refused = shared.projects.list_members(&bob, shared.project, None, 10).await;
    assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    shared.put(owner, bob.user, ProjectRole::Viewer).await.unwrap();
    let members = shared.members(None, 10).await;
    let shown: Vec<_> = members.iter().map(|member| (member.user, member.role)).collect();
    assert_eq!(shown, [(owner.user, ProjectRole::Owner), (bob.user, ProjectRole::Viewer)]);
    for member in &members {
        assert!(member.email.as_str().ends_with("@example.org"), "{member:?}");
        assert_eq!(member.name, "Somebody");
    }
    assert_ne!(members[0].email, members[1].email);
    assert_eq!(shared.members(None, 1).await, members[..1]);
    assert_eq!(shared.members(Some(owner.user), 10).await, members[1..]);
    let by_viewer = shared.projects.list_members(&bob, shared.project, None, 10).await.unwrap();
    assert_eq!(by_viewer, members);
}

/// An API key of a member needs the scope to manage for it.
pub async fn every_member_may_leave_but_the_last_owner<F: ControlFixture>(fixture: &F) {
    let shared = Shared::new(fixture).await;
    let viewer = fixture.account(Role::Member).await;
    fixture.join(shared.project, &viewer, ProjectRole::Viewer).await;
    for scope in [Scope::Read, Scope::Run] {
        let refused = shared.remove(&with_scopes(&viewer, &[scope]), viewer.user).await;
        assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    }
    let refused = shared.remove(&viewer, shared.owner.user).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    shared.remove(&with_scopes(&viewer, &[Scope::Manage]), viewer.user).await.unwrap();
    let again = shared.remove(&viewer, viewer.user).await;
    assert!(matches!(again, Err(ControlError::NotFound)), "{again:?}");
    assert_eq!(conflict(shared.remove(&shared.owner, shared.owner.user).await), Conflict::LastOwner);
    let admin = fixture.account(Role::Admin).await;
    let by_admin = shared.put(&admin, shared.owner.user, ProjectRole::Editor).await;
    assert_eq!(conflict(by_admin), Conflict::LastOwner);
    shared.put(&admin, admin.user, ProjectRole::Owner).await.unwrap();
    shared.remove(&shared.owner, shared.owner.user).await.unwrap();
}

/// Each is refused or done by what the other left.
pub async fn of_two_owners_who_leave_at_once_one_remains<F: ControlFixture>(fixture: &F) {
    let shared = Shared::new(fixture).await;
    let (owner, bob) = (&shared.owner, fixture.account(Role::Member).await);
    fixture.join(shared.project, &bob, ProjectRole::Owner).await;
    let (one, other) =
        tokio::join!(shared.remove(owner, owner.user), shared.put(&bob, bob.user, ProjectRole::Viewer));
    let n_done = [&one, &other].into_iter().filter(|left| left.is_ok()).count();
    assert_eq!(n_done, 1, "{one:?}, {other:?}");
    let refused = if one.is_ok() { other } else { one };
    assert_eq!(conflict(refused), Conflict::LastOwner);
}

/// What counts is the role when the change is made, not the one with which the caller was authenticated.
pub async fn who_lost_the_right_changes_no_members<F: ControlFixture>(fixture: &F) {
    let shared = Shared::new(fixture).await;
    let (bob, eve) = (fixture.account(Role::Member).await, fixture.account(Role::Member).await.user);
    let as_admin = Caller { role: Role::Admin, ..bob.clone() };
    let attempts = async |by: &Caller| {
        [shared.put(by, eve, ProjectRole::Owner).await, shared.remove(by, shared.owner.user).await]
    };
    for refused in attempts(&as_admin).await {
        assert!(matches!(refused, Err(ControlError::NotFound)), "no admin any more: {refused:?}");
    }
    fixture.join(shared.project, &bob, ProjectRole::Editor).await;
    for by in [&bob, &as_admin] {
        for refused in attempts(by).await {
            assert!(matches!(refused, Err(ControlError::Forbidden)), "no owner: {refused:?}");
        }
    }
    fixture.change_account(&bob, Role::Admin, true).await;
    for refused in attempts(&bob).await {
        assert!(matches!(refused, Err(ControlError::Forbidden)), "authenticated as a member: {refused:?}");
    }
    fixture.change_account(&bob, Role::Admin, false).await;
    for refused in attempts(&as_admin).await {
        assert!(matches!(refused, Err(ControlError::Revoked)), "disabled: {refused:?}");
    }
    assert_eq!(
        shared.roles().await,
        [(shared.owner.user, ProjectRole::Owner), (bob.user, ProjectRole::Editor)]
    );
    fixture.change_account(&bob, Role::Member, true).await;
    shared.remove(&bob, bob.user).await.unwrap();
}

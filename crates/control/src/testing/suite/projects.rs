//! Projects: who sees them, what may become of them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_auth::{ProjectRole, Role, Scope};
use gathering_dag_engine::JournalEvent;
use gathering_domain::{KeyedBody, ProjectId};
use serde_json::json;

use super::decisions::{approval, waiting};
use super::{World, claim, commit, conflict, failed};
use crate::testing::{ControlFixture, member, with_scopes};
use crate::{
    ChangeProject, Conflict, ControlError, CreateProject, FilesRoot, Found, Operator, Project,
    ProjectControl, StartRun, right,
};

pub(super) fn create(name: &str) -> CreateProject {
    CreateProject { name: name.to_owned(), description: "of\nthe sea".to_owned(), once: None }
}

fn ids(listed: Vec<Found<Project>>) -> Vec<(ProjectId, Option<ProjectRole>)> {
    listed.into_iter().map(|found| (found.thing.id, found.membership)).collect()
}

/// A request that names no project creates things in the caller's default one.
pub async fn what_names_no_project_goes_into_the_default_one<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let default = projects.find_or_default::<right::Write>(&owner, None).await.unwrap();
    assert_eq!(default.membership(), Some(ProjectRole::Owner));
    let other = fixture.project(&owner).await;
    for (named, expected) in [(None, *default.thing()), (Some(other), other)] {
        let found = projects.find_or_default::<right::Write>(&owner, named).await.unwrap();
        assert_eq!(*found.thing(), expected);
    }
    let viewer = fixture.account(Role::Member).await;
    fixture.join(other, &viewer, ProjectRole::Viewer).await;
    let refused = projects.find_or_default::<right::Write>(&viewer, Some(other)).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    let missing = projects.find_or_default::<right::Write>(&viewer, Some(ProjectId::new())).await;
    assert!(matches!(missing, Err(ControlError::NotFound)), "{missing:?}");
    let homeless = projects.find_or_default::<right::Write>(&member(), None).await;
    let Err(ControlError::Invalid(problems)) = homeless else { panic!("{homeless:?}") };
    assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/project_id");
}

/// With the role that the caller has there; to a stranger it is absent.
pub async fn a_project_is_seen_by_its_members_and_by_admins<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let created = projects.create(&owner, create("Tides")).await.unwrap().into_thing();
    let seen = projects.load(&owner, created.id).await.unwrap();
    assert_eq!((seen.thing(), seen.membership()), (&created, Some(ProjectRole::Owner)));
    let stranger = fixture.account(Role::Member).await;
    for absent in [created.id, ProjectId::new()] {
        let hidden = projects.load(&stranger, absent).await;
        assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
    }
    fixture.join(created.id, &stranger, ProjectRole::Viewer).await;
    let seen = projects.load(&stranger, created.id).await.unwrap();
    assert_eq!((seen.thing(), seen.membership()), (&created, Some(ProjectRole::Viewer)));
    let admin = fixture.account(Role::Admin).await;
    let seen = projects.load(&admin, created.id).await.unwrap();
    assert_eq!((seen.thing(), seen.membership()), (&created, None));
}

/// A member's list has their own; an admin's has all.
pub async fn projects_are_listed_in_pages_the_newest_first<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let (ada, bob) = (fixture.account(Role::Admin).await, fixture.account(Role::Member).await);
    let adas = *projects.find_or_default::<right::Read>(&ada, None).await.unwrap().thing();
    let bobs = *projects.find_or_default::<right::Read>(&bob, None).await.unwrap().thing();
    let shared = fixture.project(&bob).await;
    fixture.join(shared, &ada, ProjectRole::Viewer).await;
    let local = projects.ensure_local(Operator, "/home/ada/listed").await.unwrap();
    let owner = Some(ProjectRole::Owner);
    let page = async |caller, before, limit| ids(projects.list(caller, before, limit).await.unwrap());
    assert_eq!(page(&bob, None, 10).await, [(shared, owner), (bobs, owner)]);
    assert_eq!(page(&bob, None, 1).await, [(shared, owner)]);
    assert_eq!(page(&bob, Some(shared), 10).await, [(bobs, owner)]);
    assert_eq!(page(&bob, Some(bobs), 10).await, []);
    let all = [(shared, Some(ProjectRole::Viewer)), (bobs, None), (adas, owner)];
    let listed = page(&ada, None, 10).await;
    assert_eq!(listed[..3], all, "an admin");
    assert!(listed.iter().all(|(id, _)| *id != local.id), "the operator's is hidden: {listed:?}");
    assert_eq!(page(&ada, Some(bobs), 1).await, all[2..]);
    let as_member = with_scopes(&ada, &[Scope::Read]);
    let own = [(shared, Some(ProjectRole::Viewer)), (adas, owner)];
    assert_eq!(page(&as_member, None, 10).await, own, "an API key without the scope `admin`");
    let refused = projects.list(&with_scopes(&ada, &[]), None, 10).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
}

/// The scope is `manage`.
pub async fn a_created_project_belongs_to_its_creator_and_an_api_key_needs_the_scope<F: ControlFixture>(
    fixture: &F,
) {
    let projects = ProjectControl::new(fixture.store());
    let caller = fixture.account(Role::Member).await;
    let created = projects.create(&caller, create("Tides")).await.unwrap();
    assert_eq!((created.name.as_str(), created.description.as_str()), ("Tides", "of\nthe sea"));
    assert_eq!((created.membership(), created.created_at), (Some(ProjectRole::Owner), created.updated_at));
    assert!(projects.find::<right::Manage>(&caller, created.id).await.is_ok());
    for (scope, may) in
        [(Scope::Read, false), (Scope::Write, false), (Scope::Run, false), (Scope::Manage, true)]
    {
        let created = projects.create(&with_scopes(&caller, &[scope]), create("by key")).await;
        assert_eq!(created.is_ok(), may, "{scope:?}: {created:?}");
        assert!(may || matches!(created, Err(ControlError::Forbidden)), "{created:?}");
    }
    let gone = projects.create(&member(), create("of nobody")).await;
    assert!(matches!(gone, Err(ControlError::Revoked)), "{gone:?}");
}

fn keyed(key: &str, name: &str) -> CreateProject {
    let once = KeyedBody::new(key.parse().unwrap(), &json!({ "name": name }));
    CreateProject { once: Some(once), ..create(name) }
}

/// The second is answered with the project as it stands then. Another account's key is another key.
pub async fn the_same_key_and_body_create_one_project<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let (ada, bob) = (fixture.account(Role::Member).await, fixture.account(Role::Member).await);
    let first = projects.create(&ada, keyed("k", "Tides")).await.unwrap();
    let n_recorded = fixture.audit_trail().await.len();
    assert_eq!(projects.create(&ada, keyed("k", "Tides")).await.unwrap().thing(), first.thing());
    let renamed = ChangeProject { name: Some("Moon".to_owned()), description: None };
    let renamed = projects.change(&ada, first.id, &renamed).await.unwrap();
    let again = projects.create(&ada, keyed("k", "Tides")).await.unwrap();
    assert_eq!((again.thing(), again.membership()), (renamed.thing(), Some(ProjectRole::Owner)));
    assert_eq!(fixture.audit_trail().await.len(), n_recorded, "nothing was created");
    assert_ne!(projects.create(&ada, keyed("l", "Tides")).await.unwrap().id, first.id);
    assert_ne!(projects.create(&bob, keyed("k", "Tides")).await.unwrap().id, first.id);
}

/// Both are answered with it.
pub async fn of_two_creations_with_one_key_at_once_one_creates_a_project<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let caller = fixture.account(Role::Member).await;
    let create = || projects.create(&caller, keyed("k", "Tides"));
    let (one, two) = tokio::join!(create(), create());
    assert_eq!(one.unwrap().id, two.unwrap().id);
    assert_eq!(projects.list(&caller, None, 10).await.unwrap().len(), 2, "with the default project");
}

/// A caller who is no member any more learns nothing of it, either.
pub async fn a_key_of_another_project_or_of_a_deleted_one_creates_nothing<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let (ada, bob) = (fixture.account(Role::Member).await, fixture.account(Role::Member).await);
    let project = projects.create(&ada, keyed("k", "Tides")).await.unwrap().id;
    assert_eq!(conflict(projects.create(&ada, keyed("k", "Moon")).await), Conflict::KeyReused);
    projects.put_member(&ada, project, bob.user, ProjectRole::Owner).await.unwrap();
    projects.remove_member(&bob, project, ada.user).await.unwrap();
    let hidden = projects.create(&ada, keyed("k", "Tides")).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
    projects.delete(&bob, project).await.unwrap();
    assert_eq!(conflict(projects.create(&ada, keyed("k", "Tides")).await), Conflict::CreatedAndDeleted);
    assert_eq!(projects.list(&ada, None, 10).await.unwrap().len(), 1, "the default project");
}

/// Names and descriptions change one by one.
pub async fn what_is_absent_of_a_change_stays_and_only_an_owner_changes_a_project<F: ControlFixture>(
    fixture: &F,
) {
    let projects = ProjectControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let id = projects.create(&owner, create("Tides")).await.unwrap().id;
    let change = |name: Option<&str>, description: Option<&str>| ChangeProject {
        name: name.map(str::to_owned),
        description: description.map(str::to_owned),
    };
    let renamed = projects.change(&owner, id, &change(Some("Moon"), None)).await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.description.as_str()), ("Moon", "of\nthe sea"));
    assert_eq!(renamed.membership(), Some(ProjectRole::Owner));
    assert!(renamed.updated_at > renamed.created_at, "{renamed:?}");
    let emptied = projects.change(&owner, id, &change(None, Some(""))).await.unwrap();
    assert_eq!((emptied.name.as_str(), emptied.description.as_str()), ("Moon", ""));
    assert_eq!(projects.load(&owner, id).await.unwrap().thing(), emptied.thing());
    let editor = fixture.account(Role::Member).await;
    let refused = projects.change(&editor, id, &change(Some("Mine"), None)).await;
    assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    fixture.join(id, &editor, ProjectRole::Editor).await;
    let refused = projects.change(&editor, id, &change(Some("Mine"), None)).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    assert_eq!(projects.load(&owner, id).await.unwrap().name, "Moon");
}

/// To admins, too, and in every list.
pub async fn a_deleted_project_is_absent_to_everybody<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let projects = ProjectControl::new(fixture.store());
    let (editor, admin) = (fixture.account(Role::Member).await, fixture.account(Role::Admin).await);
    fixture.join(world.project, &editor, ProjectRole::Editor).await;
    let refused = projects.delete(&editor, world.project).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    projects.delete(&world.owner, world.project).await.unwrap();
    for caller in [&world.owner, &editor, &admin] {
        let absent = projects.find::<right::Read>(caller, world.project).await;
        assert!(matches!(absent, Err(ControlError::NotFound)), "{absent:?}");
        let listed = ids(projects.list(caller, None, 10).await.unwrap());
        assert!(listed.iter().all(|(id, _)| *id != world.project), "{listed:?}");
        let again = projects.delete(caller, world.project).await;
        assert!(matches!(again, Err(ControlError::NotFound)), "{again:?}");
        let started = world.start(caller, StartRun::default()).await;
        assert!(matches!(started, Err(ControlError::NotFound)), "{started:?}");
    }
    assert_eq!(projects.find_files_root(world.project).await.unwrap(), None);
}

/// The account needs it for what names no project.
pub async fn a_default_project_is_not_deleted<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let (owner, admin) = (fixture.account(Role::Member).await, fixture.account(Role::Admin).await);
    let default = *projects.find_or_default::<right::Read>(&owner, None).await.unwrap().thing();
    for caller in [&owner, &admin] {
        assert_eq!(conflict(projects.delete(caller, default).await), Conflict::DefaultProject);
    }
    assert!(projects.load(&owner, default).await.is_ok());
}

/// A run that only waits is active, too.
pub async fn a_project_is_deleted_only_when_its_runs_have_ended<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let projects = ProjectControl::new(fixture.store());
    let refused = async || conflict(projects.delete(&world.owner, world.project).await);
    // A claim starts no such node.
    let definition = json!({"nodes": [{"id": "first", "type": "trigger", "idempotent": false}]});
    let pipeline = world.define(&definition).await;
    let run = world.runs.start(&world.owner, pipeline, StartRun::default()).await.unwrap().id;
    assert_eq!(refused().await, Conflict::RunsActive, "queued");
    let claimed = claim(fixture, run).await;
    assert_eq!(refused().await, Conflict::RunsActive, "running");
    let events =
        vec![("first", JournalEvent::Started), ("first", JournalEvent::Succeeded { output: json!(1) })];
    commit(fixture, claimed, events, Some(failed())).await;
    let other = fixture.project(&world.owner).await;
    waiting(fixture, &World { project: other, ..world.clone() }, &approval(&[])).await;
    assert_eq!(conflict(projects.delete(&world.owner, other).await), Conflict::RunsActive, "waiting");
    projects.delete(&world.owner, world.project).await.unwrap();
    let absent = world.runs.find::<right::Read>(&world.owner, run).await;
    assert!(matches!(absent, Err(ControlError::NotFound)), "{absent:?}");
}

/// The operator's directory is known although no account sees the project.
pub async fn the_files_of_a_project_are_the_servers_or_the_operators<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let of_account = fixture.project(&owner).await;
    let local = projects.ensure_local(Operator, "/home/ada/files").await.unwrap();
    let of_operator = FilesRoot::Operator("/home/ada/files".to_owned());
    for (project, root) in
        [(of_account, Some(FilesRoot::Server)), (local.id, Some(of_operator)), (ProjectId::new(), None)]
    {
        assert_eq!(projects.find_files_root(project).await.unwrap(), root);
    }
}

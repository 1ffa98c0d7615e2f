//! Secrets: who sets, sees and deletes them, and how many a project has.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::sync::Arc;

use gathering_auth::{AuditKind, KeyRing, ProjectRole, Role, Scope};
use gathering_domain::{Secret, SecretName};

use super::{World, conflict};
use crate::testing::{ControlFixture, with_scopes};
use crate::{Conflict, ControlError, MAX_SECRET_BYTES, MAX_SECRETS, SecretControl, SecretSources};

pub(super) const VALUE: &str = "hunter2-hunter2";

pub(super) fn secrets_of<F: ControlFixture>(fixture: &F, keys: KeyRing) -> SecretControl {
    SecretControl::new(fixture.store(), keys, SecretSources::none())
}

pub(super) fn ring() -> KeyRing {
    KeyRing::generate().unwrap()
}

pub(super) fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

impl World {
    pub(super) async fn set_secret(&self, secrets: &SecretControl, text: &str, value: &str) -> bool {
        secrets.set(&self.owner, self.project, name(text), &Secret::from(value)).await.unwrap()
    }
}

/// A set secret is listed without its value, replaced and deleted, and the record has who did it.
pub async fn a_set_secret_is_listed_without_its_value<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let keys = ring();
    let key_id = keys.current_id().to_owned();
    let secrets = secrets_of(fixture, keys);
    assert!(world.set_secret(&secrets, "B", VALUE).await);
    assert!(world.set_secret(&secrets, "A", "another value").await);
    assert!(!world.set_secret(&secrets, "B", "a third value").await, "it was there");
    let listed = secrets.list(&world.owner, world.project, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>(), ["B", "A"]);
    assert!(listed.iter().all(|secret| secret.key_id == key_id && secret.last_used_at.is_none()));
    assert!(listed[0].updated_at > listed[0].created_at && listed[1].updated_at == listed[1].created_at);
    assert!(!format!("{listed:?}").contains("value"));
    let page = secrets.list(&world.owner, world.project, Some(listed[0].id), 10).await.unwrap();
    assert_eq!(page, listed[1..]);
    assert!(secrets.list(&world.owner, world.project, None, 1).await.unwrap() == listed[..1]);

    secrets.delete(&world.owner, world.project, &name("B")).await.unwrap();
    let again = secrets.delete(&world.owner, world.project, &name("B")).await;
    assert!(matches!(again, Err(ControlError::NotFound)), "{again:?}");
    assert_eq!(secrets.list(&world.owner, world.project, None, 10).await.unwrap(), listed[1..]);
    let record = fixture.audit_trail().await;
    let of_secrets: Vec<_> =
        record.iter().filter(|event| event.kind.as_str().starts_with("secret_")).collect();
    let kinds: Vec<_> = of_secrets.iter().map(|event| event.kind).collect();
    let set = AuditKind::SecretSet;
    assert_eq!(kinds, [set, set, set, AuditKind::SecretDeleted]);
    assert!(of_secrets.iter().all(|event| event.user == Some(world.owner.user)));
    assert_eq!(of_secrets[0].detail["secret"], "B");
    assert!(!format!("{record:?}").contains("value"));
}

/// Members see names, those who write things set them, and others find nothing.
pub async fn a_viewer_sees_the_names_of_secrets_and_a_stranger_nothing<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let secrets = secrets_of(fixture, ring());
    world.set_secret(&secrets, "A", VALUE).await;
    let (viewer, editor, stranger) = (
        fixture.account(Role::Member).await,
        fixture.account(Role::Member).await,
        fixture.account(Role::Member).await,
    );
    fixture.join(world.project, &viewer, ProjectRole::Viewer).await;
    fixture.join(world.project, &editor, ProjectRole::Editor).await;
    let value = Secret::from(VALUE);
    assert_eq!(secrets.list(&viewer, world.project, None, 10).await.unwrap().len(), 1);
    assert!(secrets.set(&editor, world.project, name("B"), &value).await.unwrap());
    secrets.delete(&editor, world.project, &name("B")).await.unwrap();
    let reader = with_scopes(&world.owner, &[Scope::Read]);
    for caller in [&viewer, &reader] {
        let set = secrets.set(caller, world.project, name("A"), &value).await;
        assert!(matches!(set, Err(ControlError::Forbidden)), "{set:?}");
        let deleted = secrets.delete(caller, world.project, &name("A")).await;
        assert!(matches!(deleted, Err(ControlError::Forbidden)), "{deleted:?}");
    }
    let listed = secrets.list(&stranger, world.project, None, 10).await;
    assert!(matches!(listed, Err(ControlError::NotFound)), "{listed:?}");
    let set = secrets.set(&stranger, world.project, name("A"), &value).await;
    assert!(matches!(set, Err(ControlError::NotFound)), "{set:?}");
    let deleted = secrets.delete(&stranger, world.project, &name("A")).await;
    assert!(matches!(deleted, Err(ControlError::NotFound)), "{deleted:?}");
}

/// Who was disabled since their request was authenticated sets nothing.
pub async fn who_lost_the_right_sets_no_secret<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let secrets = secrets_of(fixture, ring());
    fixture.change_account(&world.owner, Role::Member, false).await;
    let set = secrets.set(&world.owner, world.project, name("A"), &Secret::from(VALUE)).await;
    assert!(matches!(set, Err(ControlError::Revoked)), "{set:?}");
    fixture.change_account(&world.owner, Role::Member, true).await;
    assert!(secrets.list(&world.owner, world.project, None, 10).await.unwrap().is_empty());
}

/// Number and size of a project's secrets are bounded, and of each value.
pub async fn a_project_has_a_bounded_number_of_secrets<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let secrets = secrets_of(fixture, ring());
    let set = async |text: &str, size: usize| {
        secrets.set(&world.owner, world.project, name(text), &Secret::from("x".repeat(size))).await
    };
    for size in [0, 3, MAX_SECRET_BYTES + 1] {
        let Err(ControlError::Invalid(problems)) = set("A", size).await else { panic!("{size}") };
        assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/value");
    }
    for number in 0..4 {
        assert!(set(&format!("LARGE_{number}"), MAX_SECRET_BYTES).await.unwrap());
    }
    assert_eq!(conflict(set("ONE_MORE", 4).await), Conflict::SecretsTooLarge);
    assert!(!set("LARGE_0", MAX_SECRET_BYTES).await.unwrap(), "another value in the place of one fits");
    for number in 0..4 {
        secrets.delete(&world.owner, world.project, &name(&format!("LARGE_{number}"))).await.unwrap();
    }
    for number in 0..MAX_SECRETS {
        assert!(set(&format!("S{number}"), 4).await.unwrap());
    }
    assert_eq!(conflict(set("ONE_MORE", 4).await), Conflict::TooManySecrets);
    assert!(!set("S0", 5).await.unwrap());
}

/// Requests at once follow each other: one creates the secret, and the bound holds.
pub async fn of_two_that_set_one_secret_at_once_the_later_stands<F: ControlFixture>(fixture: &F) {
    let world = Arc::new(World::new(fixture).await);
    let secrets = secrets_of(fixture, ring());
    let set = (0..8).map(|number| {
        let (world, secrets) = (Arc::clone(&world), secrets.clone());
        tokio::spawn(async move { world.set_secret(&secrets, "A", &format!("value {number}")).await })
    });
    let mut n_new = 0;
    for task in set.collect::<Vec<_>>() {
        n_new += usize::from(task.await.unwrap());
    }
    assert_eq!(n_new, 1);
    let found = fixture.store().find_secrets(world.project, None).await.unwrap();
    assert_eq!((found.version, found.secrets.unwrap().len()), (8, 1));
}

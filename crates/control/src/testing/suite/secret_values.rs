//! Secrets as nodes get them: the value of this moment, whichever key it was encrypted with, and wherever it is from.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use std::collections::BTreeSet;

use gathering_auth::{AuditKind, KeyRing};
use gathering_dag_engine::Redaction as _;
use gathering_domain::{ExposeSecret as _, ProjectId, RunId};
use gathering_nodes::ProjectSecrets as _;

use super::World;
use super::secrets::{VALUE, name, ring, secrets_of};
use crate::testing::ControlFixture;
use crate::{SecretControl, SecretSources};

/// What is taken out of a text shows which values a node knows.
async fn redacted(secrets: &SecretControl, project: ProjectId, are_used: bool, text: &str) -> String {
    let mut text = text.to_owned();
    secrets.open(project, are_used).await.unwrap().redact_text(&mut text);
    text
}

/// A ring with the same keys.
fn same(ring: &KeyRing) -> KeyRing {
    KeyRing::parse(ring.to_text().expose_secret()).unwrap()
}

/// A change on one instance is seen by the next node on another.
pub async fn a_node_gets_the_value_of_this_moment<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let keys = ring();
    let (one, other) = (secrets_of(fixture, same(&keys)), secrets_of(fixture, keys));
    let text = "first value, second value";
    assert_eq!(redacted(&other, world.project, true, text).await, text);
    world.set_secret(&one, "A", "first value").await;
    assert_eq!(redacted(&other, world.project, false, text).await, text, "it may be some seconds old");
    assert_eq!(redacted(&other, world.project, true, text).await, "[secret A], second value");
    world.set_secret(&one, "A", "second value").await;
    assert_eq!(redacted(&other, world.project, true, text).await, "first value, [secret A]");
    assert_eq!(redacted(&one, world.project, false, text).await, "first value, [secret A]");
    one.delete(&world.owner, world.project, &name("A")).await.unwrap();
    assert_eq!(redacted(&other, world.project, true, text).await, text);
    let elsewhere = fixture.project(&world.owner).await;
    world.set_secret(&one, "A", "first value").await;
    assert_eq!(redacted(&other, elsewhere, true, text).await, text, "it is the secret of one project");
    assert_eq!(redacted(&other, ProjectId::new(), true, text).await, text);
}

/// What was stored for one secret is no value of another.
pub async fn a_value_opens_only_as_the_secret_that_it_is<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let keys = ring();
    let secrets = secrets_of(fixture, same(&keys));
    world.set_secret(&secrets, "A", VALUE).await;
    let found = fixture.store().find_secrets(world.project, None).await.unwrap();
    let (_, sealed) = &found.secrets.unwrap()[0];
    let context = |project: ProjectId, name: &str| format!("secret {project} {name}").into_bytes();
    assert!(keys.open(sealed, &context(world.project, "A")).is_ok());
    assert!(keys.open(sealed, &context(world.project, "B")).is_err());
    assert!(keys.open(sealed, &context(ProjectId::new(), "A")).is_err());
}

/// Without its key a value is not read; what other keys encrypted is.
pub async fn a_value_without_its_key_is_named_and_the_others_are_read<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let (lost, kept) = (secrets_of(fixture, ring()), secrets_of(fixture, ring()));
    world.set_secret(&lost, "LOST", "a lost value").await;
    world.set_secret(&kept, "KEPT", "a kept value").await;
    let text = "a lost value, a kept value";
    assert_eq!(redacted(&kept, world.project, true, text).await, "a lost value, [secret KEPT]");
    assert_eq!(kept.reseal().await.unwrap(), 0, "it cannot be encrypted anew without its key");
    assert_eq!(redacted(&lost, world.project, true, text).await, "[secret LOST], a kept value");
}

/// A rotated ring reads what the old key encrypted, and then nothing needs the old key.
pub async fn after_a_rotation_everything_is_encrypted_with_the_new_key<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let old = ring();
    let before = secrets_of(fixture, same(&old));
    for number in 0..150 {
        world.set_secret(&before, &format!("S{number}"), &format!("value {number:04}")).await;
    }
    let rotated = old.rotated().unwrap();
    let new_alone = KeyRing::parse(rotated.to_text().expose_secret().lines().next().unwrap()).unwrap();
    let during = secrets_of(fixture, rotated);
    assert_eq!(redacted(&during, world.project, true, "value 0149").await, "[secret S149]");
    assert_eq!(during.reseal().await.unwrap(), 150, "in more than one batch");
    assert_eq!(during.reseal().await.unwrap(), 0);
    let new_id = new_alone.current_id().to_owned();
    let after = secrets_of(fixture, new_alone);
    assert_eq!(
        redacted(&after, world.project, true, "value 0000, value 0149").await,
        "[secret S0], [secret S149]"
    );
    let listed = after.list(&world.owner, world.project, None, 200).await.unwrap();
    assert!(listed.iter().all(|secret| secret.key_id == new_id));
}

/// The record has which run used which secret, once.
pub async fn a_run_that_uses_a_secret_is_recorded_once<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let secrets = secrets_of(fixture, ring());
    world.set_secret(&secrets, "A", VALUE).await;
    world.set_secret(&secrets, "B", VALUE).await;
    let run = RunId::new();
    let names = BTreeSet::from([name("A"), name("GIVEN")]);
    for _ in 0..3 {
        secrets.note_use(world.project, run, &names);
        secrets.use_service().flush().await.unwrap();
    }
    let listed = secrets.list(&world.owner, world.project, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|secret| secret.last_used_at.is_some()).collect::<Vec<_>>(), [true, false]);
    let mut used: Vec<_> = fixture.audit_trail().await;
    used.retain(|event| event.kind == AuditKind::SecretUsed);
    let mut of_run: Vec<_> = used.iter().map(|event| event.detail["secret"].as_str().unwrap()).collect();
    of_run.sort_unstable();
    assert_eq!(of_run, ["A", "GIVEN"]);
    assert!(used.iter().all(|event| event.detail["run"] == run.to_string() && event.user.is_none()));
}

/// A project's own secret wins over a file of the project, that over a file for all, and that over a variable.
pub async fn a_projects_own_secret_wins_over_files_and_those_over_variables<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let directory = std::env::temp_dir().join(format!("gathering-secrets-{}", RunId::new()));
    let of_project = directory.join(world.project.to_string());
    std::fs::create_dir_all(&of_project).unwrap();
    for (path, value) in [
        (directory.join("FILE"), "of a file\n"),
        (directory.join("PLACE"), "for everybody"),
        (of_project.join("PLACE"), "for the project"),
        (directory.join("OWN"), "not its own"),
        (directory.join("no name"), "no name"),
        (directory.join("SHORT"), "abc"),
        (directory.join("VARIABLE_2"), "of a file, too"),
    ] {
        std::fs::write(path, value).unwrap();
    }
    let variables = [("VARIABLE", "of a variable"), ("VARIABLE_2", "of a variable 2"), ("b-d", "of none")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let sources = SecretSources::none().with_environment(variables).with_directory(directory.clone());
    let secrets = SecretControl::new(fixture.store(), ring(), sources);
    world.set_secret(&secrets, "OWN", "its very own").await;
    for (text, expected) in [
        ("of a file", "[secret FILE]"),
        ("for everybody", "for everybody"),
        ("for the project", "[secret PLACE]"),
        ("its very own", "[secret OWN]"),
        ("not its own", "not its own"),
        ("of a variable", "[secret VARIABLE]"),
        ("of a variable 2", "[secret VARIABLE] 2"),
        ("of a file, too", "[secret VARIABLE_2]"),
        ("no name, of none, abc", "no name, of none, abc"),
    ] {
        assert_eq!(redacted(&secrets, world.project, true, text).await, expected);
    }
    let elsewhere = fixture.project(&world.owner).await;
    assert_eq!(redacted(&secrets, elsewhere, true, "for everybody").await, "[secret PLACE]");
    std::fs::write(directory.join("FILE"), "another one").unwrap();
    assert_eq!(
        redacted(&secrets, elsewhere, true, "of a file, another one").await,
        "of a file, [secret FILE]"
    );
    std::fs::remove_dir_all(&directory).unwrap();
}

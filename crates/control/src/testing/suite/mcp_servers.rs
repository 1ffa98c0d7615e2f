//! Mounted MCP servers: who mounts, accepts and unmounts them, and how many a project has.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_auth::{AuditKind, Caller, ProjectRole, Role, Scope};
use gathering_domain::{EffectClass, McpServerName};
use serde_json::{Value, json};

use super::{World, conflict};
use crate::testing::{ControlFixture, with_scopes};
use crate::{
    Conflict, ControlError, MAX_MCP_PINS_BYTES, MAX_MCP_SERVERS, McpMount, McpPins, McpRules,
    McpServerControl, McpSettings,
};

fn servers_of<F: ControlFixture>(fixture: &F) -> McpServerControl {
    let rules = McpRules { commands: ["time-server".to_owned()].into(), allowance: EffectClass::Unsafe };
    McpServerControl::new(fixture.store(), rules)
}

fn name(text: &str) -> McpServerName {
    text.parse().unwrap()
}

fn settings(command: &str) -> McpSettings {
    let transport = json!({"type": "stdio", "command": command, "env": {"API_TOKEN": "${{ secrets.T }}"}});
    serde_json::from_value(json!({"transport": transport, "allow": "unsafe"})).unwrap()
}

fn pins(description: &str) -> McpPins {
    [("now".to_owned(), json!({"name": "now", "description": description}))].into()
}

impl World {
    async fn mount(
        &self,
        servers: &McpServerControl,
        caller: &Caller,
        server: &str,
        pins: McpPins,
    ) -> Result<McpMount, ControlError> {
        let allowed =
            servers.allow(caller, Some(self.project), name(server), settings("time-server")).await?;
        servers.mount(allowed, pins).await
    }

    async fn version(&self, servers: &McpServerControl) -> i64 {
        servers.load(self.project, None).await.unwrap().version
    }
}

/// What was mounted is there with what was accepted, until it is unmounted, and the record has who did it.
pub async fn a_mounted_server_is_found_until_it_is_unmounted<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let servers = servers_of(fixture);
    let (owner, project) = (&world.owner, Some(world.project));
    let before = world.version(&servers).await;
    let mounted = world.mount(&servers, owner, "time", pins("tells the time")).await.unwrap();
    assert_eq!((mounted.created_by, mounted.project), (Some(owner.user), world.project));
    assert_eq!((&mounted.settings, &mounted.pins), (&settings("time-server"), &pins("tells the time")));
    assert_eq!(servers.list(owner, project).await.unwrap(), std::slice::from_ref(&mounted));
    assert_eq!(servers.find(owner, project, &name("time")).await.unwrap(), mounted);
    let other = servers.find(owner, project, &name("other")).await;
    assert!(matches!(other, Err(ControlError::NotFound)), "{other:?}");

    let version = world.version(&servers).await;
    assert!(version > before);
    assert_eq!(servers.load(world.project, Some(version)).await.unwrap().servers, None, "nothing is new");
    assert_eq!(servers.load(world.project, Some(before)).await.unwrap().servers, Some(vec![mounted]));

    servers.unmount(owner, project, &name("time")).await.unwrap();
    assert!(world.version(&servers).await > version);
    assert_eq!(servers.list(owner, project).await.unwrap(), []);
    let again = servers.unmount(owner, project, &name("time")).await;
    assert!(matches!(again, Err(ControlError::NotFound)), "{again:?}");
    let record = fixture.audit_trail().await;
    let of_servers: Vec<_> = record.iter().filter(|event| event.kind.as_str().starts_with("mcp_")).collect();
    let kinds: Vec<_> = of_servers.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [AuditKind::McpServerMounted, AuditKind::McpServerUnmounted]);
    assert!(
        of_servers.iter().all(|event| event.user == Some(owner.user) && event.detail["server"] == "time")
    );
    assert_eq!(of_servers[0].detail["transport"]["secrets"], json!(["T"]));
}

/// Of two who accept what they saw, one is told that the other was faster.
pub async fn accepted_definitions_replace_the_ones_that_were_seen<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let servers = servers_of(fixture);
    let (owner, project) = (&world.owner, Some(world.project));
    world.mount(&servers, owner, "time", pins("first")).await.unwrap();
    let version = world.version(&servers).await;
    let seen = servers.find_to_change(owner, project, &name("time")).await.unwrap();
    let accepted = servers.accept(&seen, pins("second")).await.unwrap();
    assert_eq!(accepted.pins, pins("second"));
    assert!(accepted.updated_at > accepted.created_at && world.version(&servers).await > version);
    let late = servers.accept(&seen, pins("third")).await;
    assert!(matches!(late, Err(ControlError::Outdated)), "{late:?}");
    assert_eq!(servers.find(owner, project, &name("time")).await.unwrap(), accepted);

    let seen = servers.find_to_change(owner, project, &name("time")).await.unwrap();
    servers.unmount(owner, project, &name("time")).await.unwrap();
    let gone = servers.accept(&seen, pins("third")).await;
    assert!(matches!(gone, Err(ControlError::NotFound)), "{gone:?}");
    let record = fixture.audit_trail().await;
    let accepted = record.iter().filter(|event| event.kind == AuditKind::McpToolsAccepted).count();
    assert_eq!(accepted, 1, "only what took place is recorded");
}

/// Members see servers, those who write things change them, and others find nothing.
pub async fn a_viewer_sees_mcp_servers_and_a_stranger_nothing<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let servers = servers_of(fixture);
    let project = Some(world.project);
    world.mount(&servers, &world.owner, "time", pins("x")).await.unwrap();
    let (viewer, editor, stranger) = (
        fixture.account(Role::Member).await,
        fixture.account(Role::Member).await,
        fixture.account(Role::Member).await,
    );
    fixture.join(world.project, &viewer, ProjectRole::Viewer).await;
    fixture.join(world.project, &editor, ProjectRole::Editor).await;
    let reader = with_scopes(&world.owner, &[Scope::Read]);
    for caller in [&viewer, &reader] {
        assert_eq!(servers.list(caller, project).await.unwrap().len(), 1);
        let mounted = world.mount(&servers, caller, "other", pins("x")).await;
        assert!(matches!(mounted, Err(ControlError::Forbidden)), "{mounted:?}");
        let unmounted = servers.unmount(caller, project, &name("time")).await;
        assert!(matches!(unmounted, Err(ControlError::Forbidden)), "{unmounted:?}");
        let to_change = servers.find_to_change(caller, project, &name("time")).await;
        assert!(matches!(to_change, Err(ControlError::Forbidden)), "{to_change:?}");
    }
    let listed = servers.list(&stranger, project).await;
    assert!(matches!(listed, Err(ControlError::NotFound)), "{listed:?}");
    let mounted = world.mount(&servers, &stranger, "other", pins("x")).await;
    assert!(matches!(mounted, Err(ControlError::NotFound)), "{mounted:?}");
    let unmounted = servers.unmount(&stranger, project, &name("time")).await;
    assert!(matches!(unmounted, Err(ControlError::NotFound)), "{unmounted:?}");
    assert!(servers.list(&stranger, None).await.unwrap().is_empty(), "their own default project has none");
    world.mount(&servers, &editor, "other", pins("x")).await.unwrap();

    let allowed = servers.allow(&editor, project, name("third"), settings("time-server")).await.unwrap();
    fixture.change_account(&editor, Role::Member, false).await;
    let late = servers.mount(allowed, pins("x")).await;
    assert!(matches!(late, Err(ControlError::Revoked)), "{late:?}");
}

/// What the operator does not allow is refused before anything is started, and so is what does not fit.
pub async fn a_server_is_mounted_only_as_the_operator_and_the_bounds_allow<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let servers = servers_of(fixture);
    let (owner, project) = (&world.owner, Some(world.project));
    match servers.allow(owner, project, name("sh"), settings("sh")).await {
        Err(ControlError::Invalid(problems)) => {
            assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/transport/command");
        }
        other => panic!("{other:?}"),
    }
    let large = |part: usize| -> McpPins {
        [("t".to_owned(), Value::String("x".repeat(MAX_MCP_PINS_BYTES / part)))].into()
    };
    world.mount(&servers, owner, "s0", large(2)).await.unwrap();
    assert_eq!(conflict(world.mount(&servers, owner, "s0", pins("x")).await), Conflict::McpServerExists);
    assert_eq!(conflict(world.mount(&servers, owner, "s1", large(2)).await), Conflict::McpToolsTooLarge);
    let seen = servers.find_to_change(owner, project, &name("s0")).await.unwrap();
    assert_eq!(conflict(servers.accept(&seen, large(1)).await), Conflict::McpToolsTooLarge);
    servers.accept(&seen, large(3)).await.unwrap();
    for number in 1..MAX_MCP_SERVERS {
        world.mount(&servers, owner, &format!("s{number}"), pins("x")).await.unwrap();
    }
    let one_more = world.mount(&servers, owner, "more", pins("x")).await;
    assert_eq!(conflict(one_more), Conflict::TooManyMcpServers);
}

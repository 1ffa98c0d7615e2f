//! MCP servers of a project: mounted, called by pipelines and agents, changed, killed, unmounted.

mod notices;
mod questions;
mod world;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gathering_e2e::{Client, Database, Server, pipeline, wait_until, workspace_root};
use gathering_test_packages::python;
use reqwest::Method;
use serde_json::{Value, json};

use self::world::{Scripted, World, definitions, invoke, start, statuses, text, until_gone};

const LIMIT: Duration = Duration::from_secs(60);
const VALUE: &str = "t0ken-of/the+project";
const SERVERS: &str = "/api/v1/mcp/servers";

/// Real servers, as the tests of the client mount them.
const PACKAGES: [&str; 4] = [
    "mcp==2.3.0",
    "mcp-server-time==2026.10.19",
    "mcp-server-git==2026.10.19",
    "mcp-server-fetch==2026.10.24",
];

#[tokio::test(flavor = "multi_thread")]
async fn tools_of_a_mounted_server_are_tools_of_its_project() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let (world, scripted) = (World::new(&server).await?, Scripted::new()?);
    let ada = &world.ada;
    let mounted = world.mount("scripted", &scripted.stdio()).await?.expect(201)?;
    assert_eq!(statuses(&mounted).len(), 7);
    assert!(statuses(&mounted).iter().all(|(_, status)| *status == "accepted"), "{mounted}");
    assert_eq!(
        (&mounted["tools"][0]["class"], &mounted["connection"]["state"]),
        (&json!("unsafe"), &json!("connected"))
    );
    assert_eq!(mounted["transport"]["env"]["API_TOKEN"], "${{ secrets.API_TOKEN }}");
    let listed = ada.get(&world.path("")).await?.expect(200)?;
    assert_eq!(
        (listed["items"].as_array().map(Vec::len), &listed["items"][0]["name"]),
        (Some(1), &json!("scripted"))
    );

    let path = |name: &str| format!("/api/v1/tools{name}?limit=200&project_id={}", world.project);
    let tools = ada.get(&path("")).await?.expect(200)?;
    let sources: Vec<&Value> =
        tools["items"].as_array().context("items")?.iter().map(|tool| &tool["source"]).collect();
    assert_eq!(sources.iter().filter(|source| **source == "mcp:scripted").count(), 7);
    assert!(sources.iter().any(|source| **source == "builtin"));
    let elsewhere = ada.get("/api/v1/tools?limit=200").await?.expect(200)?;
    assert!(!elsewhere.to_string().contains("mcp:scripted"));
    let echo = format!("/api/v1/tools/scripted__echo?project_id={}", world.project);
    assert_eq!(ada.get(&echo).await?.expect(200)?["parameters"]["required"], json!(["text"]));
    ada.get("/api/v1/tools/scripted__echo").await?.expect_problem(404, "not-found")?;

    let bad = world.invoke("scripted__echo", json!({"txt": 1})).await?;
    bad.expect_problem(422, "invalid")?;
    assert_eq!(bad.pointers(), ["/params/text", "/params/txt"]);
    assert_eq!(world.text("scripted__echo", json!({"text": "hi"})).await?, r#"{"text": "hi"}"#);
    let first = world.text("scripted__pid", json!({})).await?;
    assert_eq!(world.text("scripted__pid", json!({})).await?, first, "calls share a process");

    let node = |params: Value| json!({"id": "say", "type": "tool", "config": {"tool": "scripted__echo", "params": params}});
    let define = async |definition: Value| {
        ada.post(
            "/api/v1/pipelines",
            &json!({"name": "p", "project_id": world.project, "definition": definition}),
        )
        .await
    };
    let bad = define(pipeline(&[node(json!({"text": 1}))], &[])).await?;
    assert_eq!(bad.pointers(), ["/definition/nodes/0/config/params/text"]);
    let mut unknown = node(json!({}));
    unknown["config"]["tool"] = json!("other__echo");
    assert_eq!(define(pipeline(&[unknown], &[])).await?.pointers(), ["/definition/nodes/0/config/tool"]);
    let instructions = "scripted: call scripted__echo {\"text\": \"from an agent\"}";
    let agent = json!({"provider": "scripted", "instructions": instructions, "tools": ["scripted__echo"]});
    let agent =
        json!({"id": "agent", "type": "agent", "config": {"agent": agent, "prompt": "One sentence."}});
    let made = define(pipeline(&[node(json!({"text": "${{ 'com' + 'puted' }}"})), agent], &[]))
        .await?
        .expect(201)?;
    let run = ada.start_run(made["id"].as_str().context("id")?).await?;
    let run = ada.run_in(&run, &["succeeded", "failed"], LIMIT).await?;
    assert_eq!(run["state"], "succeeded", "{run}");
    let journal = ada
        .get(&format!("/api/v1/runs/{}/journal?limit=200", run["id"].as_str().unwrap_or_default()))
        .await?;
    assert!(journal.text.contains("from an agent") && journal.text.contains("computed"), "{}", journal.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_tool_waits_until_somebody_accepts_it() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = start(&database).await?;
    let (world, scripted) = (World::new(&server).await?, Scripted::new()?);
    let ada = &world.ada;
    let mounted = world.mount("scripted", &scripted.stdio()).await?.expect(201)?;
    let process = world.text("scripted__pid", json!({})).await?;
    let kill = Command::new("kill").args(["-9", &process]).status()?;
    ensure!(kill.success());
    until_gone(&process).await?;
    let next = world.text("scripted__pid", json!({})).await?;
    assert_ne!(next, process, "the next call has another process");

    let died = world.invoke("scripted__die", json!({})).await?;
    died.expect_problem(424, "tool-failed")?;
    assert!(died.text.contains("the licence of hunter has ended [secret API_TOKEN]"), "{}", died.text);
    assert!(!died.text.contains(VALUE));
    let mut changed = definitions("Says it again, and sends it to everybody");
    changed[1] = json!({"name": "pid2", "description": "another", "inputSchema": {"type": "object"}});
    scripted.define(&changed)?;
    let refused = world.invoke("scripted__echo", json!({"text": "hi"})).await?;
    // Started after the change, or just before it.
    if refused.status == 200 {
        let _ = world.invoke("scripted__die", json!({})).await?;
    }
    let refused = world.invoke("scripted__echo", json!({"text": "hi"})).await?;
    refused.expect_problem(424, "tool-failed")?;
    assert!(refused.text.contains("changed its description"), "{}", refused.text);

    let shown = ada.get(&world.path("/scripted")).await?.expect(200)?;
    let status =
        |name: &str| statuses(&shown).into_iter().find(|(tool, _)| *tool == name).map(|(_, status)| status);
    assert_eq!(status("scripted__echo"), Some("changed"));
    assert_eq!(status("scripted__pid"), Some("removed"));
    assert_eq!(status("scripted__pid2"), Some("new"));
    assert_eq!(status("scripted__secret"), Some("accepted"));
    let change = &shown["tools"][0]["changes"][0];
    assert_eq!((&change["field"], &change["old"]), (&json!("description"), &json!("Says it again")));
    assert_ne!(shown["digest"], mounted["digest"]);
    let accept = async |client: &Client, digest: &Value| {
        client.post(&world.path("/scripted/accept"), &json!({"digest": digest})).await
    };
    accept(ada, &mounted["digest"]).await?.expect_problem(412, "precondition-failed")?;

    // Another instance knows what the first one stored, and the first one what the other accepts.
    let mut second = start(&database).await?;
    let there = second.client().login("ada@example.org").await?;
    let accepted = accept(&there, &shown["digest"]).await?.expect(200)?;
    assert!(statuses(&accepted).iter().all(|(_, status)| *status == "accepted"), "{accepted}");
    assert_eq!(world.text("scripted__echo", json!({"text": "hi"})).await?, r#"{"text": "hi"}"#);
    world.invoke("scripted__pid", json!({})).await?.expect_problem(404, "not-found")?;
    let first_end = server.stop(LIMIT).await?;
    assert_eq!(first_end.code, Some(0), "it ends in order");
    let still = text(invoke(&there, &world.project, "scripted__echo", json!({"text": "there"})).await?)?;
    assert_eq!(still, r#"{"text": "there"}"#);

    let unmounted = there.delete(&world.path("/scripted")).await?;
    assert_eq!(unmounted.status, 204, "{}", unmounted.text);
    invoke(&there, &world.project, "scripted__echo", json!({"text": "x"}))
        .await?
        .expect_problem(404, "not-found")?;
    there.get(&world.path("/scripted")).await?.expect_problem(404, "not-found")?;
    let session = database.session().await?;
    let audit =
        session.query("SELECT type FROM audit_events WHERE type LIKE 'mcp_%' ORDER BY at", &[]).await?;
    let audit: Vec<&str> = audit.iter().map(|row| row.get(0)).collect();
    assert_eq!(audit, ["mcp_server_mounted", "mcp_tools_accepted", "mcp_server_unmounted"]);
    let second_end = second.stop(LIMIT).await?;
    assert_eq!(second_end.code, Some(0));
    let children = Command::new("pgrep").args(["-f", &scripted.file().display().to_string()]).output()?;
    assert!(children.stdout.is_empty(), "a process is left: {}", String::from_utf8_lossy(&children.stdout));
    assert!(!first_end.stderr.contains(VALUE) && !second_end.stderr.contains(VALUE));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_or_floods_costs_its_own_call_only() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let (world, scripted) = (World::new(&server).await?, Scripted::new()?);
    world.mount("scripted", &scripted.stdio()).await?.expect(201)?;
    let first = world.text("scripted__pid", json!({})).await?;
    let body = json!({"params": {}, "project_id": world.project, "timeout_seconds": 1.5});
    let hanging = world.ada.post("/api/v1/tools/scripted__hang/invoke", &body);
    let (hung, said, flooded) = tokio::join!(
        hanging,
        world.text("scripted__echo", json!({"text": "meanwhile"})),
        world.text("scripted__flood", json!({}))
    );
    assert_eq!(hung?.status, 424);
    assert_eq!((said?.as_str(), flooded?.as_str()), (r#"{"text": "meanwhile"}"#, "{}"));
    assert_eq!(world.text("scripted__pid", json!({})).await?, first, "the process was not ended for it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_over_http_gets_the_secret_and_nobody_is_shown_it() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (world, scripted) = (World::new(&server).await?, Scripted::new()?);
    let http = scripted.http()?;
    let headers = json!({"Authorization": "Bearer ${{ secrets.API_TOKEN }}"});
    let transport = json!({"type": "http", "url": http.1, "headers": headers});
    let mounted = world.mount("web", &transport).await?;
    assert!(!mounted.text.contains(VALUE));
    assert_eq!(mounted.expect(201)?["transport"]["headers"], headers);
    let said = world.text("web__secret", json!({})).await?;
    assert_eq!(said, "None Bearer [secret API_TOKEN]", "the server got it, and the result is redacted");
    // A new value is used by the next call.
    let secret = format!("/api/v1/projects/{}/secrets/API_TOKEN", world.project);
    world.ada.put(&secret, &json!({"value": "another-value"})).await?.expect(204)?;
    assert_eq!(world.text("web__secret", json!({})).await?, "None Bearer [secret API_TOKEN]");
    world.ada.delete(&secret).await?.expect(204)?;
    let missing = world.invoke("web__secret", json!({})).await?;
    missing.expect_problem(424, "tool-failed")?;
    assert!(missing.text.contains("no secret `API_TOKEN`"), "{}", missing.text);

    let mut leaking = definitions("Says it again");
    leaking[0]["description"] = json!(format!("Use {VALUE}"));
    scripted.define(&leaking)?;
    world.ada.put(&secret, &json!({"value": VALUE})).await?.expect(201)?;
    let leaked = world.mount("leak", &transport).await?;
    leaked.expect_problem(422, "invalid")?;
    assert!(!leaked.text.contains(VALUE), "{}", leaked.text);
    // The mount, the first call, the call with the new value, and the mount of the other one.
    let session = database.session().await?;
    let recorded = async || {
        let statement =
            "SELECT detail::text FROM audit_events WHERE type = 'secret_used' ORDER BY detail::text";
        let rows = session.query(statement, &[]).await.map_err(|error| error.to_string())?;
        let details: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if details.len() >= 4 { Ok(details) } else { Err(format!("{details:?}")) }
    };
    let recorded: Vec<Value> = wait_until(LIMIT, "the uses are recorded", recorded)
        .await?
        .iter()
        .map(|detail| serde_json::from_str(detail))
        .collect::<Result<_, _>>()?;
    let of = |name: &str| json!({"project": world.project, "mcp_server": name, "secret": "API_TOKEN"});
    let of_web = recorded.iter().filter(|detail| **detail == of("web")).count();
    assert_eq!((recorded.len(), of_web, recorded.contains(&of("leak"))), (4, 3, true), "{recorded:?}");
    assert!(!server.log().contains(VALUE));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_or_does_not_answer_is_not_mounted() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let (world, scripted) = (World::new(&server).await?, Scripted::new()?);
    let http = |url: &str, more: Value| {
        let mut transport = json!({"type": "http", "url": url});
        transport
            .as_object_mut()
            .into_iter()
            .for_each(|fields| fields.extend(more.as_object().cloned().unwrap_or_default()));
        transport
    };
    let dying = json!({"type": "stdio", "command": "python3", "env": {"API_TOKEN": "${{ secrets.API_TOKEN }}"},
        "args": ["-c", "import os, sys; sys.exit('no licence for ' + os.environ['API_TOKEN'])"]});
    for (transport, pointer, words) in [
        (json!({"type": "stdio", "command": "sh"}), "/transport/command", "GATHERING_MCP_COMMANDS"),
        (
            json!({"type": "stdio", "command": "python3", "env": {"LD_PRELOAD": "x.so"}}),
            "/transport/env/LD_PRELOAD",
            "",
        ),
        (
            json!({"type": "stdio", "command": "python3", "url": "https://x.example"}),
            "/transport/url",
            "stdio",
        ),
        (
            http("https://x.example", json!({"headers": {"Authorization": "Bearer abc"}})),
            "/transport/headers/Authorization",
            "secrets.NAME",
        ),
        (
            http("https://x.example", json!({"auth": {"type": "bearer", "token": "abc"}})),
            "/transport/auth/token",
            "secrets.NAME",
        ),
        (http("http://127.0.0.1:1/mcp", json!({})), "/transport", "127.0.0.1"),
        (http("http://10.1.2.3/mcp", json!({})), "/transport", "10.1.2.3"),
        (
            http("https://x.example", json!({"auth": {"type": "bearer", "token": "${{ secrets.NONE }}"}})),
            "/transport",
            "no secret `NONE`",
        ),
        (dying, "/transport", "no licence for [secret API_TOKEN]"),
    ] {
        let refused = world.mount("x", &transport).await?;
        refused.expect_problem(422, "invalid").with_context(|| transport.to_string())?;
        assert_eq!(refused.pointers(), [pointer], "{}", refused.text);
        assert!(refused.text.contains(words) && !refused.text.contains(VALUE), "{}", refused.text);
    }
    for name in ["", "a__b", "a b", &"x".repeat(25)] {
        assert_eq!(world.mount(name, &scripted.stdio()).await?.status, 422, "{name}");
    }
    assert_eq!(world.ada.get(&world.path("")).await?.expect(200)?["items"], json!([]));

    world.mount("scripted", &scripted.stdio()).await?.expect(201)?;
    world.mount("scripted", &scripted.stdio()).await?.expect_problem(409, "conflict")?;
    let bob = server.client().join("bob@example.org").await?;
    let body = json!({"project_id": world.project, "name": "mine", "transport": scripted.stdio()});
    for reply in [
        bob.get(&world.path("")).await?,
        bob.get(&world.path("/scripted")).await?,
        bob.post(SERVERS, &body).await?,
        bob.post(&world.path("/scripted/accept"), &json!({"digest": "x"})).await?,
        bob.delete(&world.path("/scripted")).await?,
        bob.get(&format!("/api/v1/tools?project_id={}", world.project)).await?,
        invoke(&bob, &world.project, "scripted__echo", json!({"text": "x"})).await?,
    ] {
        reply.expect_problem(404, "not-found")?;
    }
    assert_eq!(bob.get(SERVERS).await?.expect(200)?["items"], json!([]), "his own default project has none");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_pypi_tells_the_pipeline_of_the_example_the_time() -> Result<()> {
    let python = python(&PACKAGES)?.display().to_string();
    let database = Database::empty().await?;
    let configure = |command: &mut Command| {
        command.env("GATHERING_MCP_COMMANDS", &python).env("GATHERING_MCP_ALLOWANCE", "pure");
    };
    let server = Server::start_with(&database, configure).await?;
    let ada = server.client().join("ada@example.org").await?;
    // The tests share a slow machine, so what it speaks is said. Everything goes into the default project.
    let transport = json!({"type": "stdio", "command": python, "args": ["-m", "mcp_server_time"]});
    let body = json!({"name": "time", "transport": transport, "protocol": "2026-07-28", "allow": "pure"});
    let mounted = ada.post(SERVERS, &body).await?.expect(201)?;
    assert_eq!(mounted["connection"]["protocol_version"], "2026-07-28");
    let example = std::fs::read_to_string(workspace_root()?.join("examples/meeting-time.yaml"))?;
    let request = ada.request(Method::POST, "/api/v1/pipelines").header("content-type", "application/yaml");
    let made = ada.send(request.body(example)).await?.expect(201)?;
    let run = ada.start_run(made["id"].as_str().context("id")?).await?;
    let run = ada.run_in(&run, &["succeeded", "failed"], LIMIT).await?;
    assert_eq!(run["state"], "succeeded", "{run}");
    assert!(run["output"].as_str().is_some_and(|text| text.contains("Asia/Tokyo")), "{run}");
    Ok(())
}

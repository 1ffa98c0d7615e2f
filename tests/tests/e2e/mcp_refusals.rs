//! What `/mcp` refuses: wrong values in every place, and the calls of callers who may not make them. Nothing of it is an
//! error of the server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gathering_e2e::{Answer, Client, Database, Peer, Reply, Server, begin, call as call_api, pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

const MODERN: &str = "2026-07-28";

/// A list in a list, so many times.
fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

/// Values of every type; in each place most of them are wrong.
fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(9_007_199_254_740_993_u64),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("a\u{0}b"),
        json!("ä\u{202e}\u{feff}"),
        json!("x".repeat(100_000)),
        json!("../../etc/passwd"),
        json!("00000000-0000-0000-0000-000000000000"),
        json!([]),
        json!([[1, {"a": null}]]),
        json!({}),
        json!({"a": {"b": [1]}}),
        deep(110),
    ]
}

/// Every message with one wrong value, in the older form.
fn messages(run: &str, pipeline: &str) -> Vec<Value> {
    let call = |tool: &str, arguments: Value| json!({"name": tool, "arguments": arguments});
    let methods = [
        ("tools/call", call("list_pipelines", json!({"project_id": "x", "limit": 1}))),
        (
            "tools/call",
            call(
                "start_run",
                json!({"pipeline_id": pipeline, "input": {}, "version": 1, "idempotency_key": "k"}),
            ),
        ),
        (
            "tools/call",
            call(
                "list_runs",
                json!({"state": "queued", "pipeline_id": pipeline, "project_id": "x", "limit": 1}),
            ),
        ),
        ("tools/call", call("get_run", json!({"run_id": run}))),
        (
            "tools/call",
            call("rerun_run", json!({"run_id": run, "from": "start", "input": {}, "idempotency_key": "k"})),
        ),
        (
            "tools/call",
            call("decide_node", json!({"run_id": run, "node_id": "x", "approve": true, "comment": "c"})),
        ),
        ("tools/call", call("cancel_run", json!({"run_id": run}))),
        ("tools/call", call("as_a_tool", json!({"n": 1}))),
        ("tools/list", json!({"cursor": "x"})),
        ("resources/list", json!({"cursor": "x"})),
        ("resources/templates/list", json!({"cursor": "x"})),
        ("resources/read", json!({"uri": format!("gathering://runs/{run}/output")})),
        ("tasks/get", json!({"taskId": run})),
        ("tasks/cancel", json!({"taskId": run})),
        ("tasks/result", json!({"taskId": run})),
        ("initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})),
        ("ping", json!({"_meta": {}})),
        ("server/discover", json!({"_meta": {}})),
    ];
    let mut messages = Vec::new();
    for (method, params) in methods {
        let mut places: Vec<String> = params
            .as_object()
            .into_iter()
            .flat_map(|params| params.keys())
            .map(|name| format!("/{name}"))
            .collect();
        let arguments = params["arguments"].as_object().into_iter().flat_map(|arguments| arguments.keys());
        places.extend(arguments.map(|name| format!("/arguments/{name}")));
        for (place, value) in
            places.iter().flat_map(|place| values().into_iter().map(move |value| (place, value)))
        {
            let mut params = params.clone();
            if let Some(there) = params.pointer_mut(place) {
                *there = value;
            }
            messages.push(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        }
        for value in values() {
            let mut with_more = params.clone();
            with_more["_meta"] = value.clone();
            with_more["task"] = value.clone();
            messages.push(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": with_more}));
            messages.push(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": value}));
        }
    }
    for value in values() {
        messages.push(json!({"jsonrpc": value, "id": 1, "method": "ping"}));
        messages.push(json!({"jsonrpc": "2.0", "id": value, "method": "ping"}));
        messages.push(json!({"jsonrpc": "2.0", "id": 1, "method": value}));
        messages.push(json!({"jsonrpc": "2.0", "method": value, "params": value}));
        messages.push(value);
    }
    messages
}

/// Checks that a message was answered, or refused as the client's mistake.
fn check(message: &Value, answered: &Reply) -> Result<()> {
    let about = || format!("{:.300}: {} {:.500}", message.to_string(), answered.status, answered.text);
    ensure!(matches!(answered.status, 200 | 202 | 400 | 404), "{}", about());
    let code = &answered.body["error"]["code"];
    // A run that has not ended has no result yet.
    let may_come_later = message["method"] == "tasks/result";
    ensure!(*code != json!(-32603) || may_come_later, "{}", about());
    ensure!(!answered.text.contains("internal error"), "{}", about());
    Ok(())
}

fn errors_in(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect()
}

/// Calls a tool in the older form.
async fn call(client: &Client, tool: &str, arguments: Value) -> Result<Value> {
    let params = json!({"name": tool, "arguments": arguments});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    Ok(client.post("/mcp", &message).await?.expect(200)?["result"].clone())
}

fn text_of(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_values_in_every_place_are_never_an_error_of_the_server() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut definition = pipeline(&[begin()], &[]);
    definition["tool"] = json!({"name": "as_a_tool"});
    let id = ada.create_pipeline(&definition).await?;
    let run = ada.start_run(&id).await?;
    ada.run_in(&run, &["succeeded"], LIMIT).await?;
    for message in messages(&run, &id) {
        check(&message, &ada.post("/mcp", &message).await?)?;
    }
    for (name, value) in
        [("mcp-protocol-version", "ä"), ("mcp-method", "ping\tping"), ("mcp-name", "=?base64?x?=")]
    {
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        check(&ping, &ada.with_header(name, value).post("/mcp", &ping).await?)?;
    }
    for n in 0..1000 {
        let unknown = json!({"jsonrpc": "2.0", "id": n, "method": format!("unknown/{n}")});
        let refused = ada.post("/mcp", &unknown).await?.expect(200)?;
        assert_eq!((&refused["error"]["code"], &refused["id"]), (&json!(-32601), &json!(n)));
    }
    for body in [
        "",
        "{",
        "nul",
        "[]",
        "[1]",
        "\"",
        "{}",
        &"[".repeat(1_000_000),
        "{\"id\":1,\"id\":2,\"jsonrpc\":\"2.0\"}",
    ] {
        let request = ada.request(reqwest::Method::POST, "/mcp").header("content-type", "application/json");
        let refused = ada.send(request.body(body.to_owned())).await?;
        assert_eq!(refused.status, 400, "{body:.20}: {}", refused.text);
    }
    server.client().get("/health/ready").await?.expect(200)?;
    assert_eq!(errors_in(&server.log()), Vec::<&str>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_a_run_could_not_keep_is_refused_at_its_place() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut definition = pipeline(&[begin()], &[]);
    definition["tool"] = json!({"name": "as_a_tool"});
    let id = ada.create_pipeline(&definition).await?;
    let run = ada.start_run(&id).await?;
    ada.run_in(&run, &["succeeded"], LIMIT).await?;
    for (tool, arguments, place) in [
        ("start_run", json!({"pipeline_id": id, "input": deep(101)}), "/input"),
        ("rerun_run", json!({"run_id": run, "from": "start", "input": deep(101)}), "/input"),
        ("as_a_tool", json!({"n": deep(101)}), ""),
    ] {
        let refused = call(&ada, tool, arguments).await?;
        assert_eq!(refused["isError"], true, "{tool}");
        let said = format!("{place}: is nested more than 100 levels deep");
        assert!(text_of(&refused).contains(&said), "{tool}: {refused}");
    }
    // The output of the run has two levels more.
    let taken = call(&ada, "start_run", json!({"pipeline_id": id, "input": deep(98)})).await?;
    assert_eq!(taken["structuredContent"]["state"], "succeeded", "{taken}");

    let ask = json!({"id": "ask", "type": "approval", "config": {"message": "Pay?"}});
    let asking = ada.create_pipeline(&pipeline(&[ask], &[])).await?;
    let run = ada.start_run(&asking).await?;
    ada.run_in(&run, &["waiting"], LIMIT).await?;
    for comment in ["a\u{0}b".to_owned(), "x".repeat(10_001)] {
        let decision = json!({"run_id": run, "node_id": "ask", "approve": true, "comment": comment});
        let refused = call(&ada, "decide_node", decision).await?;
        assert!(text_of(&refused).contains("invalid arguments: /comment: "), "{refused}");
        let accepted = json!({"action": "accept", "content": {"approve": true, "comment": comment}});
        let params = json!({"taskId": run, "inputResponses": {"ask": accepted},
            "_meta": {"io.modelcontextprotocol/protocolVersion": MODERN}});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/update", "params": params});
        let client =
            ada.with_header("mcp-protocol-version", MODERN).with_header("mcp-method", "tasks/update");
        let refused = client.with_header("mcp-name", &run).post("/mcp", &message).await?.expect(200)?;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
        let said = refused["error"]["message"].as_str().context("a message")?;
        assert!(said.contains("/inputResponses/ask/content/comment: "), "{said}");
    }
    assert_eq!(ada.get(&format!("/api/v1/runs/{run}")).await?.expect(200)?["state"], "waiting");
    assert_eq!(errors_in(&server.log()), Vec::<&str>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_scope_to_run_only_reads() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let ask = json!({"id": "ask", "type": "approval", "config": {"message": "Pay?"}});
    let mut definition = pipeline(&[ask], &[]);
    definition["tool"] = json!({"name": "as_a_tool"});
    let id = ada.create_pipeline(&definition).await?;
    let run = ada.start_run(&id).await?;
    ada.run_in(&run, &["waiting"], LIMIT).await?;
    let (reader, _) = ada.create_key(&["read"]).await?;
    for (tool, arguments) in [
        ("start_run", json!({"pipeline_id": id})),
        ("as_a_tool", json!({})),
        ("rerun_run", json!({"run_id": run, "from": "start"})),
        ("decide_node", json!({"run_id": run, "node_id": "ask", "approve": true})),
        ("cancel_run", json!({"run_id": run})),
    ] {
        let refused = call(&reader, tool, arguments).await?;
        assert!(
            refused["isError"] == true && text_of(&refused).contains("do not allow this"),
            "{tool}: {refused}"
        );
    }
    let cancel = json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/cancel", "params": {"taskId": run}});
    let refused = reader.post("/mcp", &cancel).await?.expect(200)?;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    assert_eq!(
        call(&reader, "get_run", json!({"run_id": run})).await?["structuredContent"]["state"],
        "waiting"
    );
    let listed = call(&reader, "list_runs", json!({})).await?;
    assert_eq!(listed["structuredContent"]["runs"].as_array().map(Vec::len), Some(1), "nothing was started");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_a_file_inside_its_project_only() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("hers").await?;
    ada.put_bytes(&format!("/api/v1/projects/{project}/files/a.md"), "rivers").await?.expect(201)?;
    let files = database.files_of(&project);
    std::fs::write(database.data_dir().join("outside.md"), "secret")?;
    std::os::unix::fs::symlink(database.data_dir().join("outside.md"), files.join("link.md"))?;
    let read = async |path: &str| -> Result<Value> {
        let params = json!({"uri": format!("gathering://projects/{project}/files/{path}")});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": params});
        ada.post("/mcp", &message).await?.expect(200)
    };
    assert_eq!(read("a.md").await?["result"]["contents"][0]["text"], "rivers");
    let absolute = format!("/{}", database.data_dir().join("outside.md").display());
    for path in
        ["../outside.md", "%2e%2e/outside.md", "..%2foutside.md", "link.md", &absolute, "%00", "", ".", "%ff"]
    {
        let refused = read(path).await?;
        let code = &refused["error"]["code"];
        assert!([json!(-32602), json!(-32002)].contains(code), "{path}: {refused}");
        assert!(!refused.to_string().contains("secret"), "{path}");
    }
    assert_eq!(errors_in(&server.log()), Vec::<&str>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pipelines_with_one_name_each_is_called_by_its_own() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    for n in [1, 2] {
        let mut definition = pipeline(&[begin()], &[]);
        definition["tool"] = json!({"name": "same"});
        definition["output"] = json!(format!("{{\"n\": {n}}}"));
        ada.create_pipeline(&definition).await?;
    }
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let tools = ada.post("/mcp", &list).await?.expect(200)?["result"]["tools"].clone();
    let tools = tools.as_array().context("tools")?;
    let mut same =
        tools.iter().filter_map(|tool| tool["name"].as_str()).filter(|name| name.starts_with("same"));
    for (n, name) in [1, 2].into_iter().zip([same.next(), same.next()]) {
        let output =
            call(&ada, name.context("two tools")?, json!({})).await?["structuredContent"]["output"].clone();
        assert_eq!(output, json!({ "n": n }), "{name:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_output_is_a_resource_and_a_smaller_one_is_not() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut definition = pipeline(&[begin()], &[]);
    definition["output"] = json!("input.text");
    let id = ada.create_pipeline(&definition).await?;
    for (n_bytes, is_resource) in [(256 * 1024 - 2, false), (256 * 1024 - 1, true)] {
        let text = "x".repeat(n_bytes);
        let run = call(&ada, "start_run", json!({"pipeline_id": id, "input": {"text": text}})).await?;
        let run = &run["structuredContent"];
        assert_eq!(
            (run.get("output").is_some(), run.get("output_uri").is_some()),
            (!is_resource, is_resource)
        );
        if let Some(uri) = run["output_uri"].as_str() {
            let read = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}});
            let read = ada.post("/mcp", &read).await?.expect(200)?;
            let output = read["result"]["contents"][0]["text"].as_str().context("a text")?;
            assert_eq!(serde_json::from_str::<Value>(output)?, json!(text));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_its_run_though_the_instance_that_drives_it_dies() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| match request.nth {
        0 => Answer::held(json!({})),
        _ => Answer::now(200, json!({})),
    })
    .await?;
    let mut driver = Server::start(&database).await?;
    let ada = driver.client().join("ada@example.org").await?;
    let mut read = call_api("read", &peer.url("/read"));
    read["config"]["method"] = json!("GET");
    let id = ada.create_pipeline(&pipeline(&[read], &[])).await?;
    let run = ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    let other = Server::start(&database).await?;
    let elsewhere = other.client().login("ada@example.org").await?;
    let result = json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/result", "params": {"taskId": run}});
    // The other instance needs a second to recover the run, so the call waits before and after the death.
    let (answered, killed) = tokio::join!(elsewhere.post("/mcp", &result), async { driver.kill() });
    killed?;
    let answered = answered?.expect(200)?;
    assert_eq!(answered["result"]["structuredContent"]["state"], "succeeded", "{answered}");
    assert_eq!(peer.n_requests(), 2);
    Ok(())
}

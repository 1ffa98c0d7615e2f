//! Pipelines over HTTP: checked, created, listed.

use anyhow::Result;
use gathering_e2e::{Client, Database, Reply, Server, begin, call, pipeline};
use reqwest::Method;
use serde_json::{Value, json};

fn diamond() -> Value {
    let nodes = ["left", "right", "end"].map(|id| json!({"id": id, "type": "parallel"}));
    let mut all = vec![begin()];
    all.extend(nodes);
    pipeline(&all, &[("begin", "left"), ("begin", "right"), ("left", "end"), ("right", "end")])
}

/// Wrong in five places.
fn broken() -> Value {
    json!({
        "nodes": [
            {"id": "a", "type": "trigger"},
            {"id": "a", "type": "fly"},
            {"id": "c", "type": "condition", "config": {"expression": "1 +"}},
            {"id": "d", "type": "action", "config": {"action": "call_api"}}
        ],
        "edges": [{"from": "a", "to": "nowhere"}]
    })
}

const BROKEN_AT: [&str; 5] =
    ["/nodes/1/id", "/nodes/1/type", "/nodes/2/config/expression", "/nodes/3/config/url", "/edges/0/to"];

fn list(errors: &Value) -> &[Value] {
    errors.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn pointer(error: &Value) -> &str {
    error["pointer"].as_str().unwrap_or_default()
}

fn pointers(errors: &Value) -> Vec<&str> {
    list(errors).iter().map(pointer).collect()
}

async fn post_yaml(client: &Client, path: &str, yaml: &'static str) -> Result<Reply> {
    send_yaml(client, Method::POST, path, yaml).await
}

async fn send_yaml(client: &Client, method: Method, path: &str, yaml: &'static str) -> Result<Reply> {
    let request = client.request(method, path).header("content-type", "application/yaml");
    client.send(request.body(yaml)).await
}

/// The place of each thing that is wrong: a pointer, a line and a column.
fn places(errors: &[Value]) -> Vec<(&str, u64, u64)> {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    errors.iter().map(|error| (pointer(error), number(&error["line"]), number(&error["column"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_answers_with_the_order_or_with_every_problem() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let valid = ada.post("/api/v1/pipelines/validate", &diamond()).await?.expect(200)?;
    assert_eq!((&valid["valid"], &valid["errors"]), (&json!(true), &json!([])), "{valid}");
    assert_eq!(valid["levels"], json!([["begin"], ["left", "right"], ["end"]]));
    let order: Vec<_> = valid["order"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!((order.first(), order.last(), order.len()), (Some(&"begin"), Some(&"end"), 4));
    let invalid = ada.post("/api/v1/pipelines/validate", &broken()).await?.expect(200)?;
    assert_eq!(invalid["valid"], false);
    for pointer in BROKEN_AT {
        assert!(pointers(&invalid["errors"]).contains(&pointer), "{pointer} in {invalid}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_definition_names_every_problem_and_stores_nothing() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let body = json!({"name": "broken", "definition": broken()});
    let refused = ada.post("/api/v1/pipelines", &body).await?.expect(422)?;
    for pointer in BROKEN_AT {
        let pointer = format!("/definition{pointer}");
        assert!(pointers(&refused["errors"]).contains(&pointer.as_str()), "{pointer} in {refused}");
    }
    assert_eq!(ada.get("/api/v1/pipelines").await?.expect(200)?["items"], json!([]));
    let session = database.session().await?;
    for table in ["pipelines", "pipeline_versions", "graphs"] {
        let n_rows: i64 = session.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await?.get(0);
        assert_eq!(n_rows, 0, "{table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_comes_back_as_it_was_written() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let body = json!({"name": "diamond", "description": "of four", "definition": diamond()});
    let reply = ada.post("/api/v1/pipelines", &body).await?;
    let (location, created) = (reply.header("location").to_owned(), reply.expect(201)?);
    assert_eq!((&created["name"], &created["version"]), (&json!("diamond"), &json!(1)), "{created}");
    let shown = ada.get(&location).await?.expect(200)?;
    assert_eq!((&shown["id"], &shown["definition"]), (&created["id"], &diamond()), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn yaml_is_accepted_as_json_is() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let alone = "name: of yaml\nnodes:\n  - {id: begin, type: trigger}\n";
    let created = post_yaml(&ada, "/api/v1/pipelines", alone).await?.expect(201)?;
    assert_eq!(created["name"], "of yaml");
    let wrapped = "name: wrapped\ndefinition:\n  nodes:\n    - {id: begin, type: trigger}\n";
    assert_eq!(post_yaml(&ada, "/api/v1/pipelines", wrapped).await?.expect(201)?["name"], "wrapped");
    let valid = post_yaml(&ada, "/api/v1/pipelines/validate", alone).await?.expect(200)?;
    assert_eq!(valid["valid"], true, "{valid}");
    let broken = post_yaml(&ada, "/api/v1/pipelines", "nodes: [").await?.expect(400)?;
    assert_eq!(broken["type"], "/problems/malformed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_the_same_in_yaml_and_has_its_line_and_column_there() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let pipeline = format!("/api/v1/pipelines/{}", ada.create_pipeline(&diamond()).await?);
    let runs = format!("{pipeline}/runs");
    let alone = "name: x\nnodes:\n  - {id: a, name: é, type: fly}\n  - id: b\nspeed: 1\n";
    let is_alone =
        json!({"name": "x", "nodes": [{"id": "a", "name": "é", "type": "fly"}, {"id": "b"}], "speed": 1});
    let in_wrapper = json!({"name": "x", "definition": is_alone});
    let wrapped = "# text before it counts\nname: ''\ndefinition:\n  nodes: {a: b}\n";
    let is_wrapped = json!({"name": "", "definition": {"nodes": {"a": "b"}}});
    let of_alone = vec![("/speed", 5, 8), ("/nodes/1/type", 4, 5), ("/nodes/0/type", 3, 28)];
    let empty = vec![("/name", 2, 7)];
    let (nodes, is_nodes) = ("definition: {nodes: 1}", json!({"definition": {"nodes": 1}}));
    let (start, is_start) =
        ("input: &i 1\npriority: 11\n\nfast: *i\n", json!({"input": 1, "priority": 11, "fast": 1}));
    let cases = [
        (Method::POST, "/api/v1/pipelines/validate", alone, is_alone, of_alone.clone()),
        (Method::POST, "/api/v1/pipelines", alone, in_wrapper, of_alone),
        (Method::POST, "/api/v1/pipelines", wrapped, is_wrapped.clone(), empty.clone()),
        (Method::PUT, &pipeline, wrapped, is_wrapped, empty),
        (Method::PUT, &pipeline, nodes, is_nodes, vec![("/definition/nodes", 1, 21)]),
        (Method::POST, &runs, start, is_start, vec![("/fast", 4, 7), ("/priority", 2, 11)]),
        (Method::POST, &runs, "version: 3", json!({"version": 3}), vec![("/version", 1, 10)]),
    ];
    for (method, path, yaml, json, expected) in cases {
        let from_yaml = send_yaml(&ada, method.clone(), path, yaml).await?.body;
        let from_json = ada.send(ada.request(method, path).json(&json)).await?.body;
        let (in_yaml, in_json) = (list(&from_yaml["errors"]), list(&from_json["errors"]));
        assert_eq!(places(in_yaml), expected, "{from_yaml}");
        assert_eq!(in_yaml.len(), in_json.len(), "{from_yaml} {from_json}");
        for (yaml, json) in in_yaml.iter().zip(in_json) {
            assert_eq!(yaml["message"], json["message"]);
            let (of_yaml, of_json) = (pointer(yaml), pointer(json));
            assert!(of_json == of_yaml || of_json == format!("/definition{of_yaml}"), "{of_json} {of_yaml}");
            assert_eq!(
                json.as_object().map(serde_json::Map::len),
                Some(2),
                "a program needs no place: {json}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_read_page_by_page_without_gaps() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(ada.create_pipeline(&pipeline(&[begin()], &[])).await?);
    }
    let (mut listed, mut path) = (Vec::new(), "/api/v1/pipelines?limit=2".to_owned());
    loop {
        let page = ada.get(&path).await?.expect(200)?;
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(items.len() <= 2, "{page}");
        listed.extend(items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/pipelines?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    created.reverse();
    assert_eq!(listed, created, "the newest first, each once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_names_no_node_type_of_this_server_is_told_which_there_are() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let definition = pipeline(&[json!({"id": "a", "type": "teleport"}), call("b", "http://127.0.0.1/")], &[]);
    let told = ada.post("/api/v1/pipelines/validate", &definition).await?.expect(200)?;
    let message = told["errors"][0]["message"].as_str().unwrap_or_default();
    for known in ["action", "agent", "condition", "delay", "parallel", "tool", "trigger"] {
        assert!(message.contains(known), "{known} in {told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_needs_a_definition() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = "/api/v1/pipelines/validate";
    let refused = ada.send(ada.request(Method::POST, path)).await?;
    refused.expect_problem(422, "invalid")?;
    assert_eq!(refused.pointers(), [""]);
    assert_eq!(ada.post(path, &json!({})).await?.expect(200)?["valid"], false);
    Ok(())
}

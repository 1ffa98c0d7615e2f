//! Pipelines over time: changed, disabled, deleted, and what their runs keep of them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Reply, Server, begin, call, pipeline};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(30);

/// A pipeline whose runs hand on `value`.
fn that_gives(value: i64) -> Value {
    let mut definition = pipeline(&[begin()], &[]);
    definition["output"] = json!(value.to_string());
    definition
}

async fn put_if(client: &Client, path: &str, tag: &str, body: &Value) -> Result<Reply> {
    client.send(client.request(Method::PUT, path).header("if-match", tag).json(body)).await
}

async fn delete_if(client: &Client, path: &str, tag: &str) -> Result<Reply> {
    client.send(client.request(Method::DELETE, path).header("if-match", tag)).await
}

async fn tag_of(client: &Client, path: &str) -> Result<String> {
    let reply = client.get(path).await?;
    assert_eq!(reply.status, 200, "{}", reply.text);
    Ok(reply.header("etag").to_owned())
}

/// Starts a run and waits for its end; the answer is the run.
async fn run_of(client: &Client, path: &str, body: &Value) -> Result<Value> {
    let run = client.post(&format!("{path}/runs"), body).await?.expect(202)?;
    client.run_in(run["id"].as_str().context("no id")?, &["succeeded"], LIMIT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_definition_is_a_new_version_and_the_same_one_is_none() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = format!("/api/v1/pipelines/{}", ada.create_pipeline(&that_gives(1)).await?);
    let before = ada.get(&path).await?;

    let same = ada.put(&path, &json!({"definition": that_gives(1)})).await?;
    assert_eq!(same.header("etag"), before.header("etag"), "nothing has changed");
    assert_eq!(same.expect(200)?, before.body);
    let changed = ada.put(&path, &json!({"definition": that_gives(2), "name": "second"})).await?;
    assert_ne!(changed.header("etag"), before.header("etag"));
    let tag = changed.header("etag").to_owned();
    let changed = changed.expect(200)?;
    assert_eq!((&changed["version"], &changed["name"]), (&json!(2), &json!("second")), "{changed}");
    assert_eq!((&changed["definition"], &changed["enabled"]), (&that_gives(2), &json!(true)));
    let shown = ada.get(&path).await?;
    assert_eq!((shown.header("etag"), &shown.body), (tag.as_str(), &changed), "PUT answers as GET does");
    let back = ada.put(&path, &json!({"definition": that_gives(1)})).await?.expect(200)?;
    assert_eq!(back["version"], 3, "an earlier definition is another one than the latest");
    let renamed = ada.put(&path, &json!({"description": "of numbers"})).await?.expect(200)?;
    assert_eq!((&renamed["version"], &renamed["definition"]), (&json!(3), &that_gives(1)), "{renamed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_change_is_named_and_nothing_of_it_is_made() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = format!("/api/v1/pipelines/{}", ada.create_pipeline(&that_gives(1)).await?);
    let before = ada.get(&path).await?.expect(200)?;
    let cycle = pipeline(&[begin(), json!({"id": "b", "type": "fly"})], &[("begin", "nowhere")]);
    let refused = ada.put(&path, &json!({"name": "x", "definition": cycle})).await?;
    refused.expect_problem(422, "invalid")?;
    assert_eq!(
        refused.pointers(),
        ["/definition/nodes/1/type", "/definition/edges/0/to"],
        "{}",
        refused.text
    );
    let refused = ada.put(&path, &json!({"name": "", "enabled": 1, "version": 2})).await?;
    refused.expect_problem(422, "invalid")?;
    assert_eq!(
        refused.pointers().into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["/name", "/enabled", "/version"])
    );
    assert_eq!(ada.get(&path).await?.expect(200)?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_the_version_that_it_began_with_and_a_start_may_name_one() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut slow = pipeline(&[begin(), call("ask", &peer.url("/"))], &[("begin", "ask")]);
    slow["output"] = json!("1");
    let id = ada.create_pipeline(&slow).await?;
    let path = format!("/api/v1/pipelines/{id}");
    let first = ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    ada.put(&path, &json!({"definition": that_gives(2)})).await?.expect(200)?;
    let second = run_of(&ada, &path, &json!({})).await?;
    assert_eq!((&second["version"], &second["output"]), (&json!(2), &json!(2)), "{second}");
    peer.release();
    let first = ada.run_in(&first, &["succeeded"], LIMIT).await?;
    assert_eq!((&first["version"], &first["output"]), (&json!(1), &json!(1)), "{first}");
    let third = run_of(&ada, &path, &json!({"version": 1})).await?;
    assert_eq!((&third["version"], &third["output"]), (&json!(1), &json!(1)), "{third}");
    for version in [3, 0] {
        let refused = ada.post(&format!("{path}/runs"), &json!({"version": version})).await?;
        refused.expect_problem(422, "invalid")?;
        assert_eq!(refused.pointers(), ["/version"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_changes_that_expect_the_same_exactly_one_is_made_whatever_the_instance() -> Result<()> {
    let database = Database::empty().await?;
    let servers = [Server::start(&database).await?, Server::start(&database).await?];
    let ada = servers[0].client().join("ada@example.org").await?;
    let clients = [ada.clone(), servers[1].client().with_token(ada.token().context("no token")?)];
    let path = format!("/api/v1/pipelines/{}", ada.create_pipeline(&that_gives(0)).await?);
    for round in 1..=5 {
        let tag = tag_of(&ada, &path).await?;
        let mut changes = JoinSet::new();
        for change in 0..12 {
            let (client, path, tag) = (clients[change % 2].clone(), path.clone(), tag.clone());
            // Half of them change only what is no part of a version.
            let body = match change % 4 {
                0 | 1 => json!({"definition": that_gives(round * 100 + i64::try_from(change)?)}),
                _ => json!({"name": format!("{round} {change}")}),
            };
            changes.spawn(async move {
                Ok::<_, anyhow::Error>((put_if(&client, &path, &tag, &body).await?, body))
            });
        }
        let mut made = Vec::new();
        while let Some(change) = changes.join_next().await {
            let (reply, body) = change??;
            match reply.status {
                200 => made.push((reply, body)),
                _ => reply.expect_problem(412, "precondition-failed")?,
            }
        }
        let [(reply, body)] = made.as_slice() else { anyhow::bail!("{} changes were made", made.len()) };
        let shown = ada.get(&path).await?;
        assert_eq!((shown.header("etag"), &shown.body), (reply.header("etag"), &reply.body));
        for (field, value) in body.as_object().context("no object")? {
            assert_eq!(&shown.body[field], value, "an answered version does not change");
        }
    }
    let versions = ada.get(&format!("{path}/versions")).await?.expect(200)?;
    let latest = ada.get(&path).await?.expect(200)?["version"].clone();
    assert_eq!(json!(versions["items"].as_array().map(Vec::len)), latest, "no version is without its change");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_of_everything_that_is_shown() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let body = json!({"name": "a pipeline", "definition": that_gives(1)});
    let created = ada.post("/api/v1/pipelines", &body).await?;
    let (path, first) = (created.header("location").to_owned(), created.header("etag").to_owned());
    assert_eq!(tag_of(&ada, &path).await?, first);
    let mut seen = BTreeSet::from([first.clone()]);
    for change in [
        json!({"name": "b"}),
        json!({"description": "c"}),
        json!({"enabled": false}),
        json!({"definition": that_gives(2)}),
        json!({"name": "a pipeline", "description": "", "enabled": true, "definition": that_gives(1)}),
    ] {
        ada.put(&path, &change).await?.expect(200)?;
        assert!(seen.insert(tag_of(&ada, &path).await?), "the tag stays after {change}");
    }
    let tag = tag_of(&ada, &path).await?;
    let get =
        |condition: String| ada.send(ada.request(Method::GET, &path).header("if-none-match", condition));
    let known = get(tag.clone()).await?;
    assert_eq!((known.status, known.text.as_str(), known.header("etag")), (304, "", tag.as_str()));
    assert_eq!(get(first.clone()).await?.status, 200);

    let nothing = json!({});
    for (condition, status) in [
        (tag.clone(), 200),
        ("*".to_owned(), 200),
        (format!("{first}, {tag}"), 200),
        (first.clone(), 412),
        (format!("W/{tag}"), 412),
        ("\"\"".to_owned(), 412),
        ("nonsense".to_owned(), 412),
    ] {
        let reply = put_if(&ada, &path, &condition, &nothing).await?;
        assert_eq!(reply.status, status, "{condition}: {}", reply.text);
    }
    delete_if(&ada, &path, &first).await?.expect_problem(412, "precondition-failed")?;
    assert_eq!(delete_if(&ada, &path, &tag).await?.status, 204);
    put_if(&ada, &path, "*", &nothing).await?.expect_problem(404, "not-found")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_pipeline_starts_no_run_until_it_is_enabled() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = format!("/api/v1/pipelines/{}", ada.create_pipeline(&that_gives(1)).await?);
    assert_eq!(ada.put(&path, &json!({"enabled": false})).await?.expect(200)?["enabled"], false);
    ada.post(&format!("{path}/runs"), &json!({})).await?.expect_problem(409, "conflict")?;
    assert_eq!(ada.get("/api/v1/runs").await?.expect(200)?["items"], json!([]));
    ada.put(&path, &json!({"enabled": true})).await?.expect(200)?;
    assert_eq!(run_of(&ada, &path, &json!({})).await?["output"], 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_stays_while_its_runs_go_on_and_its_runs_outlive_it() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let asking = pipeline(&[begin(), call("ask", &peer.url("/"))], &[("begin", "ask")]);
    let id = ada.create_pipeline(&asking).await?;
    let path = format!("/api/v1/pipelines/{id}");
    let run = ada.start_run(&id).await?;
    peer.asked(1, LIMIT).await?;
    ada.delete(&path).await?.expect_problem(409, "conflict")?;
    assert_eq!(ada.get(&path).await?.status, 200);
    peer.release();
    ada.run_in(&run, &["succeeded"], LIMIT).await?;
    ada.put(&path, &json!({"definition": that_gives(1)})).await?.expect(200)?;
    run_of(&ada, &path, &json!({})).await?;

    assert_eq!(ada.delete(&path).await?.status, 204);
    for gone in [path.clone(), format!("{path}/versions")] {
        ada.get(&gone).await?.expect_problem(404, "not-found")?;
    }
    ada.delete(&path).await?.expect_problem(404, "not-found")?;
    ada.post(&format!("{path}/runs"), &json!({})).await?.expect_problem(404, "not-found")?;
    let left = ada.get(&format!("/api/v1/runs/{run}")).await?.expect(200)?;
    assert_eq!((&left["state"], &left["pipeline_id"]), (&json!("succeeded"), &Value::Null), "{left}");
    assert_eq!(left["nodes"].as_array().map(Vec::len), Some(2), "what happened in it is still shown: {left}");
    let all = ada.get("/api/v1/runs").await?.expect(200)?;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_accepted_while_its_pipeline_is_deleted_keeps_it_or_is_refused() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    // It stays unfinished, so the deletion may not overlook it.
    let later = json!({"available_at": "2100-01-01T00:00:00Z"});
    let (mut n_kept, mut n_deleted) = (0, 0);
    for _ in 0..40 {
        let path = format!("/api/v1/pipelines/{}", ada.create_pipeline(&that_gives(1)).await?);
        let runs = format!("{path}/runs");
        let (deleted, started) = tokio::join!(ada.delete(&path), ada.post(&runs, &later));
        match (deleted?.status, started?.status) {
            (409, 202) => n_kept += 1,
            (204, 404) => n_deleted += 1,
            other => anyhow::bail!("deleted and started: {other:?}"),
        }
    }
    let session = database.session().await?;
    let row =
        session.query_one("SELECT count(*), count(pipeline_id), count(pipeline_version) FROM all_runs", &[]);
    let row = row.await?;
    assert_eq!([0, 1, 2].map(|column| row.get::<_, i64>(column)), [n_kept; 3], "{n_deleted} were deleted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_listed_page_by_page_and_their_definitions_on_request() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = format!("/api/v1/pipelines/{}", ada.create_pipeline(&that_gives(1)).await?);
    for value in 2..=5 {
        ada.put(&path, &json!({"definition": that_gives(value)})).await?.expect(200)?;
    }
    let me = ada.user_id().await?;
    for (query, n_pages) in
        [("limit=2", 3), ("limit=2&definitions=true", 3), ("definitions=true", 1), ("", 1)]
    {
        let (mut items, mut cursor, mut n_read) = (Vec::new(), String::new(), 0);
        loop {
            let page = ada.get(&format!("{path}/versions?{query}{cursor}")).await?.expect(200)?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            n_read += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("{}cursor={next}", if query.is_empty() { "" } else { "&" }),
                None => break,
            }
        }
        assert_eq!(n_read, n_pages, "{query}");
        for (item, version) in items.iter().zip((1..=5).rev()) {
            assert_eq!((&item["version"], &item["created_by"]), (&json!(version), &json!(me)), "{item}");
            assert!(item["created_at"].is_string(), "{item}");
            let definition = if query.contains("definitions") { that_gives(version) } else { Value::Null };
            assert_eq!(item["definition"], definition, "{query}");
        }
        assert_eq!(items.len(), 5, "{query}");
    }
    let refused = ada.get(&format!("{path}/versions?definitions=1&limit=0&cursor=x")).await?;
    refused.expect_problem(422, "invalid")?;
    assert_eq!(
        refused.pointers().into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["/definitions", "/limit", "/cursor"])
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_large_definitions_is_shorter() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let large = |fill: &str| {
        let mut node = call("ask", "http://127.0.0.1/");
        node["config"]["body"] = json!(fill.repeat(3 * 1024 * 1024));
        pipeline(&[node], &[])
    };
    let path = format!("/api/v1/pipelines/{}", ada.create_pipeline(&large("a")).await?);
    for fill in ["b", "c", "d", "e"] {
        ada.put(&path, &json!({"definition": large(fill)})).await?.expect(200)?;
    }
    let (mut versions, mut pages, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = ada.get(&format!("{path}/versions?definitions=true{cursor}")).await?.expect(200)?;
        let items = page["items"].as_array().context("no items")?;
        versions.extend(items.iter().map(|item| item["version"].clone()));
        pages.push(items.len());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(versions, [5, 4, 3, 2, 1].map(Value::from));
    assert_eq!(pages, [3, 2], "each page ends behind the definition that makes 8 MiB of it");
    Ok(())
}

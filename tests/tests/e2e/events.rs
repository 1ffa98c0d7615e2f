//! Events: posted in every form, once per key, into the projects where one may, and read in pages.

use anyhow::{Context, Result};
use gathering_e2e::{Client, Database, Reply, Scene, Server};
use reqwest::Method;
use serde_json::{Value, json};

const EVENTS: &str = "/api/v1/events";

/// A page of events, and the cursor behind it.
async fn page(client: &Client, query: &str) -> Result<(Vec<Value>, String)> {
    let page = client.get(&format!("{EVENTS}?format=json{query}")).await?.expect(200)?;
    let cursor = page["next_cursor"].as_str().context("no cursor")?.to_owned();
    Ok((page["items"].as_array().context("no items")?.clone(), cursor))
}

async fn post_as(client: &Client, media_type: &str, target: &str, body: &Value) -> Result<Reply> {
    let request = client.request(Method::POST, target).header("content-type", media_type);
    client.send(request.body(body.to_string())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_posted_once_per_key_and_read_as_it_was_posted() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let event = json!({"type": "order.paid", "key": "7", "subject": "order 7", "data": {"total": 12, "text": "a\u{0}b"}});
    let first = ada.post(EVENTS, &event).await?.expect(201)?;
    assert_eq!((&first["repeated"], &first["type"]), (&json!(false), &json!("order.paid")));
    let changed = json!({"type": "order.paid", "key": "7", "data": {"total": 13}});
    let again = ada.post(EVENTS, &changed).await?.expect(200)?;
    let mut expected = first.clone();
    expected["repeated"] = json!(true);
    assert_eq!(again, expected, "the first one");
    let batch = json!({"events": [{"type": "order.paid", "key": "7"}, {"type": "order.sent"}, {"type": "bill.paid", "data": [1]}]});
    let posted = ada.post(EVENTS, &batch).await?.expect(201)?;
    let repeated: Vec<_> =
        posted["items"].as_array().into_iter().flatten().map(|item| &item["repeated"]).collect();
    assert_eq!(repeated, [true, false, false]);

    let (events, cursor) = page(&ada, "&limit=2").await?;
    let mut shown = first.clone();
    shown.as_object_mut().context("no object")?.remove("repeated");
    assert_eq!((events.len(), &events[0]), (2, &shown));
    let (rest, end) = page(&ada, &format!("&limit=2&cursor={cursor}")).await?;
    assert_eq!((rest.len(), &rest[0]["type"], &rest[0]["data"]), (1, &json!("bill.paid"), &json!([1])));
    assert_eq!(page(&ada, &format!("&cursor={end}")).await?.0, Vec::<Value>::new(), "nothing yet");
    ada.post(EVENTS, &json!({"type": "bill.due"})).await?.expect(201)?;
    let (later, _) = page(&ada, &format!("&cursor={end}")).await?;
    assert_eq!((later.len(), &later[0]["type"], &later[0]["data"]), (1, &json!("bill.due"), &json!({})));
    let types = |events: Vec<Value>| events.iter().map(|event| event["type"].clone()).collect::<Vec<_>>();
    assert_eq!(types(page(&ada, "&type=order.*").await?.0), ["order.paid", "order.sent"]);
    let when = "&type=*&when=event.data.total%20%3E%2010";
    assert_eq!(types(page(&ada, when).await?.0), ["order.paid"]);
    assert_eq!(types(page(&ada, &format!("&after={}", rest[0]["seq"])).await?.0), ["bill.due"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_are_taken_in_each_mode_and_given_back() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("shop").await?;
    let target = format!("{EVENTS}?project_id={project}");
    let event = |id: &str| {
        json!({
            "specversion": "1.0", "id": id, "source": "https://example.org/shop", "type": "order.paid",
            "time": "2026-11-30T08:00:00Z", "traceparent": "00-x", "subject": "café", "data": {"total": 12},
        })
    };
    let structured =
        post_as(&ada, "application/cloudevents+json", &target, &event("1")).await?.expect(201)?;
    assert_eq!((&structured["id"], &structured["project_id"]), (&json!("1"), &json!(project)));
    let batch = json!([event("1"), event("2")]);
    let batch = post_as(&ada, "application/cloudevents-batch+json", &target, &batch).await?.expect(201)?;
    assert_eq!(
        (&batch["items"][0]["repeated"], &batch["items"][1]["repeated"]),
        (&json!(true), &json!(false))
    );
    let mut binary = ada.request(Method::POST, &target).json(&json!({"total": 12}));
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "3"),
        ("source", "https://example.org/shop"),
        ("type", "order.paid"),
        ("time", "2026-11-30T08:00:00Z"),
        ("traceparent", "00-x"),
        ("subject", "caf%C3%A9"),
    ] {
        binary = binary.header(format!("ce-{name}"), value);
    }
    ada.send(binary.try_clone().context("no copy")?).await?.expect(201)?;
    ada.send(binary).await?.expect(200)?;

    let read = ada.with_header("accept", "application/json");
    let page = read.get(&format!("{EVENTS}?format=cloudevents&project_id={project}")).await?.expect(200)?;
    let items = page["items"].as_array().context("no items")?;
    assert_eq!(items.len(), 3);
    for (item, id) in items.iter().zip(["1", "2", "3"]) {
        let mut expected = event(id);
        expected["datacontenttype"] = json!("application/json");
        expected["projectid"] = json!(project);
        expected["sequence"] = item["sequence"].clone();
        assert_eq!(*item, expected);
    }
    let wrong = json!([event("9"), {"specversion": "0.3", "id": "", "source": "/", "type": "run.started"}]);
    let refused = post_as(&ada, "application/cloudevents-batch+json", &target, &wrong).await?;
    assert_eq!((refused.status, refused.pointers()), (422, vec!["/1/specversion"]));
    assert_eq!(post_as(&ada, "text/xml", &target, &event("9")).await?.status, 415);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_named_and_nothing_is_posted() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let large = "x".repeat(64 * 1024);
    for (body, pointers) in [
        (json!({}), vec!["/type"]),
        (json!({"type": "run.started"}), vec!["/type"]),
        (json!({"type": "Order Paid", "key": "a\nb", "subject": ""}), vec!["/key", "/subject", "/type"]),
        (json!({"type": "order.paid", "data": large}), vec!["/data"]),
        (json!({"type": "order.paid", "kind": 1, "project_id": "x"}), vec!["/kind", "/project_id"]),
        (json!({"type": "a.b", "events": [{"type": "a.b"}]}), vec!["/type"]),
        (
            json!({"events": [{"type": "a.b"}, {"type": "schedule.fired"}, {"type": "security.login", "key": "\u{0}"}]}),
            vec!["/events/1/type", "/events/2/key", "/events/2/type"],
        ),
        (json!({"events": vec![json!({"type": "a.b"}); 1001]}), vec!["/events"]),
    ] {
        let refused = ada.post(EVENTS, &body).await?;
        refused.expect_problem(422, "invalid")?;
        let mut found = refused.pointers();
        found.sort_unstable();
        assert_eq!(found, pointers, "{}", refused.text);
    }
    for (query, pointer) in [
        ("type=Order.*", "/type"),
        ("when=input.n", "/when"),
        ("when=(", "/when"),
        ("after=-1", "/after"),
        ("format=xml", "/format"),
        ("project_id=x", "/project_id"),
        ("cursor=x", "/cursor"),
    ] {
        let refused = ada.with_header("accept", "application/json").get(&format!("{EVENTS}?{query}")).await?;
        assert_eq!((refused.status, refused.pointers()), (422, vec![pointer]), "{query}: {}", refused.text);
    }
    let stream = ada.with_header("last-event-id", "seven").get(EVENTS).await?;
    stream.expect_problem(422, "invalid")?;
    assert_eq!(page(&ada, "").await?.0, Vec::<Value>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_of_a_project_that_others_neither_post_to_nor_read() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let body = json!({"project_id": scene.project, "type": "order.paid"});
    for (client, status) in
        [(&scene.owner, 201), (&scene.editor, 201), (&scene.viewer, 403), (&scene.stranger, 404)]
    {
        assert_eq!(client.post(EVENTS, &body).await?.status, status);
    }
    let named = format!("&type=order.*&project_id={}", scene.project);
    for (client, n_seen) in [(&scene.viewer, 2), (&scene.admin, 2), (&scene.stranger, 0)] {
        assert_eq!(page(client, "&type=order.*").await?.0.len(), n_seen);
        let listed = client.get(&format!("{EVENTS}?format=json{named}")).await?;
        assert_eq!(listed.status, if n_seen == 0 { 404 } else { 200 });
    }
    let streamed = scene.stranger.get(&format!("{EVENTS}?project_id={}", scene.project)).await?;
    streamed.expect_problem(404, "not-found")?;
    // What the server writes of the whole installation is for admins.
    database.session().await?.batch_execute("INSERT INTO events (type) VALUES ('system.tested')").await?;
    assert_eq!(page(&scene.admin, "&type=system.*").await?.0.len(), 1);
    assert_eq!(page(&scene.owner, "&type=system.*").await?.0.len(), 0);
    let (runs, _) = page(&scene.viewer, &format!("&type=run.*&project_id={}", scene.project)).await?;
    let of_run: Vec<_> =
        runs.iter().map(|event| (event["type"].as_str(), event["subject"].as_str())).collect();
    let run = Some(scene.run.as_str());
    assert_eq!(of_run, [(Some("run.started"), run), (Some("run.succeeded"), run)]);
    Ok(())
}

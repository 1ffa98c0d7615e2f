//! Schedules on real processes: they fire at their time, leave what they did in their ledger, and say what is wrong.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Server, begin, call, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn every_second() -> Value {
    json!({"type": "cron", "expression": "* * * * * *"})
}

async fn serve(database: &Database) -> Result<Server> {
    Server::start(database).await
}

async fn create(client: &Client, schedule: &Value) -> Result<Value> {
    client.post("/api/v1/schedules", schedule).await?.expect(201)
}

fn id_of(thing: &Value) -> Result<&str> {
    thing["id"].as_str().context("no id")
}

/// Waits until the ledger looks so; oldest first.
pub(crate) async fn ledger_with(
    client: &Client,
    schedule: &str,
    what: &str,
    is_done: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    let path = format!("/api/v1/schedules/{schedule}/fires?limit=200");
    wait_until(LIMIT, what, async || {
        let reply = client.get(&path).await.map_err(|error| format!("{error:#}"))?;
        let mut items = reply.body["items"].as_array().cloned().unwrap_or_default();
        items.reverse();
        if is_done(&items) { Ok(items) } else { Err(reply.text) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_schedule_runs_its_pipeline_and_stands_in_the_history_with_its_result() -> Result<()> {
    let database = Database::empty().await?;
    let server = serve(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let peer = Peer::start(|_| Answer::now(200, json!({"price": 42}))).await?;
    let definition = pipeline(&[begin(), call("quote", &peer.url("/quote"))], &[("begin", "quote")]);
    let id = client.create_pipeline(&definition).await?;
    let action = json!({"action": "execute_pipeline", "pipeline_id": id, "input": {"symbol": "X"}});
    let schedule = json!({"name": "quotes", "trigger": every_second(), "action": action, "overlap": "allow"});
    let created = create(&client, &schedule).await?;
    assert_eq!(created["state"], "active");
    assert_eq!(created["next_due"].as_array().map(Vec::len), Some(5));
    let id = id_of(&created)?;

    let two = |fires: &[Value]| fires.iter().filter(|fire| fire["run_state"] == "succeeded").count() >= 2;
    let ledger = ledger_with(&client, id, "two runs have succeeded", two).await?;
    let run = ledger[0]["run_id"].as_str().context("no run")?;
    let run = client.get(&format!("/api/v1/runs/{run}")).await?.expect(200)?;
    assert_eq!(run["output"]["quote"]["body"]["price"], 42);
    assert_eq!((&run["trigger"]["type"], &run["trigger"]["schedule_id"]), (&json!("schedule"), &json!(id)));
    assert_eq!((&run["trigger"]["due_at"], &run["input"]), (&ledger[0]["due_at"], &json!({"symbol": "X"})));
    let listed = client.get(&format!("/api/v1/runs?schedule_id={id}")).await?.expect(200)?;
    assert!(listed["items"].as_array().is_some_and(|runs| runs.len() >= 2));

    let paused = client.post(&format!("/api/v1/schedules/{id}/pause"), &json!(null)).await?.expect(200)?;
    assert_eq!((&paused["state"], &paused["next_fire_at"]), (&json!("paused"), &json!(null)));
    client.delete(&format!("/api/v1/schedules/{id}")).await?.expect(204)?;
    client.get(&format!("/api/v1/schedules/{id}")).await?.expect_problem(404, "not-found")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_done_by_a_run_of_its_own_and_its_failure_is_told_and_pauses_the_schedule() -> Result<()>
{
    let database = Database::empty().await?;
    let server = serve(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let peer =
        Peer::start(|request| Answer::now(if request.path == "/broken" { 418 } else { 200 }, json!({})))
            .await?;
    let schedule = json!({
        "name": "broken", "trigger": every_second(),
        "action": {"action": "call_api", "url": peer.url("/broken")},
        "on_failure": {"pause_after": 2, "notify": {
            "channel": "webhook", "url": peer.url("/told"),
            "message": "${{ input.schedule.name }} has failed ${{ string(input.schedule.failures) }} times",
        }},
    });
    let created = create(&client, &schedule).await?;
    let path = format!("/api/v1/schedules/{}", id_of(&created)?);
    let paused = wait_until(LIMIT, "the schedule has paused itself", async || {
        let reply = client.get(&path).await.map_err(|error| format!("{error:#}"))?;
        if reply.body["state"] == "paused" { Ok(reply.body) } else { Err(reply.text) }
    })
    .await?;
    assert_eq!((&paused["paused_because"], &paused["failures_in_a_row"]), (&json!("failures"), &json!(2)));
    wait_until(LIMIT, "both failures are told", async || {
        let told = peer.requests_to("/told");
        if told.len() == 2 { Ok(()) } else { Err(format!("{} notifications", told.len())) }
    })
    .await?;
    let mut messages: Vec<String> =
        peer.requests_to("/told").iter().map(|told| told.json()["message"].to_string()).collect();
    messages.sort();
    assert_eq!(messages, ["\"broken has failed 1 times\"", "\"broken has failed 2 times\""]);
    let runs = client.get("/api/v1/runs?state=failed").await?.expect(200)?;
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(runs["items"][0]["kind"], "action");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_made_on_one_instance_fires_on_whichever_is_there() -> Result<()> {
    let database = Database::empty().await?;
    let (one, mut other) = (serve(&database).await?, serve(&database).await?);
    let client = one.client().join("ada@example.org").await?;
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let action = json!({"action": "execute_pipeline", "pipeline_id": id});
    let schedule = json!({"name": "s", "trigger": {"type": "interval", "seconds": 1}, "action": action});
    let created = create(&client, &schedule).await?;
    let id = id_of(&created)?.to_owned();
    ledger_with(&client, &id, "it has fired", |fires| fires.len() >= 2).await?;
    other.kill()?;
    let n_before = ledger_with(&client, &id, "it is readable", |_| true).await?.len();
    let ledger = ledger_with(&client, &id, "it fires on", |fires| fires.len() >= n_before + 2).await?;
    let due: Vec<&str> = ledger.iter().filter_map(|fire| fire["due_at"].as_str()).collect();
    let mut unique = due.clone();
    unique.dedup();
    assert_eq!(due, unique);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_what_was_missed_while_nothing_ran_is_caught_up_as_the_policy_says() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = serve(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let action = json!({"action": "execute_pipeline", "pipeline_id": id});
    let mut ids = Vec::new();
    for catch_up in ["skip", "latest", "all"] {
        let schedule = json!({
            "name": catch_up, "trigger": {"type": "cron", "expression": "0 * * * *"}, "action": action,
            "catch_up": catch_up, "overlap": "allow",
        });
        ids.push(id_of(&create(&client, &schedule).await?)?.to_owned());
    }
    server.kill()?;
    // Five hours pass.
    let session = database.session().await?;
    let past = "UPDATE schedules SET passed_at = date_trunc('hour', passed_at) - interval '5 hours', \
                next_due_at = next_due_at - interval '5 hours', next_fire_at = next_fire_at - interval '5 hours', \
                look_at = look_at - interval '5 hours'";
    session.execute(past, &[]).await?;
    let server = serve(&database).await?;
    let client = server.client().login("ada@example.org").await?;
    let expected: [(&str, &[usize]); 3] =
        [("skipped", &[5, 4, 0]), ("caught_up", &[0, 1, 5]), ("started", &[0, 0, 0])];
    for (number, id) in ids.iter().enumerate() {
        let ledger = ledger_with(&client, id, "five entries", |fires| fires.len() >= 5).await?;
        for (outcome, counts) in expected {
            let n = ledger.iter().filter(|fire| fire["outcome"] == outcome).count();
            // Within a minute of a full hour the last one is on time.
            let on_time = ledger.iter().any(|fire| fire["outcome"] == "started");
            assert!(n == counts[number] || on_time, "{outcome}: {ledger:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_a_schedule_is_named_and_nothing_is_stored() -> Result<()> {
    let database = Database::empty().await?;
    let server = serve(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let wrong = json!({
        "name": "", "trigger": {"type": "cron", "expression": "* * * * *", "timezone": "Berlin"},
        "action": {"action": "call_api"}, "overlap": "maybe", "jitter_seconds": -1,
    });
    let refused = client.post("/api/v1/schedules", &wrong).await?;
    refused.expect_problem(422, "invalid")?;
    assert_eq!(refused.pointers(), ["/jitter_seconds", "/name", "/overlap"]);
    let wrong = json!({
        "name": "s", "trigger": {"type": "cron", "expression": "0 0 31 2 *", "timezone": "Berlin"},
        "action": {"action": "call_api", "method": "GET"}, "end_at": "2020-01-01T00:00:00Z",
        "start_at": "2021-01-01T00:00:00Z", "on_failure": {"notify": {"channel": "pigeon"}},
    });
    let refused = client.post("/api/v1/schedules", &wrong).await?;
    refused.expect_problem(422, "invalid")?;
    let mut pointers = refused.pointers();
    pointers.sort_unstable();
    for pointer in
        ["/action/url", "/end_at", "/on_failure/notify/channel", "/trigger/expression", "/trigger/timezone"]
    {
        assert!(pointers.contains(&pointer), "{pointer} is not in {pointers:?}");
    }
    let listed = client.get("/api/v1/schedules").await?.expect(200)?;
    assert_eq!(listed["items"], json!([]));

    let preview = json!({"trigger": {"type": "cron", "expression": "0 0 13 * FRI"}, "timezone": "America/Vancouver", "count": 2,
        "after": "2026-11-30T00:00:00Z"});
    let preview = client.post("/api/v1/schedules/preview", &preview).await?.expect(200)?;
    assert_eq!(
        preview["times"][0],
        json!({"at": "2026-12-04T00:00:00Z", "local": "2026-12-03T17:00:00-07:00"})
    );
    assert!(preview["notes"][0].as_str().is_some_and(|note| note.contains("or")), "{preview}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn due_times_are_computed_anew_when_the_time_zones_have_changed() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = serve(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let schedule = json!({
        "name": "s", "action": {"action": "execute_pipeline", "pipeline_id": id},
        "trigger": {"type": "cron", "expression": "0 9 * * *", "timezone": "America/Vancouver"},
    });
    let created = create(&client, &schedule).await?;
    let id = id_of(&created)?;
    let health = client.get("/health").await?.expect(200)?;
    let version = health["components"]["time_zones"]["version"].as_str().context("no version")?.to_owned();
    assert!(version.as_str() >= "2026f", "{version}");
    server.kill()?;

    // As if it had been planned by rules that are an hour off.
    let session = database.session().await?;
    let old = "UPDATE schedules SET zone_data = '2025b', next_due_at = next_due_at + interval '1 hour', \
               next_fire_at = next_fire_at + interval '1 hour', look_at = look_at + interval '1 hour'";
    session.execute(old, &[]).await?;
    let server = serve(&database).await?;
    let client = server.client().login("ada@example.org").await?;
    let ledger = ledger_with(&client, id, "the change is entered", |fires| !fires.is_empty()).await?;
    assert_eq!((&ledger[0]["outcome"], &ledger[0]["reason"]), (&json!("skipped"), &json!("zone_data")));
    let shown = client.get(&format!("/api/v1/schedules/{id}")).await?.expect(200)?;
    assert_eq!(shown["next_fire_at"], created["next_fire_at"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_keeps_what_it_does_not_name_and_null_takes_a_bound_away() -> Result<()> {
    let database = Database::empty().await?;
    let server = serve(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let schedule = json!({
        "name": "s", "action": {"action": "execute_pipeline", "pipeline_id": id}, "except": ["2030-12-25"],
        "trigger": {"type": "rrule", "rule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU", "start": "2030-12-10T09:00:00"},
        "end_at": "2031-01-31T00:00:00Z", "max_fires": 7, "jitter_seconds": 30,
    });
    let created = create(&client, &schedule).await?;
    assert_eq!(created["next_due"][1], "2030-12-24T09:00:00Z");
    let path = format!("/api/v1/schedules/{}", id_of(&created)?);
    let change = json!({"end_at": null, "overlap": "queue_one", "except": ["2030-12-24"]});
    let changed = client.patch(&path, &change).await?.expect(200)?;
    assert_eq!((&changed["end_at"], &changed["max_fires"]), (&json!(null), &json!(7)));
    assert_eq!((&changed["overlap"], &changed["jitter_seconds"]), (&json!("queue_one"), &json!(30)));
    assert_eq!((&changed["except"], &changed["only"]), (&json!(["2030-12-24"]), &json!(null)));
    assert_eq!(changed["next_due"][1], "2031-01-07T09:00:00Z", "the 24th is left out");
    let refused = client.patch(&path, &json!({"trigger": {"type": "rrule", "rule": "FREQ=DAILY"}})).await?;
    refused.expect_problem(422, "invalid")?;
    assert_eq!(refused.pointers(), ["/trigger/start"]);
    Ok(())
}

/// The clock of a database can go back, by hand or when another server takes over.
#[tokio::test(flavor = "multi_thread")]
async fn i6_a_due_time_that_has_fired_starts_nothing_when_time_goes_back() -> Result<()> {
    let database = Database::empty().await?;
    let server = serve(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let action = json!({"action": "execute_pipeline", "pipeline_id": id});
    let hourly = json!({
        "name": "hourly", "trigger": {"type": "cron", "expression": "0 * * * *"}, "action": action, "overlap": "allow",
    });
    let created = create(&client, &hourly).await?;
    let id = id_of(&created)?;
    let session = database.session().await?;
    // The last full hour is due once more.
    let back = "UPDATE schedules SET passed_at = date_trunc('hour', now()) - interval '1 minute', look_at = now() \
                WHERE name = 'hourly'";
    for _ in 0..3 {
        session.execute(back, &[]).await?;
        // A change wakes the loop.
        let yearly =
            json!({"name": "yearly", "trigger": {"type": "cron", "expression": "@yearly"}, "action": action});
        create(&client, &yearly).await?;
        wait_until(LIMIT, "it is planned again", async || {
            let sql = "SELECT count(*) FROM schedules WHERE name = 'hourly' AND look_at > now()";
            let row = session.query_one(sql, &[]).await.map_err(|error| error.to_string())?;
            if row.get::<_, i64>(0) == 1 { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await?;
    }
    let ledger = ledger_with(&client, id, "it has fired", |fires| !fires.is_empty()).await?;
    assert_eq!(ledger.len(), 1, "{ledger:?}");
    let runs = client.get(&format!("/api/v1/runs?schedule_id={id}")).await?.expect(200)?;
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(1), "{runs}");
    assert_eq!(runs["items"][0]["id"], ledger[0]["run_id"]);
    Ok(())
}

//! Schedules while instances die: every due time fires once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gathering_e2e::{Client, Database, Random, Server, Several, begin, pipeline, soak, wait_until};
use serde_json::json;
use tokio_postgres::Client as Session;

use crate::MACHINE;

const LIMIT: Duration = Duration::from_secs(180);

fn modest(command: &mut std::process::Command) {
    command.env("GATHERING_DB_POOL_SIZE", "6").env("GATHERING_RATE_LIMIT_WRITE", "off");
}

/// Copies a schedule until there are so many, all due at the same moment.
async fn multiply(session: &Session, n_schedules: i32, due_in: &str) -> Result<()> {
    let copies = "INSERT INTO schedules (id, project_id, name, trigger, action, pipeline_id, catch_up, overlap, passed_at, \
        next_due_at, next_fire_at, look_at) \
        SELECT gen_random_uuid(), project_id, 'copy', json_build_object('type', 'once', 'at', \
            to_char(due AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')), \
            action, pipeline_id, catch_up, overlap, now(), due, due, due \
        FROM schedules, date_trunc('second', now() + $1::text::interval) AS due, generate_series(1, $2)";
    session.execute(copies, &[&due_in, &n_schedules]).await?;
    session.execute("DELETE FROM schedules WHERE name <> 'copy'", &[]).await?;
    Ok(())
}

async fn create_yearly(client: &Client) -> Result<()> {
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let body = json!({
        "name": "yearly", "trigger": {"type": "cron", "expression": "@yearly"},
        "action": {"action": "execute_pipeline", "pipeline_id": id},
    });
    client.post("/api/v1/schedules", &body).await?.expect(201)?;
    Ok(())
}

async fn number(session: &Session, sql: &str) -> Result<i64> {
    Ok(session.query_one(sql, &[]).await?.get(0))
}

/// Every schedule has one entry, which has one run, which has succeeded; there is no other run.
async fn check_all_fired_once(session: &Session, n_schedules: i64) -> Result<()> {
    wait_until(LIMIT, "every schedule has fired and its run has succeeded", async || {
        let sql = "SELECT count(*) FROM schedule_fires JOIN all_runs AS run ON run.id = run_id WHERE run.state = 'succeeded'";
        let n = number(session, sql).await.map_err(|error| format!("{error:#}"))?;
        if n == n_schedules { Ok(()) } else { Err(format!("{n} of {n_schedules}")) }
    })
    .await?;
    let entries = number(session, "SELECT count(*) FROM schedule_fires").await?;
    let runs = number(session, "SELECT count(*) FROM all_runs WHERE schedule_id IS NOT NULL").await?;
    let fired =
        number(session, "SELECT count(DISTINCT schedule_id) FROM all_runs WHERE schedule_id IS NOT NULL")
            .await?;
    ensure!(
        (entries, runs, fired) == (n_schedules, n_schedules, n_schedules),
        "{entries} entries, {runs} runs, {fired} fired"
    );
    let open = number(session, "SELECT count(*) FROM schedules WHERE look_at IS NOT NULL").await?;
    ensure!(open == 0, "{open} schedules are still to fire");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_schedules_due_at_once_fire_once_across_three_instances_of_which_one_is_killed() -> Result<()> {
    let _machine = MACHINE.write().await;
    let n_schedules = soak(1000, 10_000);
    let database = Database::empty().await?;
    let mut three = Several::start(&database, 3, modest).await?;
    create_yearly(&three.client(0)).await?;
    let session = database.session().await?;
    multiply(&session, n_schedules, "3 seconds").await?;
    // A change wakes the loops.
    three
        .client(0)
        .post("/api/v1/schedules/preview", &json!({"trigger": {"type": "interval", "seconds": 60}}))
        .await?;
    three.client(0).create_pipeline(&pipeline(&[begin()], &[])).await?;
    create_yearly(&three.client(1)).await?;
    session.execute("DELETE FROM schedules WHERE name = 'yearly'", &[]).await?;
    let sql = "SELECT count(*) FROM schedule_fires";
    wait_until(LIMIT, "the first have fired", async || {
        let n = number(&session, sql).await.map_err(|error| format!("{error:#}"))?;
        if n > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await?;
    three.kill(2)?;
    check_all_fired_once(&session, n_schedules.into()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_kills_around_the_due_moment_leave_no_due_time_fired_twice_or_lost() -> Result<()> {
    const N_SCHEDULES: i32 = 20;
    let _machine = MACHINE.read().await;
    let mut random = Random::printed()?;
    for _ in 0..soak(4, 100) {
        let database = Database::empty().await?;
        let mut server = Server::start_with(&database, modest).await?;
        let client = server.client().join("ada@example.org").await?;
        create_yearly(&client).await?;
        let session = database.session().await?;
        multiply(&session, N_SCHEDULES, "2 seconds").await?;
        create_yearly(&client).await?;
        session.execute("DELETE FROM schedules WHERE name = 'yearly'", &[]).await?;
        let due: f64 = session
            .query_one(
                "SELECT extract(epoch FROM min(look_at) - clock_timestamp())::float8 FROM schedules",
                &[],
            )
            .await?
            .get(0);
        let until_due = Duration::from_secs_f64(due.max(0.0));
        let offset = Duration::from_millis(random.number() % 60);
        let moment = Instant::now() + until_due + offset;
        tokio::time::sleep_until((moment - Duration::from_millis(10)).into()).await;
        server.kill()?;
        let _server = Server::start_with(&database, modest).await?;
        check_all_fired_once(&session, N_SCHEDULES.into()).await?;
    }
    Ok(())
}

/// Each event starts one run, whichever instance reads the log, and whichever of them dies while it does.
#[tokio::test(flavor = "multi_thread")]
async fn i6_each_event_fires_a_schedule_once_while_instances_are_killed() -> Result<()> {
    let _machine = MACHINE.read().await;
    let (n_rounds, n_events) = (soak(4, 100), 50);
    let database = Database::empty().await?;
    let mut three = Several::start(&database, 3, modest).await?;
    let client = three.client(0);
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let schedule = json!({
        "name": "on orders", "trigger": {"type": "event", "event_type": "order.paid"},
        "action": {"action": "execute_pipeline", "pipeline_id": id},
    });
    client.post("/api/v1/schedules", &schedule).await?.expect(201)?;
    let mut random = Random::printed()?;
    for round in 0..n_rounds {
        let victim = usize::try_from(random.number() % 2)? + 1;
        let events: Vec<_> =
            (0..n_events).map(|n| json!({"type": "order.paid", "key": format!("{round}-{n}")})).collect();
        for part in events.chunks(10) {
            three.client(0).post("/api/v1/events", &json!({"events": part})).await?.expect(201)?;
        }
        let moment = Instant::now() + Duration::from_millis(random.number() % 40);
        tokio::time::sleep_until(moment.into()).await;
        three.kill(victim)?;
        three.replace(victim, &database, modest).await?;
    }
    let session = database.session().await?;
    let expected = i64::from(n_rounds) * n_events;
    wait_until(LIMIT, "every event has a run that has succeeded", async || {
        let sql = "SELECT count(*) FROM schedule_fires JOIN all_runs AS run ON run.id = run_id WHERE run.state = 'succeeded'";
        let n = number(&session, sql).await.map_err(|error| format!("{error:#}"))?;
        if n == expected { Ok(()) } else { Err(format!("{n} of {expected}")) }
    })
    .await?;
    let events = number(&session, "SELECT count(DISTINCT event_seq) FROM schedule_fires").await?;
    let runs = number(&session, "SELECT count(*) FROM all_runs WHERE schedule_id IS NOT NULL").await?;
    ensure!((events, runs) == (expected, expected), "{events} events fired, {runs} runs");
    Ok(())
}

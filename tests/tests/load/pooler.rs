//! Behind a transaction pooler, with a direct address beside it, nothing that is promised is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use gathering_e2e::{
    Answer, Database, Peer, Pooler, Several, all_succeeded, begin, call, check_journals, check_requests,
    check_stored, pipeline, wait_until,
};
use serde_json::json;
use tokio_postgres::NoTls;

use crate::MACHINE;

const LIMIT: Duration = Duration::from_secs(120);

/// The pooler ends its server connections so often, which must end no session that counts.
const SETTINGS: &str = "pool_mode = transaction\nserver_lifetime = 1\nmax_prepared_statements = 200";

const N_RUNS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn i2_i4_behind_a_transaction_pooler_a_takeover_takes_a_second_and_no_living_instance_is_lost()
-> Result<()> {
    let Some(program) = Pooler::find(Some(true))? else { return Ok(()) };
    let _machine = MACHINE.write().await;
    let database = Database::empty().await?;
    let pooler = Pooler::start(&program, &database, SETTINGS).await?;
    let (client, connection) = tokio_postgres::connect(pooler.url(), NoTls).await?;
    // Ends with its client.
    tokio::spawn(connection);
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let direct = database.url()?;
    let mut two = Several::start(&database, 2, |command| {
        command.env("DATABASE_URL", pooler.url()).env("DATABASE_DIRECT_URL", &direct);
        command.env("GATHERING_DB_POOL_SIZE", "6");
    })
    .await?;
    let peer = Peer::start(|request| match request.path.as_str() {
        "/held" => Answer::held(json!({})),
        _ => Answer::now(200, json!({})),
    })
    .await?;
    let nodes = [begin(), call("a", &peer.url("/a")), call("held", &peer.url("/held"))];
    let definition = pipeline(&nodes, &[("begin", "a"), ("a", "held")]);
    let id = two.client(0).create_pipeline(&definition).await?;
    let accepted = two.start_runs(&id, N_RUNS).await?;
    wait_until(LIMIT, "every run waits for the peer", async || match peer.requests_to("/held").len() {
        N_RUNS => Ok(()),
        n_asked => Err(format!("{n_asked} do")),
    })
    .await?;
    let session = database.session().await?;
    let identities = two.identities(&session).await?;
    let recycled = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    wait_until(LIMIT, "the pooler has replaced a server connection", async || {
        match session.query_one(recycled, &[&backend]).await.map(|row| row.get::<_, i64>(0)) {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    ensure!(two.identities(&session).await? == identities, "an instance lost its liveness");

    let (victim, identity, n_driven) = two.busiest(&session).await?;
    ensure!(n_driven > 0, "it drives nothing: the test proves nothing");
    let killed_at: String = session.query_one("SELECT clock_timestamp()::text", &[]).await?.get(0);
    two.kill(victim)?;
    peer.release();
    all_succeeded(&session, LIMIT).await?;
    let went_on = "SELECT coalesce(max(wait), 0)::float8 FROM (\
                   SELECT extract(epoch FROM min(at) - $2::text::timestamptz) AS wait FROM run_journal \
                   WHERE owner <> $1::text::uuid AND kind <> 'taken_over' AND run_id IN (\
                   SELECT run_id FROM run_journal WHERE owner = $1::text::uuid) GROUP BY run_id) x";
    let last: f64 = session.query_one(went_on, &[&identity, &killed_at]).await?.get(0);
    ensure!(last < 2.0, "the last run went on after {last} s");
    let recovered: i64 = session.query_one("SELECT sum(recoveries) FROM all_runs", &[]).await?.get(0);
    ensure!(recovered == i64::try_from(n_driven)?, "{recovered} recoveries of {n_driven} runs");
    check_stored(&session, &accepted).await?;
    check_journals(&session).await?;
    check_requests(&peer, &session).await?;
    check_settings(&pooler).await
}

/// Checks that the pooler's server connections are set as its other clients expect.
async fn check_settings(pooler: &Pooler) -> Result<()> {
    let mut clients = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let (client, connection) = tokio_postgres::connect(pooler.url(), NoTls).await?;
        // Ends with its client.
        tokio::spawn(connection);
        client.batch_execute("BEGIN").await?;
        let settings = "SELECT format('%s %s %s', current_setting('statement_timeout'), \
                        current_setting('enable_seqscan'), current_setting('plan_cache_mode'))";
        seen.insert(client.query_one(settings, &[]).await?.get::<_, String>(0));
        clients.push(client);
    }
    ensure!(seen == BTreeSet::from(["0 on auto".to_owned()]), "{seen:?}");
    Ok(())
}

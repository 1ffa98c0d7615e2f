//! Three servers share one database: each run is executed by one of them, whatever becomes of one of them or of the
//! database.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gathering_e2e::{
    Answer, Database, Load, Peer, Request, Several, all_succeeded, begin, call, check_journals,
    check_requests, check_stored, pipeline, soak, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio_postgres::Client as Session;

use crate::MACHINE;

/// More than anything here takes, as other tests run beside it.
const LIMIT: Duration = Duration::from_secs(120);

/// Few connections each, as several tests share the cluster; and nothing ends because a grace period does.
fn modest(command: &mut std::process::Command) {
    command.env("GATHERING_DB_POOL_SIZE", "6").env("GATHERING_SHUTDOWN_GRACE_SECONDS", "600");
}

/// Calls in a row, so that a run is always in the middle of one; each may take longer than any pause here.
fn calls_in_a_row(peer: &Peer, names: &[&str]) -> Value {
    let calls = names.iter().map(|name| {
        let mut call = call(name, &peer.url(&format!("/{name}")));
        call["config"]["timeout_seconds"] = json!(600);
        call
    });
    let nodes: Vec<Value> = std::iter::once(begin()).chain(calls).collect();
    let all: Vec<&str> = std::iter::once("begin").chain(names.iter().copied()).collect();
    let edges: Vec<(&str, &str)> = all.iter().copied().zip(all.iter().copied().skip(1)).collect();
    pipeline(&nodes, &edges)
}

/// The run and the node of a request.
fn key(request: &Request) -> String {
    request.idempotency_key().unwrap_or_default().to_owned()
}

/// A number that a query counts for a text.
async fn count(session: &Session, query: &str, of: &str) -> Result<i64> {
    Ok(session.query_one(query, &[&of]).await?.get(0))
}

#[expect(clippy::print_stdout, reason = "a figure for runs with --nocapture")]
fn report(what: &str, seconds: f64) {
    println!("{what}: {seconds:.3} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_three_instances_share_the_queue_and_each_run_is_executed_by_one_of_them() -> Result<()> {
    const AT_ONCE: usize = 24;
    let _machine = MACHINE.read().await;
    let n_runs = soak(300, 3000);
    let database = Database::empty().await?;
    let three = Several::start(&database, 3, |command| {
        modest(command);
        command.env("GATHERING_MAX_CONCURRENT_RUNS", AT_ONCE.to_string());
    })
    .await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let definition = calls_in_a_row(&peer, &["first", "second"]);
    let id = three.client(0).create_pipeline(&definition).await?;
    let begun = Instant::now();
    let accepted = three.start_runs(&id, n_runs).await?;
    // The peer has answered none of them, and each takes no more than this: all three execute now.
    peer.asked(3 * AT_ONCE, LIMIT).await?;
    peer.release();
    let session = database.session().await?;
    all_succeeded(&session, LIMIT).await?;
    report(&format!("{n_runs} runs on three instances"), begun.elapsed().as_secs_f64());

    check_stored(&session, &accepted).await?;
    check_journals(&session).await?;
    let identities: BTreeSet<String> = three.identities(&session).await?.into_iter().collect();
    let owners = "SELECT owner::text, count(DISTINCT run_id) FROM run_journal GROUP BY owner";
    let owners = session.query(owners, &[]).await?;
    assert_eq!(owners.iter().map(|row| row.get(0)).collect::<BTreeSet<String>>(), identities);
    for row in owners {
        assert!(row.get::<_, i64>(1) >= i64::try_from(AT_ONCE)?, "{row:?}");
    }
    let shared = "SELECT count(*) FROM (SELECT FROM run_journal GROUP BY run_id HAVING count(DISTINCT owner) <> 1 \
                  OR count(DISTINCT epoch) <> 1 OR count(*) FILTER (WHERE kind = 'node_succeeded') <> 3 \
                  OR count(*) FILTER (WHERE kind = 'node_started') <> 3) x WHERE $1 = ''";
    assert_eq!(count(&session, shared, "").await?, 0, "runs of which more than one instance did something");
    let keys: BTreeSet<String> = peer.requests().iter().map(key).collect();
    assert_eq!((peer.n_requests(), keys.len()), (2 * n_runs, 2 * n_runs), "each call once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_runs_of_a_killed_instance_go_on_elsewhere_within_two_seconds() -> Result<()> {
    let _machine = MACHINE.write().await;
    let n_runs = soak(90, 600);
    let database = Database::empty().await?;
    let mut three = Several::start(&database, 3, modest).await?;
    let peer = Peer::start(|request| match request.path.as_str() {
        "/last" => Answer::held(json!({})),
        _ => Answer::slow(Duration::from_millis(100), json!({})),
    })
    .await?;
    let definition = calls_in_a_row(&peer, &["first", "second", "last"]);
    let id = three.client(0).create_pipeline(&definition).await?;
    let accepted = three.start_runs(&id, n_runs).await?;
    // All are under way, and none can have ended.
    peer.asked(n_runs, LIMIT).await?;
    let session = database.session().await?;
    let (victim, identity, _) = three.busiest(&session).await?;
    let killed_at: String = session.query_one("SELECT clock_timestamp()::text", &[]).await?.get(0);
    three.kill(victim)?;
    peer.release();
    all_succeeded(&session, LIMIT).await?;

    check_stored(&session, &accepted).await?;
    check_journals(&session).await?;
    check_requests(&peer, &session).await?;
    // What the others did of what it had begun, and had not ended.
    let went_on = "SELECT count(*), coalesce(min(wait), 0)::float8, coalesce(max(wait), 0)::float8 FROM (\
                   SELECT extract(epoch FROM min(at) - $2::text::timestamptz) AS wait FROM run_journal \
                   WHERE owner <> $1::text::uuid AND kind <> 'taken_over' AND run_id IN (\
                   SELECT run_id FROM run_journal WHERE owner = $1::text::uuid) GROUP BY run_id) x";
    let row = session.query_one(went_on, &[&identity, &killed_at]).await?;
    let (n_taken_over, first, last): (i64, f64, f64) = (row.get(0), row.get(1), row.get(2));
    assert!(n_taken_over > 0, "it had nothing to do: the test proves nothing");
    report(&format!("from the kill to the next entry of the first of {n_taken_over} runs"), first);
    report("to that of the last", last);
    ensure!(last < 2.0, "{last} s");
    let late = "SELECT count(*) FROM run_journal a JOIN run_journal b USING (run_id) \
                WHERE a.owner = $1::text::uuid AND b.kind = 'taken_over' AND a.seq > b.seq AND a.epoch < b.epoch";
    assert_eq!(count(&session, late, &identity).await?, 0, "nothing of the dead one came later");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_the_nodes_of_a_paused_instance_execute_nowhere_else() -> Result<()> {
    let _machine = MACHINE.read().await;
    let pause = soak(Duration::from_secs(6), Duration::from_secs(30));
    let database = Database::empty().await?;
    let three = Several::start(&database, 3, modest).await?;
    let peer = Peer::start(|request| {
        if request.path == "/witness" { Answer::now(200, json!({})) } else { Answer::held(json!({})) }
    })
    .await?;
    let id = three.client(0).create_pipeline(&calls_in_a_row(&peer, &["before", "after"])).await?;
    let witness = three.client(0).create_pipeline(&calls_in_a_row(&peer, &["witness"])).await?;
    let accepted = three.start_runs(&id, 30).await?;
    peer.asked(accepted.len(), LIMIT).await?;
    let session = database.session().await?;
    let (stopped, identity, n_stopped) = three.busiest(&session).await?;
    let its_runs = "SELECT id::text FROM all_runs WHERE owner = $1::text::uuid ORDER BY id";
    let its_runs: Vec<String> =
        session.query(its_runs, &[&identity]).await?.iter().map(|row| row.get(0)).collect();
    ensure!(its_runs.len() == n_stopped && n_stopped > 0, "{its_runs:?}");
    three.signal(stopped, Signal::SIGSTOP)?;
    let stopped_at = Instant::now();
    // The answers come while it is stopped: the runs of the others end, its own do not.
    peer.release();
    let mut n_witnesses = 0;
    while stopped_at.elapsed() < pause {
        let client = three.client(stopped + 1 + n_witnesses % 2);
        let run = client.start_run(&witness).await?;
        client.run_in(&run, &["succeeded"], LIMIT).await?;
        n_witnesses += 1;
    }
    let others =
        "SELECT count(*) FROM all_runs WHERE ended_at IS NULL AND owner IS DISTINCT FROM $1::text::uuid";
    wait_until(LIMIT, "all others have ended", async || match count(&session, others, &identity).await {
        Ok(0) => Ok(()),
        Ok(n_live) => Err(format!("{n_live} have not")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await?;
    let untouched = "SELECT count(*) FROM all_runs WHERE owner = $1::text::uuid AND state = 'running' AND epoch = 1 \
                     AND recoveries = 0";
    assert_eq!(
        count(&session, untouched, &identity).await?,
        i64::try_from(n_stopped)?,
        "they are still its own"
    );
    let asked_for = |runs: &[String]| {
        let is_of = |request: &&Request| runs.iter().any(|run| key(request).starts_with(run.as_str()));
        peer.requests().iter().filter(is_of).count()
    };
    assert_eq!(asked_for(&its_runs), n_stopped, "its nodes were not executed again");
    three.signal(stopped, Signal::SIGCONT)?;
    let continued_at = Instant::now();
    all_succeeded(&session, LIMIT).await?;
    report(
        &format!("after {pause:?} stopped and {n_witnesses} runs elsewhere, its {n_stopped} runs ended in"),
        continued_at.elapsed().as_secs_f64(),
    );
    let by_others = "SELECT count(*) FROM run_journal WHERE owner IS DISTINCT FROM $1::text::uuid AND run_id IN \
                     (SELECT run_id FROM run_journal WHERE owner = $1::text::uuid)";
    assert_eq!(count(&session, by_others, &identity).await?, 0, "it has done all of it itself");
    assert_eq!(asked_for(&its_runs), 2 * n_stopped, "each call once");
    check_journals(&session).await?;
    check_requests(&peer, &session).await
}

/// Ends the session that says that an instance lives.
async fn end_liveness(session: &Session, identity: &str) -> Result<()> {
    let end = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN instances i \
               ON (l.classid::bigint << 32) | l.objid::bigint = i.lock_key \
               WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND i.id = $1::text::uuid";
    ensure!(count(session, end, identity).await? == 1, "no session holds the lock of {identity}");
    Ok(())
}

/// Waits until each server has one identity, and none of them is `former`; returns them.
async fn new_identities(three: &Several, session: &Session, former: &[String]) -> Result<Vec<String>> {
    wait_until(LIMIT, "every process has a new identity", async || {
        let identities = three.identities(session).await.map_err(|error| format!("{error:#}"))?;
        let is_old = identities.iter().any(|identity| former.contains(identity));
        if is_old { Err(format!("{identities:?}")) } else { Ok(identities) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_an_instance_that_loses_its_liveness_session_fences_itself_and_goes_on_under_a_new_name()
-> Result<()> {
    let _machine = MACHINE.read().await;
    let database = Database::empty().await?;
    let three = Several::start(&database, 3, modest).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let id = three.client(0).create_pipeline(&calls_in_a_row(&peer, &["before", "after"])).await?;
    let accepted = three.start_runs(&id, 30).await?;
    peer.asked(accepted.len(), LIMIT).await?;
    let session = database.session().await?;
    let (fenced, identity, n_fenced) = three.busiest(&session).await?;
    end_liveness(&session, &identity).await?;
    let ended_at = Instant::now();
    wait_until(LIMIT, "what it executed is given up", async || {
        match peer.requests().iter().filter(|request| request.is_given_up).count() {
            n_given_up if n_given_up == n_fenced => Ok(()),
            n_given_up => Err(format!("{n_given_up} of {n_fenced} requests are")),
        }
    })
    .await?;
    report(&format!("{n_fenced} executions stopped"), ended_at.elapsed().as_secs_f64());
    let identities = new_identities(&three, &session, std::slice::from_ref(&identity)).await?;
    report("a new identity", ended_at.elapsed().as_secs_f64());
    // Its runs are begun again, by whomever; the others never noticed.
    peer.asked(accepted.len() + n_fenced, LIMIT).await?;
    report("its runs execute again", ended_at.elapsed().as_secs_f64());
    peer.release();
    all_succeeded(&session, LIMIT).await?;
    let recovered = "SELECT count(*) FROM all_runs WHERE recoveries = 1 AND $1 <> ''";
    assert_eq!(count(&session, recovered, &identity).await?, i64::try_from(n_fenced)?);
    check_stored(&session, &accepted).await?;
    check_journals(&session).await?;
    check_requests(&peer, &session).await?;
    let again = three.client(fenced).start_run(&id).await?;
    three.client(fenced).run_in(&again, &["succeeded"], LIMIT).await?;
    assert_eq!(three.identities(&session).await?, identities, "each keeps its identity");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i2_i4_instances_that_lose_their_liveness_sessions_under_load_write_nothing_afterwards()
-> Result<()> {
    let _machine = MACHINE.read().await;
    let n_losses = soak(5, 50);
    let database = Database::empty().await?;
    let three = Several::start(&database, 3, |command| {
        modest(command);
        command.env("GATHERING_MAX_RECOVERIES", "1000");
    })
    .await?;
    let peer = Peer::start(|_| Answer::slow(Duration::from_millis(40), json!({}))).await?;
    let id = three.client(0).create_pipeline(&calls_in_a_row(&peer, &["a", "b", "c"])).await?;
    let session = database.session().await?;
    let load = Load::start(three.clients(), &id, 3);
    let mut lost = Vec::new();
    for _ in 0..n_losses {
        load.accepted_more(10, LIMIT).await?;
        let identities = new_identities(&three, &session, &lost).await?;
        let identity = &identities[lost.len() % identities.len()];
        end_liveness(&session, identity).await?;
        lost.push(identity.clone());
    }
    let accepted = load.end().await?;
    all_succeeded(&session, LIMIT).await?;
    new_identities(&three, &session, &lost).await?;
    check_stored(&session, &accepted).await?;
    check_journals(&session).await?;
    check_requests(&peer, &session).await?;
    let recoveries: i64 = session.query_one("SELECT sum(recoveries) FROM all_runs", &[]).await?.get(0);
    assert!(recoveries > 0, "no loss met a run: the test proves nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i4_i7_everything_resumes_by_itself_when_postgresql_crashes_under_load() -> Result<()> {
    let _machine = MACHINE.read().await;
    let n_crashes = soak(2, 10);
    let mut database = Database::on_its_own().await?;
    let three = Several::start(&database, 3, |command| {
        modest(command);
        command.env("GATHERING_MAX_RECOVERIES", "1000");
    })
    .await?;
    let peer = Peer::start(|_| Answer::slow(Duration::from_millis(30), json!({}))).await?;
    let id = three.client(0).create_pipeline(&calls_in_a_row(&peer, &["a", "b", "c"])).await?;
    let mut former = three.identities(&database.session().await?).await?;
    let load = Load::start(three.clients(), &id, 3);
    for n_crash in 0..n_crashes {
        let n_asked = peer.n_requests();
        load.accepted_more(30, LIMIT).await?;
        peer.asked(n_asked + 30, LIMIT).await?;
        let begun = Instant::now();
        database.crash_and_restart().await?;
        let is_back = Instant::now();
        report(&format!("crash {n_crash}: PostgreSQL was away for"), (is_back - begun).as_secs_f64());
        load.accepted_more(1, LIMIT).await?;
        report("  the next run was accepted after", is_back.elapsed().as_secs_f64());
        former.extend(new_identities(&three, &database.session().await?, &former).await?);
        report("  every process had a new identity after", is_back.elapsed().as_secs_f64());
        peer.asked(peer.n_requests() + 1, LIMIT).await?;
    }
    let accepted = load.end().await?;
    let session = database.session().await?;
    all_succeeded(&session, LIMIT).await?;
    check_stored(&session, &accepted).await?;
    check_journals(&session).await?;
    check_requests(&peer, &session).await?;
    for client in three.clients() {
        assert_eq!(client.get("/health/ready").await?.status, 200, "no process has ended");
    }
    Ok(())
}

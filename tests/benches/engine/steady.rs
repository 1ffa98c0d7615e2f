//! Runs at a steady rate: dead rows, and their cost, while a long transaction reads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gathering_dag_engine::{ClaimScope, Engine, RunStore, Runner, RunnerHandle, RunnerSettings, Signals};
use gathering_domain::{Digest, InstanceId};
use gathering_persistence::PgRunStore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::graphs;
use crate::stand::Stand;
use crate::table::{Figure, Report, quantile};

/// How often runs are accepted, a few at once.
const TICK: Duration = Duration::from_millis(50);

/// How often the time of a claim is taken.
const PROBE: Duration = Duration::from_millis(250);

/// How often the database is asked what it holds.
const LOOK: Duration = Duration::from_secs(5);

const MINUTE: Duration = Duration::from_secs(60);

/// What may be behind when everything is accepted.
const LIMIT: Duration = Duration::from_secs(300);

/// Dead rows and bytes by table, and the bytes of the two indexes that a claim and a check for dead instances read.
const HELD: &str = "
    SELECT name, (SELECT sum(n_dead_tup) FROM pg_stat_user_tables
                  WHERE schemaname = current_schema() AND relname LIKE pattern)::float8,
        (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
         WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname LIKE pattern)::float8
    FROM (VALUES (0, 'active_runs', 'active\\_runs'), (1, 'runs', 'runs'), (2, 'run_journal', 'run\\_journal%'), (3, 'events', 'events')) AS t (n, name, pattern)
    UNION ALL SELECT name, 0, pg_relation_size(name::regclass)::float8
    FROM (VALUES ('active_runs_claimable'), ('active_runs_owner')) AS i (name)";

/// How many runs, for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: usize,
    pub(crate) minutes: u64,
}

/// What the database holds at a time.
struct Held {
    at: Duration,
    n_ended: usize,
    n_dead: f64,
    bytes: f64,
}

/// What was seen in the course of time.
#[derive(Default)]
struct Course {
    held: Vec<Held>,
    claims: Vec<(Duration, Duration)>,
    n_read_beside: usize,
}

/// Accepts and drives runs of one node while another session holds a snapshot for the first half of the time.
pub(crate) async fn measure(pace: Pace, report: &mut Report) -> Result<()> {
    let Pace { per_second, minutes } = pace;
    eprintln!("{per_second} runs a second for {minutes} minutes");
    let stand = Stand::start().await?;
    let graph = stand.graph(&graphs::chain(1)).await?;
    let runner = Runner::new(stand.engine().clone(), stand.liveness().instance(), RunnerSettings::default());
    let (handle, stop) = (runner.handle(), CancellationToken::new());
    let running = tokio::spawn(runner.run(stop.clone(), stand.liveness().lost()));
    let course = course(&stand, graph, pace, &handle).await?;
    stop.cancel();
    running.await?;
    stand.stop().await?;
    tell(&course, pace, report)
}

async fn course(stand: &Stand, graph: Digest, pace: Pace, handle: &RunnerHandle) -> Result<Course> {
    let (store, reader) = stand.beside().await?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM all_runs").await?;
    let mut reader = Some(reader);
    let whole = MINUTE * u32::try_from(pace.minutes)?;
    let (probing, start) = (CancellationToken::new(), Instant::now());
    let probe = tokio::spawn(probe(Claimer::new(stand, store), start, probing.clone()));
    let (mut course, mut n_accepted) = (Course::default(), 0);
    let (mut next_look, mut next_word) = (Duration::ZERO, MINUTE);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let at = start.elapsed().min(whole);
        let n_due = (at.as_secs_f64() * pace.per_second as f64) as usize;
        accept(stand, graph, n_due - n_accepted).await?;
        n_accepted = n_due;
        handle.wake();
        if at >= whole / 2
            && let Some(reader) = reader.take()
        {
            reader.batch_execute("COMMIT").await?;
            course.n_read_beside = n_accepted;
            eprintln!("{} s: the reader ends its snapshot", at.as_secs());
        }
        if at >= next_look || at == whole {
            let is_told = at >= next_word;
            course.held.push(look(&stand.session, at, stand.n_executed(), is_told).await?);
            next_look = at + LOOK;
            next_word += if is_told { MINUTE } else { Duration::ZERO };
        }
        if at == whole {
            break;
        }
    }
    probing.cancel();
    course.claims = probe.await??;
    while stand.n_executed() < n_accepted || handle.n_driven() > 0 {
        ensure!(start.elapsed() < whole + LIMIT, "the runs do not end");
        handle.wake();
        tokio::time::sleep(TICK).await;
    }
    Ok(course)
}

/// Accepts so many runs at once, as callers do.
async fn accept(stand: &Stand, graph: Digest, n_runs: usize) -> Result<()> {
    let mut accepting = JoinSet::new();
    for _ in 0..n_runs {
        let (store, run) = (Arc::clone(stand.store()), stand.new_run(graph));
        accepting.spawn(async move { store.enqueue(run).await });
    }
    while let Some(accepted) = accepting.join_next().await {
        accepted??;
    }
    Ok(())
}

/// Claims beside the claim loop.
struct Claimer {
    store: PgRunStore,
    engine: Engine,
    owner: InstanceId,
}

impl Claimer {
    fn new(stand: &Stand, store: PgRunStore) -> Claimer {
        Claimer { store, engine: stand.engine().clone(), owner: stand.liveness().instance() }
    }
}

/// Claims at most one run now and then, and drives it; answers when and how long the claims took.
async fn probe(
    claimer: Claimer,
    start: Instant,
    stop: CancellationToken,
) -> Result<Vec<(Duration, Duration)>> {
    let mut claims = Vec::new();
    while stop.run_until_cancelled(tokio::time::sleep(PROBE)).await.is_some() {
        let began = Instant::now();
        let claimed = claimer.store.claim(claimer.owner, ClaimScope::Queue, 1).await?;
        claims.push((began - start, began.elapsed()));
        for run in claimed {
            claimer.engine.drive(run, Signals::default()).await;
        }
    }
    Ok(claims)
}

/// What the database holds now.
async fn look(session: &Client, at: Duration, n_ended: usize, is_told: bool) -> Result<Held> {
    let mut held = Held { at, n_ended, n_dead: 0.0, bytes: 0.0 };
    let mut words = format!("{} s: {n_ended} runs ended", at.as_secs());
    for row in session.query(HELD, &[]).await? {
        let (name, n_dead, bytes): (String, f64, f64) = (row.get(0), row.get(1), row.get(2));
        words += &format!("; {name} {}, {n_dead:.0} dead", Figure::Bytes(bytes));
        // An index is part of its table.
        if !name.starts_with("active_runs_") {
            held.n_dead += n_dead;
            held.bytes += bytes;
        }
    }
    if is_told {
        eprintln!("{words}");
    }
    Ok(held)
}

impl Course {
    /// Bytes per run that ended from one part of the whole to another.
    fn bytes_per_run(&self, from: Duration, to: Duration) -> Result<Figure> {
        let within: Vec<&Held> = self.held.iter().filter(|held| held.at >= from && held.at <= to).collect();
        let (first, last) = within.first().zip(within.last()).context("nothing was measured")?;
        Ok(Figure::Bytes((last.bytes - first.bytes) / (last.n_ended - first.n_ended).max(1) as f64))
    }

    fn claim(&self, from: Duration, to: Duration) -> Result<Figure> {
        let within = self.claims.iter().filter(|(at, _)| (from..=to).contains(at));
        quantile(&within.map(|(_, took)| *took).collect::<Vec<_>>(), 0.5)
    }
}

fn tell(course: &Course, pace: Pace, report: &mut Report) -> Result<()> {
    let Pace { per_second, minutes } = pace;
    let (zero, whole) = (Duration::ZERO, MINUTE * u32::try_from(minutes)?);
    let of = format!("{minutes} min at {per_second} runs /s");
    let first = ("in the first third", course.bytes_per_run(zero, whole / 3)?);
    report.add(
        format!("bytes per run in the last third of {of}"),
        course.bytes_per_run(whole * 2 / 3, whole)?,
        first,
    );
    let n_dead = course.held.iter().map(|held| held.n_dead).fold(0.0, f64::max);
    let beside = ("runs accepted beside the reader", Figure::Count(course.n_read_beside as f64));
    report.add("the most dead rows at once", Figure::Count(n_dead), beside);
    let first = ("in the first third", course.claim(zero, whole / 3)?);
    report.add("a claim in the last third, p50", course.claim(whole * 2 / 3, whole)?, first);
    let before = course.claim(whole / 3, whole / 2)?;
    let first = ("in the first sixth", course.claim(zero, whole / 6)?);
    report.add("a claim in the sixth before the reader ends, p50", before, first);
    Ok(())
}

//! Pages of a long history: what each filter reads for what it shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gathering_domain::{PipelineId, ProjectId, RunId, RunState, Secret, UserId};
use gathering_e2e::Database;
use gathering_persistence::{ConnectOptions, Migrator, Pool, PoolSettings, RunFilter, Runs, WakeBus};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::table::{Figure, Report, quantile};

const PAGE: usize = 50;
const N_SAMPLES: usize = 30;
const LIMIT: Duration = Duration::from_secs(30);

/// What PostgreSQL has read of the rows and the index entries of the tables that a list is made of.
const READ: &str = "
    SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables
            WHERE schemaname = current_schema() AND relname IN ('runs', 'project_members'))::float8
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes
           WHERE schemaname = current_schema() AND relname IN ('runs', 'project_members'))::float8";

/// A schema full of runs.
struct History {
    url: String,
    session: Arc<Client>,
    /// Dropped last.
    _database: Database,
}

/// A page of every filter of the runs.
pub(crate) async fn measure(n_runs: usize, report: &mut Report) -> Result<()> {
    eprintln!("a history of {n_runs} runs");
    let history = History::fill(n_runs).await?;
    let filters = history.filters().await?;
    // Before any other session reads: its counts would come between.
    let mut n_read = Vec::new();
    for (_, filter) in &filters {
        n_read.push(history.rows_read(filter).await?);
    }
    let pool = history.pool("bench_pages").await?;
    let runs = Runs::new(pool.clone(), WakeBus::new());
    for ((what, filter), n_read) in filters.into_iter().zip(n_read) {
        history.page(&format!("{what} among {n_runs} runs"), &runs, &filter, report).await?;
        let shown = (format!("{PAGE} rows"), Figure::Count(PAGE as f64));
        report.add("rows and index entries read for it", Figure::Count(n_read), shown);
    }
    pool.close();
    Ok(())
}

impl History {
    async fn fill(n_runs: usize) -> Result<History> {
        let database = Database::empty().await?;
        let url = database.url()?;
        Migrator::new(ConnectOptions::parse(&Secret::from(url.clone()))?).run().await?;
        let session = Arc::new(database.session().await?);
        let fill = include_str!("history.sql").replace("$RUNS", &n_runs.max(1).to_string());
        session.batch_execute(&fill).await?;
        session.batch_execute("VACUUM ANALYZE").await?;
        Ok(History { url, session, _database: database })
    }

    async fn pool(&self, name: &str) -> Result<Pool> {
        let url = Secret::from(format!("{}&application_name={name}", self.url));
        let settings = PoolSettings { max_size: 1, ..PoolSettings::default() };
        Ok(Pool::connect(ConnectOptions::parse(&url)?, settings).await?)
    }

    /// What history.sql calls so.
    async fn id(&self, name: &str) -> Result<Uuid> {
        Ok(self.session.query_one("SELECT md5($1)::uuid", &[&name]).await?.get(0))
    }

    async fn filters(&self) -> Result<Vec<(String, RunFilter)>> {
        let middle = "SELECT uuid_v7_floor(now() - interval '180 days')";
        let middle: Uuid = self.session.query_one(middle, &[]).await?.get(0);
        let before = Some(RunId::from(middle));
        let users = [
            ("a user of a busy and a forgotten project", "user1"),
            ("a user of 50 projects", "user2"),
            ("a user of a forgotten project", "user3"),
        ];
        let all = RunFilter::default;
        let mut filters = vec![("all".to_owned(), all())];
        for (what, name) in users {
            let visible_to = Some(UserId::from(self.id(name).await?));
            filters.push((what.to_owned(), RunFilter { visible_to, ..all() }));
        }
        for (what, number) in [("busy", 1), ("small", 5), ("forgotten", 101)] {
            let project = Some(ProjectId::from(self.id(&format!("project{number}")).await?));
            let pipeline = Some(PipelineId::from(self.id(&format!("pipeline{number}")).await?));
            filters.push((format!("a {what} project"), RunFilter { project, ..all() }));
            if number != 101 {
                filters.push((format!("a {what} pipeline"), RunFilter { pipeline, ..all() }));
                let state = Some(RunState::TimedOut);
                let what = format!("a {what} pipeline, timed_out");
                filters.push((what, RunFilter { pipeline, state, ..all() }));
            }
        }
        let mut of_the_middle = Vec::new();
        for (what, filter) in &filters {
            of_the_middle.push((format!("{what}, half a year ago"), RunFilter { before, ..filter.clone() }));
        }
        filters.extend(of_the_middle);
        let project = Some(ProjectId::from(self.id("project5").await?));
        for state in RunState::ALL {
            let of_state = RunFilter { state: Some(state), ..all() };
            filters.push((state.to_string(), of_state.clone()));
            for (whose, name) in users {
                let visible_to = Some(UserId::from(self.id(name).await?));
                filters.push((format!("{state}, {whose}"), RunFilter { visible_to, ..of_state.clone() }));
            }
            filters.push((format!("{state}, a small project"), RunFilter { project, ..of_state }));
        }
        Ok(filters)
    }

    /// The lines about one filter.
    async fn page(&self, what: &str, runs: &Runs, filter: &RunFilter, report: &mut Report) -> Result<()> {
        let limit = self.session.prepare("SELECT * FROM all_runs WHERE id = ANY ($1)").await?;
        // Of a small project: they lie apart from each other.
        let some =
            "SELECT id FROM all_runs WHERE project_id = md5('project5')::uuid ORDER BY id DESC LIMIT 50";
        let rows = self.session.query(some, &[]).await?;
        let ids: Arc<Vec<Uuid>> = Arc::new(rows.iter().map(|row| row.get(0)).collect());
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        // The first ones plan and load.
        for sample in 0..N_SAMPLES + 5 {
            let (session, limit, ids) = (Arc::clone(&self.session), limit.clone(), Arc::clone(&ids));
            let (runs, filter) = (runs.clone(), filter.clone());
            let times = tokio::spawn(async move {
                let start = Instant::now();
                runs.list(&filter, PAGE).await?;
                let ours = start.elapsed();
                let start = Instant::now();
                session.query(&limit, &[&*ids]).await?;
                anyhow::Ok((ours, start.elapsed()))
            });
            let (page, rows) = times.await??;
            if sample >= 5 {
                ours.push(page);
                limits.push(rows);
            }
        }
        let limit = (format!("{PAGE} rows by primary key, p50"), quantile(&limits, 0.5)?);
        report.add(format!("a page of {PAGE} of {what}, p50"), quantile(&ours, 0.5)?, limit);
        Ok(())
    }

    /// What PostgreSQL reads for one page. A session's counts are there once it has ended.
    async fn rows_read(&self, filter: &RunFilter) -> Result<f64> {
        const NAME: &str = "bench_rows_read";
        let pool = self.pool(NAME).await?;
        let before: f64 = self.session.query_one(READ, &[]).await?.get(0);
        Runs::new(pool.clone(), WakeBus::new()).list(filter, PAGE).await?;
        pool.close();
        drop(pool);
        let start = Instant::now();
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        while self.session.query_one(sessions, &[&NAME]).await?.get::<_, i64>(0) > 0 {
            ensure!(start.elapsed() < LIMIT, "the session does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after: f64 = self.session.query_one(READ, &[]).await?.get(0);
        Ok(after - before)
    }
}

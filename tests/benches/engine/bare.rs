//! The limits: the least that the same database can be asked for, on one prepared session.
//!
//! They are measured on tasks, as what the engine does: the main thread is no worker of the runtime, and would have to be
//! woken for each answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio_postgres::{Client, Statement};

/// One-row inserts, each committed before the next.
pub(crate) struct Commits {
    session: Arc<Client>,
    insert: Statement,
}

impl Commits {
    pub(crate) async fn prepare(session: &Arc<Client>) -> Result<Commits> {
        let sql = "CREATE TABLE IF NOT EXISTS bare_commits (id bigserial PRIMARY KEY, content text)";
        session.batch_execute(sql).await?;
        let insert = session.prepare("INSERT INTO bare_commits (content) VALUES ($1)").await?;
        Ok(Commits { session: Arc::clone(session), insert })
    }

    /// So many, one after the other.
    pub(crate) async fn write(&self, n_commits: usize) -> Result<Duration> {
        let (session, insert) = (Arc::clone(&self.session), self.insert.clone());
        tokio::spawn(async move {
            let start = Instant::now();
            for _ in 0..n_commits {
                session.execute(&insert, &[&"content"]).await?;
            }
            Ok(start.elapsed())
        })
        .await?
    }
}

/// Writes so many rows of a journal's shape, `per_commit` at a time.
pub(crate) async fn write_rows(session: &Arc<Client>, n_rows: usize, per_commit: usize) -> Result<Duration> {
    session
        .batch_execute(
            "DROP TABLE IF EXISTS bare_rows;
             CREATE TABLE bare_rows (run_id uuid, seq bigint, node_id text, kind text, epoch bigint,
                                     at timestamptz DEFAULT now(), PRIMARY KEY (run_id, seq))",
        )
        .await?;
    let sql = "INSERT INTO bare_rows (run_id, seq, node_id, kind, epoch)
               SELECT * FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::text[], $5::int8[])";
    let insert = session.prepare(sql).await?;
    let runs: Vec<_> = (0..per_commit).map(|_| gathering_domain::RunId::new().as_uuid()).collect();
    let (nodes, kinds) = (vec!["n1"; per_commit], vec!["node_started"; per_commit]);
    let epochs = vec![1_i64; per_commit];
    let session = Arc::clone(session);
    tokio::spawn(async move {
        let start = Instant::now();
        for number in 0..n_rows.div_ceil(per_commit) {
            let seqs = vec![number as i64 + 1; per_commit];
            session.execute(&insert, &[&runs, &seqs, &nodes, &kinds, &epochs]).await?;
        }
        Ok(start.elapsed())
    })
    .await?
}

/// Takes so many rows from a queue that knows nothing but a state, `per_claim` at a time, and does nothing with them.
pub(crate) async fn claim_rows(session: &Client, n_rows: usize, per_claim: usize) -> Result<Duration> {
    session
        .batch_execute(&format!(
            "DROP TABLE IF EXISTS bare_queue;
             CREATE TABLE bare_queue (id bigserial PRIMARY KEY, is_taken boolean NOT NULL DEFAULT false, content text);
             CREATE INDEX ON bare_queue (id) WHERE NOT is_taken;
             INSERT INTO bare_queue (content) SELECT '{{}}' FROM generate_series(1, {n_rows});
             ANALYZE bare_queue"
        ))
        .await?;
    let sql = "UPDATE bare_queue SET is_taken = true WHERE id = ANY (ARRAY(
                   SELECT id FROM bare_queue WHERE NOT is_taken ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED))
               RETURNING id, content";
    let claim = session.prepare(sql).await?;
    let limit = i64::try_from(per_claim)?;
    let (start, mut n_taken) = (Instant::now(), 0);
    loop {
        match session.query(&claim, &[&limit]).await?.len() {
            0 => break,
            n_rows => n_taken += n_rows,
        }
    }
    let time = start.elapsed();
    ensure!(n_taken == n_rows, "{n_taken} of {n_rows} rows were taken");
    Ok(time)
}

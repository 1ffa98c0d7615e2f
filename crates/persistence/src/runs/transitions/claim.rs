//! Claims: an instance takes runs that are queued or waiting, and drives them from then on.
//!
//! The statements are written as SQL because the DSL has no lateral join, no data-modifying `WITH` and no `unnest`. As
//! query types of their own they are prepared once per connection; a `sql_query` is not.

pub(crate) mod fair;
pub(crate) mod permits;
pub(crate) mod tree;

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use diesel::data_types::PgInterval;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Interval, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt;
use futures::future::BoxFuture;
use gathering_dag_engine::{Claim, ClaimedRun, GraphRole, JournalAtClaim, JournalEvent};
use gathering_domain::{Digest, InstanceId, InvalidId, RunId, RunKind};
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::db::stored_json::StoredJson;
use crate::runs::journal::insert::{INSERT, take_over_entries};
use crate::runs::scan_window::ScanWindow;
use crate::runs::states::CLAIMABLE;

/// How often a claim is tried when each try meets a journal entry that was written meanwhile.
const ATTEMPTS: usize = 5;

type ClaimedRow = (
    (Uuid, i64, Uuid, Vec<u8>, StoredJson, Option<Uuid>),
    (
        Option<DateTime<Utc>>,
        bool,
        Option<String>,
        bool,
        bool,
        Option<Uuid>,
        DateTime<Utc>,
        Option<Vec<String>>,
        bool,
    ),
);
type ClaimedSql = (
    (SqlUuid, BigInt, SqlUuid, Bytea, Json, Nullable<SqlUuid>),
    (
        Nullable<Timestamptz>,
        Bool,
        Nullable<Text>,
        Bool,
        Bool,
        Nullable<SqlUuid>,
        Timestamptz,
        Nullable<Array<Text>>,
        Bool,
    ),
);

/// The claiming instance, as the first part of a `WITH`: no row if the instance was declared dead. The lock keeps its row
/// until the claim is committed, so that an instance that declares it dead finds what it claimed.
fn push_claimant<'b>(out: &mut AstPass<'_, 'b, Pg>, owner: &'b Uuid) -> QueryResult<()> {
    push_claimant_of(out, "WITH", owner)
}

/// As [`push_claimant`], after this word.
fn push_claimant_of<'b>(out: &mut AstPass<'_, 'b, Pg>, with: &str, owner: &'b Uuid) -> QueryResult<()> {
    out.push_sql(with);
    out.push_sql(" args AS MATERIALIZED (SELECT id AS owner FROM instances WHERE id = ");
    out.push_bind_param::<SqlUuid, _>(owner)?;
    out.push_sql(" FOR KEY SHARE), ");
    Ok(())
}

/// What every claim does with its candidates. It checks the state again, as a candidate can be stale, and raises the epoch.
/// A run with an earlier owner gets its entry `taken_over`. A first claim writes the event `run.started` and records the
/// starts of the nodes that follow from nothing. `available_at` is null while a run is driven, so that a wake-up can set
/// it. `IS TRUE` hides the condition from the planner, so that rows are found by their ids. The ids are given for each table,
/// and the graph is a query of its own: a join would read a whole table that the statistics take for empty.
static CLAIM: LazyLock<String> = LazyLock::new(|| claim_sql(""));

/// [`CLAIM`], which sets more columns than all claims do.
fn claim_sql(more: &str) -> String {
    format!(
        "claimed AS (
            UPDATE active_runs AS active SET state = 'running', owner = args.owner, epoch = active.epoch + 1,
                waiting_for = NULL, available_at = NULL, started_at = coalesce(active.started_at, now()){more}
            FROM args CROSS JOIN runs
            WHERE active.run_id = ANY (ARRAY(SELECT id FROM candidates ORDER BY id))
                AND runs.id = ANY (ARRAY(SELECT id FROM candidates)) AND runs.id = active.run_id
                AND (active.state IN {claimable}) IS TRUE
            RETURNING runs.id, active.epoch, active.owner, runs.project_id, runs.graph_digest, runs.input,
                runs.pipeline_id, active.deadline_at, active.cancel_requested_at IS NOT NULL AS is_cancel_requested,
                active.cancel_reason, runs.rerun_of IS NOT NULL AS is_rerun, runs.kind = '{item}' AS is_item,
                CASE WHEN runs.parent_run_id IS NOT NULL THEN runs.rerun_of END AS takes_up, runs.created_at,
                runs.priority, active.permit_key IS NOT NULL AS is_limited,
                CASE WHEN active.epoch = 1 AND runs.rerun_of IS NULL AND active.cancel_requested_at IS NULL
                    AND (active.deadline_at IS NULL OR active.deadline_at > now())
                    THEN (SELECT first_nodes FROM graphs WHERE digest = runs.graph_digest) END AS started_with_claim
        ), started AS (
            {INSERT}
            SELECT claimed.id, node.seq, node.id, 1, '{node_started}', NULL::json, NULL::bytea, claimed.owner, claimed.epoch
            FROM claimed CROSS JOIN LATERAL unnest(claimed.started_with_claim) WITH ORDINALITY AS node (id, seq)
        ), taken_over AS (
            {take_over}
        ), announced AS (
            INSERT INTO events (project_id, type, subject)
            SELECT project_id, 'run.started', id FROM claimed WHERE epoch = 1
        )
        SELECT id, epoch, project_id, graph_digest, input, pipeline_id, deadline_at, is_cancel_requested, cancel_reason,
            is_rerun, is_item,
            takes_up, created_at, started_with_claim, is_limited
        FROM claimed ORDER BY priority DESC, created_at, id",
        claimable = *CLAIMABLE,
        item = RunKind::Item,
        node_started = JournalEvent::Started.kind(),
        take_over = take_over_entries("claimed", "epoch > 1"),
    )
}

/// Where the scan window begins, as an expression.
pub(crate) fn push_from<'b>(
    out: &mut AstPass<'_, 'b, Pg>,
    window: &'b Option<PgInterval>,
) -> QueryResult<()> {
    out.push_sql("coalesce(now() - ");
    out.push_bind_param::<Nullable<Interval>, _>(window)?;
    out.push_sql("::interval, '-infinity')");
    Ok(())
}

/// Claims from the queue. It reads one ordered index range per priority: nothing that becomes available later, and nothing
/// that was available before the scan window except runs that were claimed before.
#[derive(QueryId)]
struct ClaimBatch {
    owner: Uuid,
    window: Option<PgInterval>,
    limit: i64,
}

impl QueryFragment<Pg> for ClaimBatch {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_claimant(&mut out, &self.owner)?;
        out.push_sql(
            "returned AS (SELECT run_id AS id, priority FROM active_runs
                WHERE state = 'queued' AND epoch > 0 AND available_at <= now() AND available_at < ",
        );
        push_from(&mut out, &self.window)?;
        out.push_sql(" ORDER BY available_at LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(
            " FOR NO KEY UPDATE SKIP LOCKED), candidates AS (
                SELECT ready.id FROM generate_series(10, 1, -1) AS level (priority) CROSS JOIN LATERAL (
                    SELECT id FROM returned WHERE returned.priority = level.priority
                    UNION ALL SELECT id FROM (
                        SELECT active.run_id AS id FROM active_runs AS active WHERE active.state IN ",
        );
        out.push_sql(&CLAIMABLE);
        out.push_sql(
            " AND active.priority = level.priority AND active.available_at <= now() AND active.available_at >= ",
        );
        push_from(&mut out, &self.window)?;
        out.push_sql(" ORDER BY active.available_at, active.run_id LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(" FOR NO KEY UPDATE SKIP LOCKED) AS recent) AS ready LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql("), ");
        out.push_sql(&CLAIM);
        Ok(())
    }
}

impl Query for ClaimBatch {
    type SqlType = ClaimedSql;
}

/// Claims runs that only have to end: cancelled or overdue. Each of the two has a small index of its own and is read in its
/// order; deadlines before the scan window are not read.
#[derive(QueryId)]
struct ClaimEnding {
    owner: Uuid,
    window: Option<PgInterval>,
    limit: i64,
}

impl QueryFragment<Pg> for ClaimEnding {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_claimant(&mut out, &self.owner)?;
        out.push_sql(
            "cancelled AS (SELECT run_id AS id FROM active_runs WHERE cancel_requested_at IS NOT NULL AND state IN ",
        );
        out.push_sql(&CLAIMABLE);
        out.push_sql(" ORDER BY run_id LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(
            " FOR NO KEY UPDATE SKIP LOCKED), overdue AS (SELECT run_id AS id FROM active_runs WHERE state IN ",
        );
        out.push_sql(&CLAIMABLE);
        out.push_sql(" AND deadline_at <= now() AND deadline_at >= ");
        push_from(&mut out, &self.window)?;
        out.push_sql(" ORDER BY deadline_at LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(
            " FOR NO KEY UPDATE SKIP LOCKED), candidates AS (
                SELECT id FROM (SELECT id FROM cancelled UNION SELECT id FROM overdue) AS ending LIMIT ",
        );
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql("), ");
        out.push_sql(&CLAIM);
        Ok(())
    }
}

impl Query for ClaimEnding {
    type SqlType = ClaimedSql;
}

/// Claims one run, available or not.
#[derive(QueryId)]
struct ClaimOne {
    owner: Uuid,
    run: Uuid,
}

impl QueryFragment<Pg> for ClaimOne {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_claimant(&mut out, &self.owner)?;
        out.push_sql("candidates AS (SELECT ");
        out.push_bind_param::<SqlUuid, _>(&self.run)?;
        out.push_sql("::uuid AS id), ");
        out.push_sql(&CLAIM);
        Ok(())
    }
}

impl Query for ClaimOne {
    type SqlType = ClaimedSql;
}

/// Claims at most `limit` runs that are available, the most urgent first, then the oldest.
pub(crate) async fn claim_batch(
    conn: &AsyncPgConnection,
    owner: InstanceId,
    window: &ScanWindow,
    limit: usize,
) -> Result<Vec<ClaimedRun>, DatabaseError> {
    let scan = window.begin();
    let claimed = repeat_on_fresh_entries(owner, || {
        let mut conn = conn;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let claim = ClaimBatch { owner: owner.as_uuid(), window: scan.window(), limit };
        async move { claim.load::<ClaimedRow>(&mut conn).await }.boxed()
    })
    .await?;
    window.note(&scan, claimed.len() < limit);
    Ok(claimed)
}

/// Claims at most `limit` runs that are to be cancelled, or whose deadline has passed.
pub(crate) async fn claim_ending(
    conn: &AsyncPgConnection,
    owner: InstanceId,
    window: &ScanWindow,
    limit: usize,
) -> Result<Vec<ClaimedRun>, DatabaseError> {
    let scan = window.begin();
    let claimed = repeat_on_fresh_entries(owner, || {
        let mut conn = conn;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let claim = ClaimEnding { owner: owner.as_uuid(), window: scan.window(), limit };
        async move { claim.load::<ClaimedRow>(&mut conn).await }.boxed()
    })
    .await?;
    window.note(&scan, claimed.len() < limit);
    Ok(claimed)
}

/// Claims this run if it is queued or waiting.
pub(crate) async fn claim_one(
    conn: &AsyncPgConnection,
    owner: InstanceId,
    run: RunId,
) -> Result<Option<ClaimedRun>, DatabaseError> {
    let claimed = repeat_on_fresh_entries(owner, || {
        let mut conn = conn;
        ClaimOne { owner: owner.as_uuid(), run: run.as_uuid() }.load::<ClaimedRow>(&mut conn).boxed()
    });
    Ok(claimed.await?.pop())
}

/// A former owner that does not know of its loss may append while a claim reads the last number. Then the claim's
/// `taken_over` meets a number that is taken, the whole claim is undone, and it is tried again.
async fn repeat_on_fresh_entries<'a>(
    owner: InstanceId,
    claim: impl Fn() -> BoxFuture<'a, Result<Vec<ClaimedRow>, QueryError>>,
) -> Result<Vec<ClaimedRun>, DatabaseError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match claim().await {
            Err(QueryError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) if attempts < ATTEMPTS => {}
            rows => {
                let rows = rows.map_err(|error| DatabaseError::query("claiming runs", error))?;
                return rows.into_iter().map(|row| into_claimed(owner, row)).collect();
            }
        }
    }
}

fn into_claimed(owner: InstanceId, row: ClaimedRow) -> Result<ClaimedRun, DatabaseError> {
    let (
        (run, epoch, project, graph, input, pipeline),
        (
            deadline_at,
            cancel_requested,
            cancel_reason,
            is_rerun,
            is_item,
            takes_up,
            created_at,
            started,
            is_limited,
        ),
    ) = row;
    let started = started.into_iter().flatten().map(|node| node.parse());
    let started = started
        .collect::<Result<_, InvalidId>>()
        .map_err(|error| DatabaseError::corrupt("the first nodes of a graph", error))?;
    Ok(ClaimedRun {
        claim: Claim { run: run.into(), owner, epoch },
        project: project.into(),
        graph: Digest::try_from(graph.as_slice())
            .map_err(|error| DatabaseError::corrupt("the graph of a run", error))?,
        input: input.0.map_err(|error| format!("its input cannot be read: {error}")),
        deadline_at,
        cancel_requested,
        cancel_reason,
        role: match pipeline {
            _ if is_item => GraphRole::Item,
            Some(pipeline) => GraphRole::Pipeline(pipeline.into()),
            None => GraphRole::Standalone,
        },
        takes_up: takes_up.map(Into::into),
        created_at,
        is_limited,
        journal: if epoch > 1 || is_rerun {
            JournalAtClaim::Existing
        } else {
            JournalAtClaim::New { started }
        },
    })
}

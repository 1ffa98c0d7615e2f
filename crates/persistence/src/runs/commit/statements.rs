//! The statements that write checkpoints, in as many forms as there are amounts of work: what is not needed is neither
//! planned nor set up.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Bool, Bytea, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Checkpoint, Release};
use gathering_domain::RunState;
use uuid::Uuid;

use super::abandons_children;
use crate::db::error::DatabaseError;
use crate::runs::journal::Columns;

/// How runs are let go, column by column.
#[derive(Debug, Default)]
struct Releases {
    run_id: Vec<Uuid>,
    owner: Vec<Uuid>,
    epoch: Vec<i64>,
    state: Vec<&'static str>,
    waiting_for: Vec<Option<&'static str>>,
    until: Vec<Option<DateTime<Utc>>>,
    output: Vec<Option<String>>,
    error: Vec<Option<String>>,
}

impl Releases {
    fn of<'a>(checkpoints: impl Iterator<Item = &'a Checkpoint>) -> Result<Self, DatabaseError> {
        let mut releases = Self::default();
        for checkpoint in checkpoints {
            if let Some(release) = &checkpoint.release {
                releases.push(checkpoint, release)?;
            }
        }
        Ok(releases)
    }

    fn push(&mut self, checkpoint: &Checkpoint, release: &Release) -> Result<(), DatabaseError> {
        let what = "the release of a run";
        let state =
            RunState::Running.after(release.event()).map_err(|error| DatabaseError::corrupt(what, error))?;
        self.run_id.push(checkpoint.claim.run.as_uuid());
        self.owner.push(checkpoint.claim.owner.as_uuid());
        self.epoch.push(checkpoint.claim.epoch);
        self.state.push(state.as_str());
        let (waiting_for, until) = match release {
            Release::Park { waiting_for, until } => (Some(waiting_for.as_str()), *until),
            _ => (None, None),
        };
        self.waiting_for.push(waiting_for);
        self.until.push(until);
        let end = match release {
            Release::End(end) => Some(end),
            _ => None,
        };
        self.output.push(end.and_then(|end| end.output.as_ref()).map(ToString::to_string));
        let error = end.and_then(|end| end.error.as_ref()).map(serde_json::to_string).transpose();
        self.error.push(error.map_err(|error| DatabaseError::corrupt(what, error))?);
        Ok(())
    }
}

/// Parameters with commas between them.
macro_rules! push_values {
    ($out:ident, $($sql_type:ty: $value:expr),+ $(,)?) => {{
        let mut is_first = true;
        $(
            if !std::mem::replace(&mut is_first, false) {
                $out.push_sql(", ");
            }
            $out.push_bind_param::<$sql_type, _>(&$value)?;
        )+
    }};
}

macro_rules! push_columns {
    ($out:ident, $($sql_type:ty: $column:expr),+ $(,)?) => {
        push_values!($out, $(Array<$sql_type>: $column),+)
    };
}

/// Checkpoints of runs that go on, as one statement. Most are: a plain insert, for which nothing else is planned or
/// set up.
///
/// `BLOBS` says whether some payloads are too large for the journal.
struct Append<const BLOBS: bool>(Entries);

/// The records of a batch, and the payloads that are too large to stand there.
struct Entries {
    columns: Columns,
    blob_digests: Vec<Vec<u8>>,
    blob_contents: Vec<Vec<u8>>,
}

impl Entries {
    fn of(ordered: &[&Checkpoint]) -> Self {
        let mut columns = Columns::of(ordered.iter().copied());
        let blobs = std::mem::take(&mut columns.blobs);
        let (blob_digests, blob_contents) =
            blobs.into_iter().map(|(digest, content)| (digest.to_vec(), content)).unzip();
        Self { columns, blob_digests, blob_contents }
    }

    /// The records as a source of rows, `e`.
    fn push_rows<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let columns = &self.columns;
        out.push_sql("unnest(");
        push_columns!(out, SqlUuid: columns.run_id, BigInt: columns.seq, Nullable<Text>: columns.node_id,
            Integer: columns.iteration, Integer: columns.attempt, Text: columns.kind,
            Nullable<Text>: columns.payload, Nullable<Bytea>: columns.blob, SqlUuid: columns.owner,
            BigInt: columns.epoch);
        out.push_sql(") AS e (run_id, seq, node_id, iteration, attempt, kind, payload, blob, owner, epoch)");
        Ok(())
    }

    /// Stores the blobs, as one part of a `WITH`.
    fn push_blobs<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("stored AS (INSERT INTO blobs (digest, content) SELECT * FROM unnest(");
        push_columns!(out, Bytea: self.blob_digests, Bytea: self.blob_contents);
        out.push_sql(") ON CONFLICT DO NOTHING)");
        Ok(())
    }
}

impl<const BLOBS: bool> QueryId for Append<BLOBS> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const BLOBS: bool> QueryFragment<Pg> for Append<BLOBS> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if BLOBS {
            out.push_sql("WITH ");
            self.0.push_blobs(&mut out)?;
        }
        out.push_sql(INSERT_ENTRIES);
        self.0.push_rows(&mut out)
    }
}

const INSERT_ENTRIES: &str = "
    INSERT INTO run_journal (run_id, seq, node_id, iteration, attempt, kind, payload, blob, owner, epoch)
    SELECT e.run_id, e.seq, e.node_id, e.iteration, e.attempt, e.kind, e.payload::json, e.blob, e.owner, e.epoch
    FROM ";

/// So few records, none with a blob, as plain values: what a run that takes one step after the other writes. Setting up
/// ten arrays would cost the database more than the rows do.
struct AppendFew<const N: usize>(Columns);

impl<const N: usize> QueryId for AppendFew<N> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const N: usize> QueryFragment<Pg> for AppendFew<N> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let columns = &self.0;
        out.push_sql(
            "INSERT INTO run_journal (run_id, seq, node_id, iteration, attempt, kind, payload, owner, epoch) VALUES ",
        );
        for row in 0..N {
            out.push_sql(if row == 0 { "(" } else { ", (" });
            push_values!(out, SqlUuid: columns.run_id[row], BigInt: columns.seq[row],
                Nullable<Text>: columns.node_id[row], Integer: columns.iteration[row], Integer: columns.attempt[row],
                Text: columns.kind[row], Nullable<Text>: columns.payload[row]);
            out.push_sql("::json, ");
            push_values!(out, SqlUuid: columns.owner[row], BigInt: columns.epoch[row]);
            out.push_sql(")");
        }
        Ok(())
    }
}

/// Writes checkpoints of runs that go on.
pub(super) async fn append(mut conn: &AsyncPgConnection, ordered: &[&Checkpoint]) -> QueryResult<()> {
    let entries = Entries::of(ordered);
    let written = match (entries.columns.seq.len(), entries.blob_digests.is_empty()) {
        (1, true) => AppendFew::<1>(entries.columns).execute(&mut conn).await,
        (2, true) => AppendFew::<2>(entries.columns).execute(&mut conn).await,
        (_, true) => Append::<false>(entries).execute(&mut conn).await,
        (_, false) => Append::<true>(entries).execute(&mut conn).await,
    };
    written.map(|_n_rows| ())
}

/// Checkpoints of which some let their runs go, as one statement; it answers with the runs that were released, and
/// whether each has a parent.
///
/// `ABANDONS` says whether some of the ends leave children behind. Most do not, and pay nothing for it.
pub(super) struct Commit<const ABANDONS: bool> {
    entries: Entries,
    releases: Releases,
    abandoning: Vec<Uuid>,
}

impl<const ABANDONS: bool> Commit<ABANDONS> {
    pub(super) fn of(ordered: &[&Checkpoint]) -> Result<Self, DatabaseError> {
        let abandoning = ordered.iter().filter(|checkpoint| abandons_children(checkpoint));
        let abandoning = abandoning.map(|checkpoint| checkpoint.claim.run.as_uuid()).collect();
        let releases = Releases::of(ordered.iter().copied())?;
        Ok(Self { entries: Entries::of(ordered), releases, abandoning })
    }

    /// The runs that it lets go.
    pub(super) fn released(&self) -> &[Uuid] {
        &self.releases.run_id
    }
}

impl<const ABANDONS: bool> QueryId for Commit<ABANDONS> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const ABANDONS: bool> Query for Commit<ABANDONS> {
    type SqlType = (SqlUuid, Bool);
}

impl<const ABANDONS: bool> QueryFragment<Pg> for Commit<ABANDONS> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Self { entries, releases, .. } = self;
        out.push_sql("WITH entry AS (SELECT * FROM ");
        entries.push_rows(&mut out)?;
        out.push_sql("), release AS (SELECT * FROM unnest(");
        push_columns!(out, SqlUuid: releases.run_id, SqlUuid: releases.owner, BigInt: releases.epoch,
            Text: releases.state, Nullable<Text>: releases.waiting_for, Nullable<Timestamptz>: releases.until,
            Nullable<Text>: releases.output, Nullable<Text>: releases.error);
        out.push_sql(") AS r (run_id, owner, epoch, state, waiting_for, until, output, error)), ");
        entries.push_blobs(&mut out)?;
        out.push_sql(", ");
        out.push_sql(RELEASE);
        out.push_sql(APPEND);
        if ABANDONS {
            out.push_sql(ABANDON);
            out.push_bind_param::<Array<SqlUuid>, _>(&self.abandoning)?;
            out.push_sql(ABANDONED);
        }
        out.push_sql(ANSWER);
        Ok(())
    }
}

/// Lets runs go. Whoever acts on a run while it is driven (an approval, the end of a child, a cancel) sets its
/// `available_at`; such a run is not parked but made available at once, so that no wake-up is lost.
///
/// `IS TRUE` hides its conditions from the planner, so that rows are found by their ids and never by an index over all
/// that run.
const RELEASE: &str = "
    released AS (
        UPDATE runs SET state = r.state, owner = NULL, waiting_for = r.waiting_for,
            output = r.output::json, error = r.error::json,
            ended_at = CASE WHEN r.state IN ('succeeded', 'failed', 'cancelled', 'timed_out') THEN now() END,
            available_at = CASE
                WHEN r.state = 'queued' THEN runs.created_at
                WHEN r.state <> 'waiting' THEN NULL
                WHEN runs.available_at IS NOT NULL OR EXISTS (
                    SELECT FROM release AS r2 JOIN runs AS child ON child.id = r2.run_id
                    WHERE child.parent_run_id = runs.id AND r2.state NOT IN ('queued', 'waiting')) THEN clock_timestamp()
                -- Claims look for what has become available since they looked.
                WHEN least(r.until, runs.deadline_at) < clock_timestamp() THEN clock_timestamp()
                ELSE least(r.until, runs.deadline_at)
            END
        FROM release AS r
        WHERE runs.id = r.run_id AND runs.epoch = r.epoch AND (runs.owner = r.owner AND runs.state = 'running') IS TRUE
        RETURNING runs.id, runs.project_id, runs.state, runs.parent_run_id
    )";

/// Appends, wakes the parents of runs that ended, and announces the ends.
const APPEND: &str = ", appended AS (
        INSERT INTO run_journal (run_id, seq, node_id, iteration, attempt, kind, payload, blob, owner, epoch)
        SELECT e.run_id, e.seq, e.node_id, e.iteration, e.attempt, e.kind, e.payload::json, e.blob, e.owner, e.epoch
        FROM entry AS e
        WHERE e.run_id NOT IN (SELECT run_id FROM release) OR e.run_id IN (SELECT id FROM released)
    ), parent AS MATERIALIZED (
        SELECT id, available_at FROM runs
        WHERE id = ANY (ARRAY(SELECT parent_run_id FROM released
                              WHERE parent_run_id IS NOT NULL AND state NOT IN ('queued', 'waiting')))
            AND state IN ('running', 'waiting') AND id NOT IN (SELECT run_id FROM release)
        ORDER BY id FOR NO KEY UPDATE
    ), woken AS (
        UPDATE runs SET available_at = clock_timestamp() FROM parent
        -- Once is enough until it is claimed again: of many children only the first writes here. Whether it was claimed
        -- since this statement began, only the locked row tells.
        WHERE runs.id = parent.id AND (parent.available_at IS NULL OR parent.available_at > now())
    ), announced AS (
        INSERT INTO events (project_id, type, subject)
        SELECT project_id, 'run.' || state, id FROM released WHERE state NOT IN ('queued', 'waiting')
    )";

/// Asks for the end of the children of runs that ended before them. Each passes it on to its own when it ends.
const ABANDON: &str = ", abandoned AS (
        UPDATE runs SET cancel_requested_at = coalesce(cancel_requested_at, now()), available_at = clock_timestamp()
        WHERE parent_run_id IN (SELECT id FROM released WHERE id = ANY (";

const ABANDONED: &str = ")) AND state IN ('queued', 'running', 'waiting'))";

const ANSWER: &str = "
    SELECT id, parent_run_id IS NOT NULL FROM released";

//! Checkpoints that release their runs: queued again, parked or ended.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Checkpoint, Release};
use gathering_domain::RunState;
use uuid::Uuid;

use crate::db::bind::push_columns;
use crate::db::error::DatabaseError;
use crate::runs::journal::insert::{Entries, INSERT, SELECT_ENTRIES};
use crate::runs::states::TERMINAL;
use crate::runs::transitions::end::{END, FREE_PERMITS, GONE, cancel_children, wake_parents};

/// How runs are released, column by column.
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
    /// Whether some of the runs do not end.
    keeps: bool,
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
        self.keeps |= !state.is_terminal();
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
        self.output.push(end.and_then(|end| end.result.output()).map(ToString::to_string));
        let error = end.and_then(|end| end.result.error()).map(serde_json::to_string).transpose();
        self.error.push(error.map_err(|error| DatabaseError::corrupt(what, error))?);
        Ok(())
    }
}

/// A run that was released. Of one that has ended: whether it has a parent, and whether it belongs to a schedule.
pub(crate) type Released = (Uuid, bool, bool);

/// Checkpoints of which some release their runs.
pub(crate) struct Commit {
    entries: Entries,
    releases: Releases,
    /// The nodes whose permits are given back, column by column: run and node.
    frees: (Vec<Uuid>, Vec<String>),
    frees_permits: bool,
}

impl Commit {
    /// The checkpoints are in the order of their runs.
    pub(crate) fn of(ordered: &[&Checkpoint]) -> Result<Self, DatabaseError> {
        let releases = Releases::of(ordered.iter().copied())?;
        let frees = ordered.iter().flat_map(|checkpoint| {
            let run = checkpoint.claim.run.as_uuid();
            checkpoint.frees.iter().map(move |node| (run, node.as_str().to_owned()))
        });
        Ok(Self {
            entries: Entries::of_checkpoints(ordered),
            releases,
            frees: frees.unzip(),
            frees_permits: ordered.iter().any(|checkpoint| checkpoint.frees_permits()),
        })
    }

    /// The runs that it releases.
    pub(crate) fn released(&self) -> &[Uuid] {
        &self.releases.run_id
    }

    /// Writes the checkpoints, as one statement. It answers with the runs that it released.
    ///
    /// `abandons` says whether the ends leave children behind that must be told. Most do not, and pay nothing for it.
    pub(crate) async fn write(
        self,
        conn: &mut AsyncPgConnection,
        abandons: bool,
    ) -> QueryResult<Vec<Released>> {
        Statement { commit: self, abandons }.load(conn).await
    }
}

/// A [`Commit`] as SQL. A statement with fewer parts is planned and set up in less time, so only the parts that are needed
/// are in it.
struct Statement {
    commit: Commit,
    abandons: bool,
}

impl QueryId for Statement {
    type QueryId = ();
    /// It is found again by its text, which has as many forms as there are combinations of parts.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement {
    type SqlType = (SqlUuid, Bool, Bool);
}

impl QueryFragment<Pg> for Statement {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Commit { entries, releases, frees, frees_permits } = &self.commit;
        out.push_sql("WITH entry AS (SELECT * FROM ");
        entries.push_rows(&mut out)?;
        out.push_sql("), release AS (SELECT * FROM unnest(");
        push_columns!(out, SqlUuid: releases.run_id, SqlUuid: releases.owner, BigInt: releases.epoch,
            Text: releases.state, Nullable<Text>: releases.waiting_for, Nullable<Timestamptz>: releases.until,
            Nullable<Text>: releases.output, Nullable<Text>: releases.error);
        out.push_sql(") AS r (run_id, owner, epoch, state, waiting_for, until, output, error)), ");
        if entries.has_blobs() {
            entries.push_blobs(&mut out)?;
            out.push_sql(", ");
        }
        out.push_sql(&ENDED);
        out.push_sql(if releases.keeps { &KEPT } else { NONE_KEPT });
        out.push_sql(&APPENDED);
        if *frees_permits {
            out.push_sql(", free AS (SELECT * FROM unnest(");
            push_columns!(out, SqlUuid: frees.0, Text: frees.1);
            out.push_sql(") AS f (run_id, node_id)), ");
            out.push_sql(FREE_PERMITS);
        }
        if self.abandons {
            out.push_sql(&CHILDREN);
        }
        out.push_sql(" SELECT id, has_parent, is_scheduled FROM released");
        Ok(())
    }
}

/// The condition that a run is still claimed as the release says. Rows are found by an array of ids, and `IS TRUE` hides
/// the rest from the planner. For a join it may read all active runs, as it believes for a while that there are none; and
/// else the index over all runs that are driven.
const CLAIMED: &str = "active.run_id = ANY (ARRAY(SELECT run_id FROM release))
                AND active.run_id = r.run_id AND active.epoch = r.epoch
                AND (active.owner = r.owner AND active.state = 'running') IS TRUE";

/// Ends runs.
static ENDED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "gone AS (
            DELETE FROM active_runs AS active USING release AS r
            WHERE {CLAIMED} AND r.state IN {terminal}
            RETURNING {GONE}, active.epoch, active.recoveries, active.cancel_requested_at, r.state,
                r.output::json AS output, r.error::json AS error
        ), {end}, ",
        terminal = *TERMINAL,
        end = *END,
    )
});

/// Parks runs and queues them again. A wake-up that comes while a run is driven (an approval, the end of a child, a cancel
/// request) sets its `available_at`. Such a run is not parked but made available at once, so that no wake-up is lost.
static KEPT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "kept AS (
            UPDATE active_runs AS active SET state = r.state, owner = NULL, waiting_for = r.waiting_for,
                available_at = CASE
                    WHEN r.state = 'queued' THEN (SELECT created_at FROM runs WHERE runs.id = active.run_id)
                    WHEN active.available_at IS NOT NULL OR EXISTS (
                        SELECT FROM release AS r2 JOIN active_runs AS child ON child.run_id = r2.run_id
                        WHERE child.parent_run_id = active.run_id AND r2.state IN {terminal}) THEN clock_timestamp()
                    -- Claims read what has become available since the last claim.
                    WHEN least(r.until, active.deadline_at) < clock_timestamp() THEN clock_timestamp()
                    ELSE least(r.until, active.deadline_at)
                END
            FROM release AS r
            WHERE {CLAIMED} AND r.state NOT IN {terminal}
            RETURNING active.run_id AS id
        ), ",
        terminal = *TERMINAL,
    )
});

/// Stands for [`KEPT`] where all runs end.
const NONE_KEPT: &str = "kept AS (SELECT NULL::uuid AS id WHERE false), ";

/// Appends the records of the runs that were released, and of those that go on; then wakes parents.
static APPENDED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "released AS (
            SELECT id, parent_run_id IS NOT NULL AS has_parent, schedule_id IS NOT NULL AS is_scheduled FROM ended
            UNION ALL SELECT id, false, false FROM kept
        ), appended AS (
            {INSERT}{SELECT_ENTRIES}entry AS e
            WHERE e.run_id NOT IN (SELECT run_id FROM release) OR e.run_id IN (SELECT id FROM released)
        ), {parents}",
        parents = wake_parents("SELECT id FROM released"),
    )
});

/// Each child tells its own children when it ends.
static CHILDREN: LazyLock<String> =
    LazyLock::new(|| format!(", {}", cancel_children("SELECT id FROM released")));

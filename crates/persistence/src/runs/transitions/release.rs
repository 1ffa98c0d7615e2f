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
use crate::runs::transitions::end::{FACTS, announce_and_wake_parents, cancel_children, free_permits};

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
        self.output.push(end.and_then(|end| end.result.output()).map(ToString::to_string));
        let error = end.and_then(|end| end.result.error()).map(serde_json::to_string).transpose();
        self.error.push(error.map_err(|error| DatabaseError::corrupt(what, error))?);
        Ok(())
    }
}

/// A run that was released, whether it has a parent, and whether it belongs to a schedule.
pub(crate) type Released = (Uuid, bool, bool);

/// Checkpoints of which some release their runs.
pub(crate) struct Commit {
    entries: Entries,
    releases: Releases,
    frees_permits: bool,
}

impl Commit {
    /// The checkpoints are in the order of their runs.
    pub(crate) fn of(ordered: &[&Checkpoint]) -> Result<Self, DatabaseError> {
        let releases = Releases::of(ordered.iter().copied())?;
        let frees_permits = ordered.iter().any(|checkpoint| checkpoint.ends_limited());
        Ok(Self { entries: Entries::of_checkpoints(ordered), releases, frees_permits })
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
        match (abandons, self.entries.has_blobs(), self.frees_permits) {
            (false, false, false) => Statement::<false, false, false>(self).load(conn).await,
            (false, true, false) => Statement::<false, true, false>(self).load(conn).await,
            (true, false, false) => Statement::<true, false, false>(self).load(conn).await,
            (true, true, false) => Statement::<true, true, false>(self).load(conn).await,
            (false, false, true) => Statement::<false, false, true>(self).load(conn).await,
            (false, true, true) => Statement::<false, true, true>(self).load(conn).await,
            (true, false, true) => Statement::<true, false, true>(self).load(conn).await,
            (true, true, true) => Statement::<true, true, true>(self).load(conn).await,
        }
    }
}

/// A [`Commit`] as SQL. A statement with fewer parts is planned and set up in less time, so each case has its own.
struct Statement<const ABANDONS: bool, const BLOBS: bool, const FREES: bool>(Commit);

impl<const ABANDONS: bool, const BLOBS: bool, const FREES: bool> QueryId
    for Statement<ABANDONS, BLOBS, FREES>
{
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const ABANDONS: bool, const BLOBS: bool, const FREES: bool> Query for Statement<ABANDONS, BLOBS, FREES> {
    type SqlType = (SqlUuid, Bool, Bool);
}

impl<const ABANDONS: bool, const BLOBS: bool, const FREES: bool> QueryFragment<Pg>
    for Statement<ABANDONS, BLOBS, FREES>
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Commit { entries, releases, .. } = &self.0;
        out.push_sql("WITH entry AS (SELECT * FROM ");
        entries.push_rows(&mut out)?;
        out.push_sql("), release AS (SELECT * FROM unnest(");
        push_columns!(out, SqlUuid: releases.run_id, SqlUuid: releases.owner, BigInt: releases.epoch,
            Text: releases.state, Nullable<Text>: releases.waiting_for, Nullable<Timestamptz>: releases.until,
            Nullable<Text>: releases.output, Nullable<Text>: releases.error);
        out.push_sql(") AS r (run_id, owner, epoch, state, waiting_for, until, output, error)), ");
        if BLOBS {
            entries.push_blobs(&mut out)?;
            out.push_sql(", ");
        }
        out.push_sql(&RELEASE);
        if FREES {
            out.push_sql(&FREED);
        }
        if ABANDONS {
            out.push_sql(&CHILDREN);
        }
        out.push_sql(" SELECT id, parent_run_id IS NOT NULL, schedule_id IS NOT NULL FROM released");
        Ok(())
    }
}

/// Releases runs, appends their records, and then does what their ends bring about. A wake-up that comes while a run is
/// driven (an approval, the end of a child, a cancel request) sets its `available_at`. Such a run is not parked but made
/// available at once, so that no wake-up is lost.
///
/// `IS TRUE` hides its conditions from the planner, so that rows are found by their ids and never by an index over all
/// runs that are driven.
static RELEASE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "released AS (
            UPDATE runs SET state = r.state, owner = NULL, waiting_for = r.waiting_for,
                output = r.output::json, error = r.error::json,
                ended_at = CASE WHEN r.state IN {terminal} THEN now() END,
                available_at = CASE
                    WHEN r.state = 'queued' THEN runs.created_at
                    WHEN r.state <> 'waiting' THEN NULL
                    WHEN runs.available_at IS NOT NULL OR EXISTS (
                        SELECT FROM release AS r2 JOIN runs AS child ON child.id = r2.run_id
                        WHERE child.parent_run_id = runs.id AND r2.state IN {terminal}) THEN clock_timestamp()
                    -- Claims read what has become available since the last claim.
                    WHEN least(r.until, runs.deadline_at) < clock_timestamp() THEN clock_timestamp()
                    ELSE least(r.until, runs.deadline_at)
                END
            FROM release AS r
            WHERE runs.id = r.run_id AND runs.epoch = r.epoch AND (runs.owner = r.owner AND runs.state = 'running') IS TRUE
            RETURNING runs.id, runs.project_id, runs.state, runs.parent_run_id, runs.schedule_id, runs.permit_key,
                runs.holds_permit, {FACTS}
        ), appended AS (
            {INSERT}{SELECT_ENTRIES}entry AS e
            WHERE e.run_id NOT IN (SELECT run_id FROM release) OR e.run_id IN (SELECT id FROM released)
        ), {ends}",
        terminal = *TERMINAL,
        ends = announce_and_wake_parents("released"),
    )
});

/// Only ends of runs that a key limits pay for this.
static FREED: LazyLock<String> = LazyLock::new(|| format!(", {}", free_permits("released")));

/// Each child tells its own children when it ends.
static CHILDREN: LazyLock<String> = LazyLock::new(|| format!(", {}", cancel_children("released")));

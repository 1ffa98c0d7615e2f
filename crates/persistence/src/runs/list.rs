//! Runs as a whole: accepted, listed, asked to stop. Driving them is the engine's.

use diesel::dsl::{not, now, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{NewRun, SignalledRun};
use gathering_domain::{InstanceId, PipelineId, ProjectId, RunId, RunState, ScheduleId, UserId};
use uuid::Uuid;

use crate::cluster::wake::{Wake, WakeBus};
use crate::control::projects::local_projects;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::{project_members, runs};
use crate::runs::accept::{Acceptance, RunOrigin, accepted, find_accepted, insert, refused};
use crate::runs::row::{Row, RunRow};

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelRequest {
    /// It is recorded and will reach whoever drives the run.
    Requested,
    /// The run has ended.
    AlreadyEnded,
    /// There is no such run.
    Missing,
}

/// Which runs to list; what is absent does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of projects that this user is a member of.
    pub visible_to: Option<UserId>,
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Of this pipeline.
    pub pipeline: Option<PipelineId>,
    /// Of this schedule.
    pub schedule: Option<ScheduleId>,
    /// In this state.
    pub state: Option<RunState>,
    /// Older than this one: the last of the page before.
    pub before: Option<RunId>,
}

/// The runs of all projects. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct Runs {
    pub(crate) pool: Pool,
    pub(crate) wakes: WakeBus,
}

impl Runs {
    /// The runs where `pool` leads; `wakes` tells those who claim.
    pub const fn new(pool: Pool, wakes: WakeBus) -> Self {
        Self { pool, wakes }
    }

    /// Accepts a run whose graph is stored: once this returns, it will reach a terminal state (I4).
    ///
    /// Repeats: safe; the same id, or the same idempotency key with the same digest, is answered with the run that was
    /// accepted before.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if the project, graph, pipeline version or another thing it refers to is not there:
    /// nothing was accepted. [`DatabaseError::Unavailable`]: it may or may not be accepted; repeat with the same id.
    pub async fn accept(&self, run: &NewRun, origin: &RunOrigin) -> Result<Acceptance, DatabaseError> {
        let conn = self.pool.get().await?;
        match insert(&conn, run, origin).await.map_err(refused)? {
            Some(row) => {
                self.wakes.wake(Wake::Runs);
                accepted(row)
            }
            None => find_accepted(&conn, run, origin).await,
        }
    }

    /// The run, if it is there.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn find(&self, run: RunId) -> Result<Option<RunRow>, DatabaseError> {
        let conn = self.pool.get().await?;
        let row: Option<Row> = runs::table
            .find(run.as_uuid())
            .select(Row::as_select())
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for a run", error))?;
        row.map(RunRow::try_from).transpose()
    }

    /// At most `limit` runs, the newest first, but for those of the local command line. The id of the last is the next page's `before`.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn list(&self, filter: &RunFilter, limit: usize) -> Result<Vec<RunRow>, DatabaseError> {
        let conn = self.pool.get().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<Row> = filtered(filter, limit)
            .order(runs::id.desc())
            .limit(limit)
            .select(Row::as_select())
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing runs", error))?;
        rows.into_iter().map(RunRow::try_from).collect()
    }

    /// Asks for the end of a run. A run that was never claimed ends here and now; else the request reaches the owner
    /// wherever it is, and a run that nobody drives becomes available at once, so that somebody ends it. Repeats: safe.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]; whether it is recorded is unknown.
    pub async fn request_cancel(&self, run: RunId) -> Result<CancelRequest, DatabaseError> {
        let conn = self.pool.get().await?;
        let failed = |error| DatabaseError::query("asking for the end of a run", error);
        let changed = diesel::sql_query(CANCEL)
            .bind::<diesel::sql_types::Uuid, _>(run.as_uuid())
            .execute(&mut &*conn)
            .await
            .map_err(failed)?;
        if changed == 1 {
            self.wakes.wake(Wake::Signals);
            self.wakes.wake(Wake::Runs);
            return Ok(CancelRequest::Requested);
        }
        let is_there = diesel::select(diesel::dsl::exists(runs::table.find(run.as_uuid())));
        let is_there: bool = is_there.get_result(&mut &*conn).await.map_err(failed)?;
        Ok(if is_there { CancelRequest::AlreadyEnded } else { CancelRequest::Missing })
    }

    /// Makes a run that waits available at once, because what it waits for came. A run that is just being driven is
    /// not parked then, so that the wake-up is not lost. Answers whether there is such a run that has not ended.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]; whether it is woken is unknown. Repeats: safe.
    pub async fn make_available(&self, run: RunId) -> Result<bool, DatabaseError> {
        let conn = self.pool.get().await?;
        let changed = diesel::update(runs::table.find(run.as_uuid()))
            .filter(runs::state.ne_all(TERMINAL))
            .set(runs::available_at.eq(now.into_sql::<Timestamptz>().nullable()))
            .execute(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("waking a run", error))?;
        self.wakes.wake(Wake::Signals);
        self.wakes.wake(Wake::Runs);
        Ok(changed == 1)
    }
}

/// Ends a run that no node of was ever started, or leaves word for its driver.
const CANCEL: &str = "
    WITH cancelled AS (
        UPDATE runs SET
            cancel_requested_at = coalesce(cancel_requested_at, now()),
            state = CASE WHEN epoch = 0 THEN 'cancelled' ELSE state END,
            ended_at = CASE WHEN epoch = 0 THEN now() END,
            available_at = CASE WHEN epoch > 0 THEN clock_timestamp() END
        WHERE id = $1 AND state IN ('queued', 'running', 'waiting')
        RETURNING id, project_id, parent_run_id, state
    ), woken AS (
        UPDATE runs SET available_at = clock_timestamp() FROM cancelled
        WHERE runs.id = cancelled.parent_run_id AND cancelled.state = 'cancelled'
            AND runs.state IN ('running', 'waiting')
    ), announced AS (
        INSERT INTO events (project_id, type, subject)
        SELECT project_id, 'run.cancelled', id FROM cancelled WHERE state = 'cancelled'
    )
    SELECT id FROM cancelled";

const TERMINAL: [&str; 4] = [
    RunState::TERMINAL[0].as_str(),
    RunState::TERMINAL[1].as_str(),
    RunState::TERMINAL[2].as_str(),
    RunState::TERMINAL[3].as_str(),
];

type Filtered<'a> = runs::BoxedQuery<'a, Pg>;

fn filtered(filter: &RunFilter, limit: i64) -> Filtered<'static> {
    // Not `<> ALL`, which PostgreSQL would look up in the list for each row.
    let mut query = runs::table.filter(not(runs::project_id.eq_any(local_projects()))).into_boxed();
    if let Some(user) = filter.visible_to
        && filter.is_all_but_visibility_open()
    {
        query = query.filter(newest_of_each_project(user, filter, limit));
    }
    if let Some(user) = filter.visible_to {
        let own = project_members::table
            .filter(project_members::user_id.eq(user.as_uuid()))
            .select(project_members::project_id);
        query = query.filter(runs::project_id.eq_any(own));
    }
    if let Some(project) = filter.project {
        query = query.filter(runs::project_id.eq(project.as_uuid()));
    }
    if let Some(pipeline) = filter.pipeline {
        query = query.filter(runs::pipeline_id.eq(pipeline.as_uuid()));
    }
    if let Some(schedule) = filter.schedule {
        query = query.filter(runs::schedule_id.eq(schedule.as_uuid()));
    }
    if let Some(state) = filter.state {
        // What the state implies leads the planner to the index that holds such runs and few others, also in a plan for
        // any state of them.
        query = match state {
            RunState::Queued | RunState::Waiting => {
                query.filter(sql::<Bool>("runs.state IN ('queued', 'waiting')"))
            }
            RunState::Running => query.filter(runs::owner.is_not_null()),
            RunState::Succeeded => query.filter(runs::ended_at.is_not_null()),
            RunState::Failed | RunState::Cancelled | RunState::TimedOut => {
                query.filter(runs::ended_at.is_not_null()).filter(sql::<Bool>("runs.state <> 'succeeded'"))
            }
        };
        query = query.filter(runs::state.eq(state.as_str()));
    }
    if let Some(before) = filter.before {
        query = query.filter(runs::id.lt(before.as_uuid()));
    }
    query
}

impl RunFilter {
    /// Whether most runs of the projects that the user sees are on some page: nothing else leads to an index of few.
    fn is_all_but_visibility_open(&self) -> bool {
        self.project.is_none()
            && self.pipeline.is_none()
            && self.schedule.is_none()
            && matches!(self.state, None | Some(RunState::Succeeded))
    }
}

/// The newest runs of every project that the user sees, as many of each as the page is long. The planner expects the runs
/// of a user all over the table and would read it from its end; those of a project that nobody uses any more are all at
/// its beginning.
fn newest_of_each_project(
    user: UserId,
    filter: &RunFilter,
    limit: i64,
) -> Box<dyn BoxableExpression<runs::table, Pg, SqlType = Bool>> {
    let newest = match filter.state {
        None => sql::<Bool>(
            "runs.id = ANY (ARRAY(SELECT page.id FROM project_members AS member CROSS JOIN LATERAL (
                 SELECT newest.id FROM runs AS newest
                 WHERE newest.project_id = member.project_id AND newest.id < ",
        ),
        Some(_) => sql::<Bool>(
            "runs.id = ANY (ARRAY(SELECT page.id FROM project_members AS member CROSS JOIN LATERAL (
                 SELECT newest.id FROM runs AS newest
                 WHERE newest.ended_at IS NOT NULL AND newest.state = 'succeeded'
                     AND newest.project_id = member.project_id AND newest.id < ",
        ),
    };
    let before = filter.before.map_or(Uuid::max(), RunId::as_uuid);
    let newest = newest
        .bind::<SqlUuid, _>(before)
        .sql(" ORDER BY newest.id DESC LIMIT ")
        .bind::<BigInt, _>(limit)
        .sql(") AS page WHERE member.user_id = ")
        .bind::<SqlUuid, _>(user.as_uuid())
        .sql("))");
    Box::new(newest)
}

/// The runs of this owner on which somebody acted: `available_at` is null while a run is driven, unless somebody did.
pub(crate) async fn list_signalled(
    mut conn: &AsyncPgConnection,
    owner: InstanceId,
    driven: &[RunId],
) -> Result<Vec<SignalledRun>, DatabaseError> {
    let ids: Vec<Uuid> = driven.iter().map(|run| run.as_uuid()).collect();
    let rows: Vec<(Uuid, bool)> = runs::table
        .filter(runs::id.eq_any(ids))
        // In a form that no index serves: that by owner has an entry for each run that it ever drove.
        .filter(runs::owner.is_not_distinct_from(owner.as_uuid()))
        .filter(runs::cancel_requested_at.is_not_null().or(runs::available_at.is_not_null()))
        .order(runs::id)
        .select((runs::id, runs::cancel_requested_at.is_not_null()))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("looking for runs that somebody acted on", error))?;
    let signalled =
        |(run, cancel_requested): (Uuid, bool)| SignalledRun { run: run.into(), cancel_requested };
    Ok(rows.into_iter().map(signalled).collect())
}

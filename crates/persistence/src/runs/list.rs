//! Runs as a whole: found, listed, cancelled, woken. The engine drives them.

use diesel::dsl::{not, now, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::Run;
use gathering_dag_engine::SignalledRun;
use gathering_domain::{InstanceId, PipelineId, ProjectId, RunId, RunState, ScheduleId, UserId, WaitingFor};
use uuid::Uuid;

use crate::cluster::wake::{Wake, WakeBus};
use crate::control::projects::hidden_projects;
use crate::db::all_runs::all_runs;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::{active_runs, project_members, runs};
use crate::runs::in_state::InState;
use crate::runs::row::Row;
use crate::runs::transitions::cancel::cancel_run;

/// The answer to a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelRequest {
    /// It is recorded and will reach the run's driver, or the run has ended at once.
    Requested,
    /// The run has ended.
    AlreadyEnded,
    /// No such run.
    Missing,
}

/// Which runs to list; an absent field does not restrict.
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
    /// The runs in the database of `pool`; `wakes` wakes those that claim and drive them.
    pub const fn new(pool: Pool, wakes: WakeBus) -> Self {
        Self { pool, wakes }
    }

    /// The run, if it exists.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn find(&self, run: RunId) -> Result<Option<Run>, DatabaseError> {
        let conn = self.pool.get().await?;
        let row: Option<Row> = all_runs::table
            .find(run.as_uuid())
            .select(Row::as_select())
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking up a run", error))?;
        row.map(Run::try_from).transpose()
    }

    /// At most `limit` runs, the newest first, without those of the local command line. The id of the last is the next
    /// page's `before`.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn list(&self, filter: &RunFilter, limit: usize) -> Result<Vec<Run>, DatabaseError> {
        let conn = self.pool.get().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<Row> = filtered(filter, limit)
            .order(all_runs::id.desc())
            .limit(limit)
            .select(Row::as_select())
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing runs", error))?;
        rows.into_iter().map(Run::try_from).collect()
    }

    /// Requests the cancellation of a run. A run that was never claimed ends at once. Otherwise its owner is told, wherever
    /// it is; a run without an owner becomes available, so that an instance ends it. Repeats: safe.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]: the request may or may not be recorded.
    pub async fn request_cancel(&self, run: RunId) -> Result<CancelRequest, DatabaseError> {
        let conn = self.pool.get().await?;
        let failed = |error| DatabaseError::query("requesting the cancellation of a run", error);
        if let Some(wake_ups) = cancel_run(&conn, run).await.map_err(failed)? {
            wake_ups.send(&self.wakes);
            return Ok(CancelRequest::Requested);
        }
        let exists = diesel::select(diesel::dsl::exists(runs::table.find(run.as_uuid())));
        let exists: bool = exists.get_result(&mut &*conn).await.map_err(failed)?;
        Ok(if exists { CancelRequest::AlreadyEnded } else { CancelRequest::Missing })
    }

    /// Makes a run available at once, because something that it waits for has come. A run that is being driven is then not
    /// parked, so that the wake-up is not lost. A run that waits for a permit is left in its line. Answers whether there is
    /// such a run that has not ended.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]: the run may or may not be woken. Repeats: safe.
    pub async fn make_available(&self, run: RunId) -> Result<bool, DatabaseError> {
        let conn = self.pool.get().await?;
        let changed = diesel::update(active_runs::table.find(run.as_uuid()))
            .filter(active_runs::waiting_for.is_distinct_from(WaitingFor::Concurrency.as_str()))
            .set(active_runs::available_at.eq(now.into_sql::<Timestamptz>().nullable()))
            .execute(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("waking a run", error))?;
        self.wakes.wake(Wake::Signals);
        self.wakes.wake(Wake::Runs);
        Ok(changed == 1)
    }
}

type Filtered<'a> = all_runs::BoxedQuery<'a, Pg>;

fn filtered(filter: &RunFilter, limit: i64) -> Filtered<'static> {
    // Not `<> ALL`, which PostgreSQL would look up in the list for each row.
    let mut query = all_runs::table.filter(not(all_runs::project_id.eq_any(hidden_projects()))).into_boxed();
    if let Some(user) = filter.visible_to
        && filter.is_all_but_visibility_open()
    {
        query = query.filter(newest_of_each_project(user, filter, limit));
    }
    if let Some(user) = filter.visible_to {
        let own = project_members::table
            .filter(project_members::user_id.eq(user.as_uuid()))
            .select(project_members::project_id);
        query = query.filter(all_runs::project_id.eq_any(own));
    }
    if let Some(project) = filter.project {
        query = query.filter(all_runs::project_id.eq(project.as_uuid()));
    }
    if let Some(pipeline) = filter.pipeline {
        query = query.filter(all_runs::pipeline_id.eq(pipeline.as_uuid()));
    }
    if let Some(schedule) = filter.schedule {
        query = query.filter(all_runs::schedule_id.eq(schedule.as_uuid()));
    }
    if let Some(state) = filter.state {
        query = query.filter(all_runs::state.eq(state.as_str()));
    }
    if let Some(newest) = InState::of(filter, limit) {
        query = query.filter(newest);
    }
    if let Some(before) = filter.before {
        query = query.filter(all_runs::id.lt(before.as_uuid()));
    }
    query
}

impl RunFilter {
    /// Whether no filter but the visibility leads to an index of few runs.
    fn is_all_but_visibility_open(&self) -> bool {
        self.project.is_none()
            && self.pipeline.is_none()
            && self.schedule.is_none()
            && matches!(self.state, None | Some(RunState::Succeeded))
    }
}

/// The newest runs of every project that the user sees, as many of each as the page is long. The planner expects a user's
/// runs all over the table and would read it from its end; but the runs of an unused project are all at its beginning.
fn newest_of_each_project(
    user: UserId,
    filter: &RunFilter,
    limit: i64,
) -> Box<dyn BoxableExpression<all_runs::table, Pg, SqlType = Bool>> {
    let newest = match filter.state {
        None => sql::<Bool>(
            "all_runs.id = ANY (ARRAY(SELECT page.id FROM project_members AS member CROSS JOIN LATERAL (
                 SELECT newest.id FROM runs AS newest
                 WHERE newest.project_id = member.project_id AND newest.id < ",
        ),
        Some(_) => sql::<Bool>(
            "all_runs.id = ANY (ARRAY(SELECT page.id FROM project_members AS member CROSS JOIN LATERAL (
                 SELECT newest.id FROM runs AS newest
                 WHERE newest.state = 'succeeded'
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

/// The signalled runs of this owner: `available_at` is null while a run is driven, until a wake-up sets it.
pub(crate) async fn list_signalled(
    mut conn: &AsyncPgConnection,
    owner: InstanceId,
    driven: &[RunId],
) -> Result<Vec<SignalledRun>, DatabaseError> {
    let ids: Vec<Uuid> = driven.iter().map(|run| run.as_uuid()).collect();
    let rows: Vec<(Uuid, bool, Option<String>)> = active_runs::table
        .filter(active_runs::run_id.eq_any(ids))
        // In a form that no index serves: the index by owner has an entry for each run that the owner ever drove.
        .filter(active_runs::owner.is_not_distinct_from(owner.as_uuid()))
        .filter(active_runs::cancel_requested_at.is_not_null().or(active_runs::available_at.is_not_null()))
        .order(active_runs::run_id)
        .select((
            active_runs::run_id,
            active_runs::cancel_requested_at.is_not_null(),
            active_runs::cancel_reason,
        ))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing signalled runs", error))?;
    let signalled = rows.into_iter().map(|(run, cancel_requested, cancel_reason)| SignalledRun {
        run: run.into(),
        cancel_requested,
        cancel_reason,
    });
    Ok(signalled.collect())
}

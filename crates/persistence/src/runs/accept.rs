//! Accepting runs: once, whatever is repeated.

use diesel::dsl::now;
use diesel::prelude::*;
use diesel::result::Error as QueryError;
use diesel::sql_types::{Interval, Nullable, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::NewRun;
use gathering_domain::{Digest, NodeId, PipelineId, ProjectId, RunId, ScheduleId, TaskId};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

use crate::db::error::{DatabaseError, Refusal, violated};
use crate::db::exactly_one::exactly_one;
use crate::db::schema::runs;
use crate::runs::list::Runs;
use crate::runs::row::{Row, RunRow};

// Written so, and not as pieces of SQL, the statement is prepared once per connection.
diesel::define_sql_function! {
    /// The later of the two; that which is not null, if one is.
    fn greatest(one: Nullable<Timestamptz>, other: Nullable<Timestamptz>) -> Nullable<Timestamptz>;
}
diesel::define_sql_function! {
    /// The earlier of the two; that which is not null, if one is.
    fn least(one: Nullable<Timestamptz>, other: Nullable<Timestamptz>) -> Nullable<Timestamptz>;
}
diesel::infix_operator!(After, " + ", Timestamptz, backend: diesel::pg::Pg);

/// A run may take a hundred years at most: times beyond what PostgreSQL can hold would be refused.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Where a run comes from, beside what the engine needs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOrigin {
    /// A word: `pipeline`, `task`, `schedule`, `local` and the like.
    pub kind: String,
    /// What made it, as the API shows it.
    pub trigger: Value,
    /// The pipeline and its version.
    pub pipeline: Option<(PipelineId, i32)>,
    /// The task that it works on.
    pub task: Option<TaskId>,
    /// The schedule that it belongs to.
    pub schedule: Option<ScheduleId>,
    /// The run and node that started it.
    pub parent: Option<(RunId, NodeId)>,
    /// The run whose successes it reuses.
    pub rerun_of: Option<RunId>,
    /// The client's key, unique in its project, and the digest of what it asked for.
    pub idempotency: Option<(String, Digest)>,
}

impl Default for RunOrigin {
    fn default() -> Self {
        Self {
            kind: "local".to_owned(),
            trigger: Value::Object(serde_json::Map::new()),
            pipeline: None,
            task: None,
            schedule: None,
            parent: None,
            rerun_of: None,
            idempotency: None,
        }
    }
}

/// What became of a request for a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Acceptance {
    /// It is accepted now, and stands so.
    Accepted(Box<RunRow>),
    /// The same request was accepted before, as this run.
    AcceptedBefore(RunId),
    /// The idempotency key was used for another request.
    OtherRequest,
}

/// Answers with the row if it is new; what an error means is told by [`refused`].
pub(crate) async fn insert(
    mut conn: &AsyncPgConnection,
    run: &NewRun,
    origin: &RunOrigin,
) -> QueryResult<Option<Row>> {
    let timeout = run.timeout.map(|timeout| {
        let micros = timeout.min(LONGEST_TIMEOUT).as_micros();
        diesel::data_types::PgInterval::from_microseconds(i64::try_from(micros).unwrap_or(i64::MAX))
    });
    let deadline_at = || After::new(now.into_sql::<Timestamptz>(), timeout.into_sql::<Nullable<Interval>>());
    // Not before now: claims look for what has become available since they looked.
    let available_at = greatest(run.available_at, now.into_sql::<Timestamptz>().nullable());
    diesel::insert_into(runs::table)
        .values((
            (
                runs::id.eq(run.id.as_uuid()),
                runs::project_id.eq(run.project.as_uuid()),
                runs::graph_digest.eq(run.graph.as_bytes().as_slice()),
                runs::input.eq(&run.input),
                runs::priority.eq(run.priority),
                runs::available_at.eq(least(available_at, deadline_at())),
                runs::deadline_at.eq(deadline_at()),
            ),
            (
                runs::kind.eq(&origin.kind),
                runs::trigger.eq(&origin.trigger),
                runs::pipeline_id.eq(origin.pipeline.map(|(id, _)| id.as_uuid())),
                runs::pipeline_version.eq(origin.pipeline.map(|(_, version)| version)),
                runs::task_id.eq(origin.task.map(TaskId::as_uuid)),
                runs::schedule_id.eq(origin.schedule.map(ScheduleId::as_uuid)),
                runs::parent_run_id.eq(origin.parent.as_ref().map(|(run, _)| run.as_uuid())),
                runs::parent_node_id.eq(origin.parent.as_ref().map(|(_, node)| node.as_str())),
                runs::rerun_of.eq(origin.rerun_of.map(RunId::as_uuid)),
                runs::idempotency_key.eq(origin.idempotency.as_ref().map(|(key, _)| key)),
                runs::idempotency_digest
                    .eq(origin.idempotency.as_ref().map(|(_, digest)| digest.as_bytes().as_slice())),
            ),
        ))
        .on_conflict_do_nothing()
        .returning(Row::as_returning())
        .get_results(&mut conn)
        .await
        .and_then(exactly_one)
        .optional()
}

/// A row that was just inserted.
pub(crate) fn accepted(row: Row) -> Result<Acceptance, DatabaseError> {
    Ok(Acceptance::Accepted(Box::new(row.try_into()?)))
}

/// Why a run was not accepted.
pub(crate) fn refused(error: QueryError) -> DatabaseError {
    match violated(&error, Refusal::ForeignKey) {
        Some(constraint) => DatabaseError::Missing { what: referred_by(constraint) },
        None => DatabaseError::query("accepting a run", error),
    }
}

fn referred_by(constraint: &str) -> &'static str {
    match constraint {
        "runs_project_id_fkey" => "the project",
        "runs_graph_digest_fkey" => "the graph",
        "runs_pipeline_id_pipeline_version_fkey" => "the version of the pipeline",
        "runs_task_id_fkey" => "the task",
        "runs_schedule_id_fkey" => "the schedule",
        _ => "something that the run refers to",
    }
}

impl Runs {
    /// What became of the request that used this key in the project, seen from one of this digest: accepted before, or
    /// another. `None` if none did.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn find_by_key(
        &self,
        project: ProjectId,
        key: &str,
        digest: Digest,
    ) -> Result<Option<Acceptance>, DatabaseError> {
        let conn = self.pool.get().await?;
        find_by_key(&conn, project, key, digest).await
    }
}

async fn find_by_key(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    key: &str,
    digest: Digest,
) -> Result<Option<Acceptance>, DatabaseError> {
    let earlier: Option<(Uuid, Option<Vec<u8>>)> = runs::table
        .filter(runs::project_id.eq(project.as_uuid()).and(runs::idempotency_key.eq(key)))
        .select((runs::id, runs::idempotency_digest))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for an accepted run", error))?;
    Ok(earlier.map(|(id, stored)| {
        let is_same = stored.as_deref() == Some(digest.as_bytes().as_slice());
        if is_same { Acceptance::AcceptedBefore(id.into()) } else { Acceptance::OtherRequest }
    }))
}

/// The run that a repeated request was accepted as.
pub(crate) async fn find_accepted(
    mut conn: &AsyncPgConnection,
    run: &NewRun,
    origin: &RunOrigin,
) -> Result<Acceptance, DatabaseError> {
    let failed = |error| DatabaseError::query("looking for an accepted run", error);
    if let Some((key, digest)) = &origin.idempotency
        && let Some(earlier) = find_by_key(conn, run.project, key, *digest).await?
    {
        return Ok(earlier);
    }
    let is_there = diesel::select(diesel::dsl::exists(runs::table.find(run.id.as_uuid())));
    if is_there.get_result::<bool>(&mut conn).await.map_err(failed)? {
        Ok(Acceptance::AcceptedBefore(run.id))
    } else {
        Err(DatabaseError::Conflict { what: "the run" })
    }
}

//! Accepting runs: once, however often a request is repeated.

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_control::{PlannedRun, Run};
use gathering_dag_engine::{NewRun, Record};
use gathering_domain::{Digest, PermitRequest, PipelineId, ProjectId, RunId, RunKind, ScheduleId};
use serde_json::Value;
use uuid::Uuid;

use crate::cluster::wake::Wake;
use crate::db::error::{DatabaseError, Refusal, violated};
use crate::db::schema::runs;
use crate::runs::journal::insert::{Entries, append};
use crate::runs::list::Runs;
use crate::runs::row::Row;
use crate::runs::transitions::insert::insert;

/// Where a run comes from, beside what the engine needs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOrigin {
    /// What it is one execution of.
    pub kind: RunKind,
    /// What made it, as the API shows it.
    pub trigger: Value,
    /// The pipeline and its version.
    pub pipeline: Option<(PipelineId, i32)>,
    /// The schedule that it belongs to.
    pub schedule: Option<ScheduleId>,
    /// The run whose successes it reuses.
    pub rerun_of: Option<RunId>,
    /// The client's key, unique in its project, and the digest of the request.
    pub idempotency: Option<(String, Digest)>,
    /// What it asks for before it starts. Without a pipeline it asks for nothing.
    pub permit: Option<PermitRequest>,
}

impl Default for RunOrigin {
    fn default() -> Self {
        Self {
            kind: RunKind::Local,
            trigger: Value::Object(serde_json::Map::new()),
            pipeline: None,
            schedule: None,
            rerun_of: None,
            idempotency: None,
            permit: None,
        }
    }
}

impl RunOrigin {
    /// Where a run comes from that was decided on.
    pub(crate) fn of(planned: &PlannedRun) -> Self {
        Self {
            kind: planned.kind,
            trigger: planned.trigger.clone(),
            pipeline: planned.pipeline,
            schedule: planned.schedule,
            rerun_of: planned.rerun_of,
            idempotency: planned.once.as_ref().map(|once| (once.key.as_str().to_owned(), once.digest)),
            permit: planned.permit.clone(),
        }
    }
}

/// The answer to a request for a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Acceptance {
    /// It is accepted now; this is its row.
    Accepted(Box<Run>),
    /// The same request was accepted before, as this run.
    AcceptedBefore(RunId),
    /// The idempotency key was used for another request.
    OtherRequest,
}

/// Why a run was not accepted.
pub(crate) fn refused(error: QueryError) -> DatabaseError {
    if let QueryError::DatabaseError(DatabaseErrorKind::NotNullViolation, info) = &error
        && info.column_name() == Some("project_id")
    {
        return DatabaseError::Missing { what: "the project or the pipeline" };
    }
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
        _ => "something that the run refers to",
    }
}

impl Runs {
    /// Accepts a run whose graph is stored: once this returns, it will reach a terminal state (I4).
    ///
    /// Repeats: safe. The same id, or the same idempotency key with the same digest, is answered with the run that was
    /// accepted before.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if the project, the graph, the pipeline version or another thing that it refers to does
    /// not exist: nothing was accepted. [`DatabaseError::Unavailable`]: it may or may not be accepted; repeat with the same
    /// id.
    pub async fn accept(&self, run: &NewRun, origin: &RunOrigin) -> Result<Acceptance, DatabaseError> {
        let conn = self.pool.get().await?;
        let inserted = insert(&conn, run, origin).await;
        self.answer(&conn, run, origin, inserted).await
    }

    /// As [`Runs::accept`], and the run's journal begins with these records, in the same transaction. `origin` must name
    /// the run that it repeats: only then does the first claim read the journal.
    ///
    /// Repeats: safe; a run that was accepted before keeps its journal.
    ///
    /// # Errors
    /// As [`Runs::accept`].
    pub async fn accept_rerun(
        &self,
        run: &NewRun,
        origin: &RunOrigin,
        records: &[Record],
    ) -> Result<Acceptance, DatabaseError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let inserted = conn.transaction(async |conn| {
            let row = insert(conn, run, origin).await?;
            if row.is_some() && !records.is_empty() {
                append(conn, Entries::of_new_run(run.id, records)).await?;
            }
            Ok(row)
        });
        let inserted = inserted.await;
        self.answer(conn, run, origin, inserted).await
    }

    async fn answer(
        &self,
        conn: &AsyncPgConnection,
        run: &NewRun,
        origin: &RunOrigin,
        inserted: QueryResult<Option<Row>>,
    ) -> Result<Acceptance, DatabaseError> {
        match inserted.map_err(refused)? {
            Some(row) => {
                self.wakes.wake(Wake::Runs);
                Ok(Acceptance::Accepted(Box::new(row.try_into()?)))
            }
            None => find_accepted(conn, run, origin).await,
        }
    }

    /// The answer that the request with this digest gets for a key that was used in the project before. `None` if no
    /// request used the key.
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
        .map_err(|error| DatabaseError::query("looking up an accepted run", error))?;
    Ok(earlier.map(|(id, stored)| {
        let is_same = stored.as_deref() == Some(digest.as_bytes().as_slice());
        if is_same { Acceptance::AcceptedBefore(id.into()) } else { Acceptance::OtherRequest }
    }))
}

/// The run that a repeated request was accepted as.
async fn find_accepted(
    mut conn: &AsyncPgConnection,
    run: &NewRun,
    origin: &RunOrigin,
) -> Result<Acceptance, DatabaseError> {
    let failed = |error| DatabaseError::query("looking up an accepted run", error);
    if let Some((key, digest)) = &origin.idempotency
        && let Some(earlier) = find_by_key(conn, run.project, key, *digest).await?
    {
        return Ok(earlier);
    }
    let exists = diesel::select(diesel::dsl::exists(runs::table.find(run.id.as_uuid())));
    if exists.get_result::<bool>(&mut conn).await.map_err(failed)? {
        Ok(Acceptance::AcceptedBefore(run.id))
    } else {
        Err(DatabaseError::Conflict { what: "the run" })
    }
}

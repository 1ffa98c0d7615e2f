//! Deleting a project or a pipeline, however many runs it has.
//!
//! The request hides it: one transaction sets `deleting_at`, from which on nobody finds it and no run of it starts. What
//! belongs to it leaves in batches, each in a transaction of its own that locks the hidden row, so that of several
//! instances one works on it at a time. The hidden row leaves last. Whatever ends a deletion early, [`finish_deletions`]
//! completes it on any instance.

use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::control::hooks;
use crate::control::schedules::ledger;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::{events, pipelines, projects, runs};

/// How many rows leave in one transaction: with what refers to them that takes well under a second.
const ROWS_AT_ONCE: i64 = 2000;

/// The same for deliveries of hooks, which are larger.
const DELIVERIES_AT_ONCE: i64 = 500;

/// How long a request goes on with its deletion; what is left then is for [`finish_deletions`].
const OF_REQUEST: Duration = Duration::from_millis(500);

/// What is being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// With its runs, schedules, hooks, events, pipelines and members. The journals of its runs leave with their partitions.
    Project(Uuid),
    /// With its versions. Its runs stay, and name no pipeline any more.
    Pipeline(Uuid),
}

/// Completes the deletions that were begun, on this or another instance; answers with how many ended here. To be repeated,
/// say every half a minute.
///
/// Repeats: safe, also on several instances at once. Cancel: safe; what a batch deleted stays so.
///
/// # Errors
/// [`DatabaseError::Unavailable`], [`DatabaseError::TimedOut`] or [`DatabaseError::Fault`]; repeating goes on from there.
pub async fn finish_deletions(pool: &Pool) -> Result<usize, DatabaseError> {
    let hidden = load_hidden(pool).await?;
    let mut n_ended = 0;
    for one in hidden {
        n_ended += usize::from(delete_batches(pool, one, None).await?);
    }
    Ok(n_ended)
}

/// Goes on with a deletion for as long as a request may take. That it does not end here is no failure.
pub(crate) async fn begin(pool: &Pool, hidden: Hidden) {
    if let Err(error) = delete_batches(pool, hidden, Some(OF_REQUEST)).await {
        tracing::warn!(error = %error, "the deletion of {hidden:?} continues in the background: {error}");
    }
}

async fn load_hidden(pool: &Pool) -> Result<Vec<Hidden>, DatabaseError> {
    let failed = |error| DatabaseError::query("looking for deletions to finish", error);
    let conn = pool.get().await?;
    let of_pipelines: Vec<Uuid> = pipelines::table
        .filter(pipelines::deleting_at.is_not_null())
        .select(pipelines::id)
        .load(&mut &*conn)
        .await
        .map_err(failed)?;
    let of_projects: Vec<Uuid> = projects::table
        .filter(projects::deleting_at.is_not_null())
        .select(projects::id)
        .load(&mut &*conn)
        .await
        .map_err(failed)?;
    let of_projects = of_projects.into_iter().map(Hidden::Project);
    Ok(of_pipelines.into_iter().map(Hidden::Pipeline).chain(of_projects).collect())
}

/// Answers whether the deletion ended here. The connection goes back to the pool between two batches.
async fn delete_batches(pool: &Pool, hidden: Hidden, limit: Option<Duration>) -> Result<bool, DatabaseError> {
    let began = Instant::now();
    loop {
        let mut conn = pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let batch = conn.transaction(async |conn| match hidden {
            Hidden::Project(id) => delete_batch_of_project(conn, id).await,
            Hidden::Pipeline(id) => delete_batch_of_pipeline(conn, id).await,
        });
        match batch.await.map_err(|error| DatabaseError::query("deleting a batch of rows", error))? {
            Batch::More => {}
            Batch::Last => return Ok(true),
            Batch::NotMine => return Ok(false),
        }
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            return Ok(false);
        }
    }
}

enum Batch {
    More,
    /// The hidden row itself is gone.
    Last,
    /// Another instance is working on it, or has ended it.
    NotMine,
}

async fn delete_batch_of_project(mut conn: &AsyncPgConnection, id: Uuid) -> QueryResult<Batch> {
    let marked = projects::table.find(id).filter(projects::deleting_at.is_not_null());
    let locked = marked.select(projects::id).for_update().skip_locked();
    if locked.first::<Uuid>(&mut conn).await.optional()?.is_none() {
        return Ok(Batch::NotMine);
    }
    let some = diesel::alias!(runs as some);
    let batch =
        some.filter(some.field(runs::project_id).eq(id)).select(some.field(runs::id)).limit(ROWS_AT_ONCE);
    if diesel::delete(runs::table.filter(runs::id.eq_any(batch))).execute(&mut conn).await? > 0 {
        return Ok(Batch::More);
    }
    if ledger::delete_some_of_project(conn, id, ROWS_AT_ONCE).await? > 0 {
        return Ok(Batch::More);
    }
    if hooks::ledger::delete_some_of_project(conn, id, DELIVERIES_AT_ONCE).await? > 0 {
        return Ok(Batch::More);
    }
    let some = diesel::alias!(events as some);
    let batch = some
        .filter(some.field(events::project_id).eq(id))
        .select(some.field(events::seq))
        .limit(ROWS_AT_ONCE);
    if diesel::delete(events::table.filter(events::seq.eq_any(batch))).execute(&mut conn).await? > 0 {
        return Ok(Batch::More);
    }
    diesel::delete(projects::table.find(id)).execute(&mut conn).await?;
    Ok(Batch::Last)
}

async fn delete_batch_of_pipeline(mut conn: &AsyncPgConnection, id: Uuid) -> QueryResult<Batch> {
    let marked = pipelines::table.find(id).filter(pipelines::deleting_at.is_not_null());
    let locked = marked.select(pipelines::id).for_update().skip_locked();
    if locked.first::<Uuid>(&mut conn).await.optional()?.is_none() {
        return Ok(Batch::NotMine);
    }
    let some = diesel::alias!(runs as some);
    let batch =
        some.filter(some.field(runs::pipeline_id).eq(id)).select(some.field(runs::id)).limit(ROWS_AT_ONCE);
    let unlinked = (runs::pipeline_id.eq(None::<Uuid>), runs::pipeline_version.eq(None::<i32>));
    if diesel::update(runs::table.filter(runs::id.eq_any(batch))).set(unlinked).execute(&mut conn).await? > 0
    {
        return Ok(Batch::More);
    }
    diesel::delete(pipelines::table.find(id)).execute(&mut conn).await?;
    Ok(Batch::Last)
}

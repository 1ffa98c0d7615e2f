//! Runs of the local command line, found again by what they execute.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Jsonb};
use diesel_async::RunQueryDsl;
use gathering_domain::{Digest, ProjectId, RunId, RunKind};
use serde_json::Value;
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::runs;

/// The newest run of the kind `local` in this project that executes this graph, with this input where one is given.
///
/// # Errors
/// [`DatabaseError::Unavailable`].
pub async fn find_latest_local_run(
    pool: &Pool,
    project: ProjectId,
    graph: Digest,
    input: Option<&Value>,
) -> Result<Option<RunId>, DatabaseError> {
    let conn = pool.get().await?;
    let mut query = runs::table
        .filter(runs::project_id.eq(project.as_uuid()))
        .filter(runs::graph_digest.eq(graph.as_bytes().as_slice().to_vec()))
        .filter(runs::kind.eq(RunKind::Local.as_str()))
        .order(runs::id.desc())
        .select(runs::id)
        .into_boxed();
    if let Some(input) = input {
        // The column is `json`, which has no equality; as `jsonb` the order of keys does not matter either.
        query = query.filter(sql::<Bool>("input::jsonb = ").bind::<Jsonb, _>(input.clone()));
    }
    let id: Option<Uuid> = query
        .first(&mut &*conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking up a local run", error))?;
    Ok(id.map(Into::into))
}

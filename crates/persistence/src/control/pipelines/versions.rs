//! What a pipeline was: its versions, which are only ever added.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Bytea, Integer, Json, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{Definitions, PipelineVersion, VersionsPage};
use gathering_domain::PipelineId;
use serde_json::Value;
use uuid::Uuid;

use super::graph_digest;
use crate::db::error::DatabaseError;

/// About how many bytes of definitions are read for one page: a definition may have many megabytes.
const MAX_DEFINITION_BYTES: i64 = 8 * 1024 * 1024;

/// The running sum says what is read before each version, so that the large columns of those behind the limit are
/// measured but not sent.
const LIST: &str = "
    SELECT version, graph_digest, created_by, created_at, definition, has_more FROM (
        SELECT v.version, v.graph_digest, v.created_by, v.created_at, g.definition,
            sum(octet_length(g.definition::text)) OVER (ORDER BY v.version DESC) - octet_length(g.definition::text) AS n_before,
            lead(v.version) OVER (ORDER BY v.version DESC) IS NOT NULL AS has_more,
            row_number() OVER (ORDER BY v.version DESC) AS place
        FROM (SELECT * FROM pipeline_versions WHERE pipeline_id = $1 AND version < $2
              ORDER BY version DESC LIMIT $3 + 1) AS v
        LEFT JOIN graphs AS g ON $4 AND g.digest = v.graph_digest) AS measured
    WHERE place <= $3 AND (n_before IS NULL OR n_before < $5)
    ORDER BY version DESC";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Bytea)]
    graph_digest: Vec<u8>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    created_by: Option<Uuid>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Json>)]
    definition: Option<Value>,
    #[diesel(sql_type = Bool)]
    has_more: bool,
}

fn version_of(row: Row) -> Result<PipelineVersion, DatabaseError> {
    Ok(PipelineVersion {
        version: row.version,
        graph: graph_digest(&row.graph_digest)?,
        created_by: row.created_by.map(Into::into),
        created_at: row.created_at,
        definition: row.definition,
    })
}

/// At most `limit` versions, the latest first, before version `before` (absent: from the latest).
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    before: Option<i32>,
    limit: usize,
    definitions: Definitions,
) -> Result<VersionsPage, DatabaseError> {
    let rows: Vec<Row> = diesel::sql_query(LIST)
        .bind::<SqlUuid, _>(id.as_uuid())
        .bind::<Integer, _>(before.unwrap_or(i32::MAX))
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX - 1))
        .bind::<Bool, _>(definitions == Definitions::Included)
        .bind::<BigInt, _>(MAX_DEFINITION_BYTES)
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing versions of a pipeline", error))?;
    let has_more = rows.last().is_some_and(|last| last.has_more);
    let items = rows.into_iter().map(version_of).collect::<Result<_, _>>()?;
    Ok(VersionsPage { items, has_more })
}

//! What a pipeline was: its versions, which are only ever added.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Bytea, Integer, Json, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use gathering_domain::{Digest, PipelineId, UserId};
use serde_json::Value;
use uuid::Uuid;

use super::{Pipelines, find_version, graph_digest};
use crate::db::error::DatabaseError;
use crate::runs::graphs;

/// About how many bytes of definitions are read for one page: a definition may have many megabytes.
const MAX_DEFINITION_BYTES: i64 = 8 * 1024 * 1024;

/// A version of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineVersion {
    /// Its number, from 1.
    pub version: i32,
    /// Its graph.
    pub graph: Digest,
    /// Who made it, if they still have an account.
    pub created_by: Option<UserId>,
    /// When, in UTC.
    pub created_at: DateTime<Utc>,
    /// Its definition, where it was asked for.
    pub definition: Option<Value>,
}

/// Whether a list of versions has their definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definitions {
    /// It has none.
    Omitted,
    /// It has all of them, and is shorter when they are large; at least one version is in it.
    Included,
}

/// Some versions of a pipeline, the latest first.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionsPage {
    /// The versions.
    pub items: Vec<PipelineVersion>,
    /// Whether there are older ones.
    pub has_more: bool,
}

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

impl TryFrom<Row> for PipelineVersion {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            version: row.version,
            graph: graph_digest(&row.graph_digest)?,
            created_by: row.created_by.map(Into::into),
            created_at: row.created_at,
            definition: row.definition,
        })
    }
}

impl Pipelines {
    /// At most `limit` versions, the latest first, before version `before` (absent: from the latest).
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn list_versions(
        &self,
        id: PipelineId,
        before: Option<i32>,
        limit: usize,
        definitions: Definitions,
    ) -> Result<VersionsPage, DatabaseError> {
        let conn = self.pool.get().await?;
        let rows: Vec<Row> = diesel::sql_query(LIST)
            .bind::<SqlUuid, _>(id.as_uuid())
            .bind::<Integer, _>(before.unwrap_or(i32::MAX))
            .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX - 1))
            .bind::<Bool, _>(definitions == Definitions::Included)
            .bind::<BigInt, _>(MAX_DEFINITION_BYTES)
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing versions of a pipeline", error))?;
        let has_more = rows.last().is_some_and(|last| last.has_more);
        let items = rows.into_iter().map(PipelineVersion::try_from).collect::<Result<_, _>>()?;
        Ok(VersionsPage { items, has_more })
    }

    /// The digest and definition of one version.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if there is none.
    pub async fn load_definition(
        &self,
        id: PipelineId,
        version: i32,
    ) -> Result<(Digest, Value), DatabaseError> {
        let missing = DatabaseError::Missing { what: "the version of the pipeline" };
        let conn = self.pool.get().await?;
        let digest = find_version(&conn, id, version).await?.ok_or(missing)?;
        Ok((digest, graphs::load(&conn, digest).await?))
    }
}

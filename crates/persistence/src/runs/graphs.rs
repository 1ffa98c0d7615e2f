//! Definitions, addressed by their content. They are added and never changed.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::first_nodes;
use gathering_domain::Digest;
use serde_json::Value;

use crate::db::error::DatabaseError;
use crate::db::schema::graphs;

/// Stores a definition, unless it is stored already.
pub(crate) async fn ensure(
    mut conn: &AsyncPgConnection,
    digest: Digest,
    definition: &Value,
) -> Result<(), DatabaseError> {
    diesel::insert_into(graphs::table)
        .values((
            graphs::digest.eq(digest.as_bytes().as_slice()),
            graphs::definition.eq(definition),
            graphs::first_nodes.eq(first_nodes(definition)),
        ))
        .on_conflict_do_nothing()
        .execute(&mut conn)
        .await
        .map(|_| ())
        .map_err(|error| DatabaseError::query("storing a graph", error))
}

/// The definition of this digest.
pub(crate) async fn load(mut conn: &AsyncPgConnection, digest: Digest) -> Result<Value, DatabaseError> {
    graphs::table
        .find(digest.as_bytes().as_slice())
        .select(graphs::definition)
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("loading a graph", error))?
        .ok_or(DatabaseError::Missing { what: "the graph" })
}

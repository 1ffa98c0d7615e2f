//! Runs of the local command line, found again by their file.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{LocalFile, Run};
use gathering_domain::{ProjectId, RunKind};

use crate::db::all_runs::all_runs;
use crate::db::error::DatabaseError;
use crate::runs::row::Row;

/// The newest run of the kind `local` that was started of this file in this project.
///
/// # Errors
/// [`DatabaseError`].
pub(crate) async fn find_latest(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    file: &LocalFile,
) -> Result<Option<Run>, DatabaseError> {
    let row: Option<Row> = all_runs::table
        .filter(all_runs::project_id.eq(project.as_uuid()))
        .filter(all_runs::kind.eq(RunKind::Local.as_str()))
        .filter(sql::<Bool>("trigger->>'file' = ").bind::<Text, _>(&file.path))
        .filter(sql::<Bool>("trigger->>'name' IS NOT DISTINCT FROM ").bind::<Nullable<Text>, _>(&file.name))
        .order(all_runs::id.desc())
        .select(Row::as_select())
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a local run", error))?;
    row.map(Run::try_from).transpose()
}

//! Pipelines and their versions.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_domain::{Digest, PipelineId, ProjectId, UserId};
use serde_json::Value;
use uuid::Uuid;

use crate::error::{DatabaseError, Refusal, violated};
use crate::graphs;
use crate::pool::Pool;
use crate::schema::{pipeline_versions, pipelines, project_members};

/// What a pipeline shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPipeline {
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether it may start runs.
    pub enabled: bool,
    /// Its definition, checked, as its author wrote it; the digest is of this value.
    pub definition: Value,
}

/// A pipeline as it stands, without its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Which.
    pub id: PipelineId,
    /// Whose.
    pub project: ProjectId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether it may start runs.
    pub enabled: bool,
    /// The latest version, from 1.
    pub version: i32,
    /// Since when, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, in UTC.
    pub updated_at: DateTime<Utc>,
}

/// A version of a pipeline, without its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineVersion {
    /// Its number, from 1.
    pub version: i32,
    /// Its graph.
    pub graph: Digest,
    /// Who made it, if they still have an account.
    pub created_by: Option<UserId>,
    /// When, in UTC.
    pub created_at: DateTime<Utc>,
}

/// The pipelines. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct Pipelines {
    pool: Pool,
}

impl Pipelines {
    /// The pipelines where `pool` leads.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Creates a pipeline in its version 1.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if there is no such project; nothing was created.
    pub async fn create(
        &self,
        id: PipelineId,
        project: ProjectId,
        new: &NewPipeline,
        author: Option<UserId>,
    ) -> Result<Pipeline, DatabaseError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let digest = Digest::of_json(&new.definition);
        graphs::ensure(conn, digest, &new.definition).await?;
        let created = conn.transaction(async |conn| {
            let row = diesel::insert_into(pipelines::table)
                .values((
                    pipelines::id.eq(id.as_uuid()),
                    pipelines::project_id.eq(project.as_uuid()),
                    pipelines::name.eq(&new.name),
                    pipelines::description.eq(&new.description),
                    pipelines::enabled.eq(new.enabled),
                    pipelines::version.eq(1),
                ))
                .returning(Row::as_returning())
                .get_result::<Row>(conn)
                .await?;
            insert_version(conn, id, 1, digest, author).await?;
            Ok(row)
        });
        created.await.map(Into::into).map_err(|error| match violated(&error, Refusal::ForeignKey) {
            Some("pipelines_project_id_fkey") => DatabaseError::Missing { what: "the project" },
            _ => DatabaseError::query("creating a pipeline", error),
        })
    }

    /// Makes a new version, if the latest is still `expected` (absent: whichever). Running runs keep theirs.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if there is no such pipeline, [`DatabaseError::Conflict`] if its latest version is
    /// another; nothing was changed.
    pub async fn replace(
        &self,
        id: PipelineId,
        expected: Option<i32>,
        new: &NewPipeline,
        author: Option<UserId>,
    ) -> Result<Pipeline, DatabaseError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let digest = Digest::of_json(&new.definition);
        graphs::ensure(conn, digest, &new.definition).await?;
        let replaced = conn
            .transaction(async |conn| replace(conn, id, expected, new, digest, author).await)
            .await
            .map_err(|error| DatabaseError::query("changing a pipeline", error))?;
        match replaced {
            Replaced::Done(row) => Ok(row.into()),
            Replaced::Missing => Err(DatabaseError::Missing { what: "the pipeline" }),
            Replaced::OtherVersion => Err(DatabaseError::Conflict { what: "the version of the pipeline" }),
        }
    }

    /// The pipeline, if it is there.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn find(&self, id: PipelineId) -> Result<Option<Pipeline>, DatabaseError> {
        let conn = self.pool.get().await?;
        let row: Option<Row> = pipelines::table
            .find(id.as_uuid())
            .select(Row::as_select())
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for a pipeline", error))?;
        Ok(row.map(Into::into))
    }

    /// At most `limit` pipelines, the newest first, of projects that the user is a member of (absent: all) and of this
    /// project (absent: any). `before` is the last of the page before.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn list(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<PipelineId>,
        limit: usize,
    ) -> Result<Vec<Pipeline>, DatabaseError> {
        let conn = self.pool.get().await?;
        let mut query = pipelines::table.into_boxed();
        if let Some(user) = visible_to {
            let own = project_members::table
                .filter(project_members::user_id.eq(user.as_uuid()))
                .select(project_members::project_id);
            query = query.filter(pipelines::project_id.eq_any(own));
        }
        if let Some(project) = project {
            query = query.filter(pipelines::project_id.eq(project.as_uuid()));
        }
        if let Some(before) = before {
            query = query.filter(pipelines::id.lt(before.as_uuid()));
        }
        let rows: Vec<Row> = query
            .order(pipelines::id.desc())
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select(Row::as_select())
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing pipelines", error))?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// At most `limit` versions, the latest first, before version `before` (absent: from the latest).
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn list_versions(
        &self,
        id: PipelineId,
        before: Option<i32>,
        limit: usize,
    ) -> Result<Vec<PipelineVersion>, DatabaseError> {
        let conn = self.pool.get().await?;
        let rows: Vec<VersionRow> = pipeline_versions::table
            .filter(pipeline_versions::pipeline_id.eq(id.as_uuid()))
            .filter(pipeline_versions::version.lt(before.unwrap_or(i32::MAX)))
            .order(pipeline_versions::version.desc())
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select((
                pipeline_versions::version,
                pipeline_versions::graph_digest,
                pipeline_versions::created_by,
                pipeline_versions::created_at,
            ))
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing versions of a pipeline", error))?;
        rows.into_iter()
            .map(|(version, graph, created_by, created_at)| {
                let graph = Digest::try_from(graph.as_slice())
                    .map_err(|error| DatabaseError::corrupt("the graph of a pipeline", error))?;
                Ok(PipelineVersion { version, graph, created_by: created_by.map(Into::into), created_at })
            })
            .collect()
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
        let conn = self.pool.get().await?;
        let digest: Option<Vec<u8>> = pipeline_versions::table
            .find((id.as_uuid(), version))
            .select(pipeline_versions::graph_digest)
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("loading a version of a pipeline", error))?;
        let digest = digest.ok_or(DatabaseError::Missing { what: "the version of the pipeline" })?;
        let digest = Digest::try_from(digest.as_slice())
            .map_err(|error| DatabaseError::corrupt("the graph of a pipeline", error))?;
        Ok((digest, graphs::load(&conn, digest).await?))
    }

    /// Deletes a pipeline with its versions; its runs stay. Answers whether there was one.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]; nothing was deleted.
    pub async fn delete(&self, id: PipelineId) -> Result<bool, DatabaseError> {
        let conn = self.pool.get().await?;
        let n_rows = diesel::delete(pipelines::table.find(id.as_uuid()))
            .execute(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("deleting a pipeline", error))?;
        Ok(n_rows == 1)
    }
}

type VersionRow = (i32, Vec<u8>, Option<Uuid>, DateTime<Utc>);

enum Replaced {
    Done(Row),
    Missing,
    OtherVersion,
}

async fn replace(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    expected: Option<i32>,
    new: &NewPipeline,
    digest: Digest,
    author: Option<UserId>,
) -> QueryResult<Replaced> {
    let latest: Option<i32> = pipelines::table
        .find(id.as_uuid())
        .select(pipelines::version)
        .for_no_key_update()
        .first(&mut conn)
        .await
        .optional()?;
    let Some(latest) = latest else { return Ok(Replaced::Missing) };
    if expected.is_some_and(|expected| expected != latest) {
        return Ok(Replaced::OtherVersion);
    }
    let version = latest.saturating_add(1);
    insert_version(conn, id, version, digest, author).await?;
    let row = diesel::update(pipelines::table.find(id.as_uuid()))
        .set((
            pipelines::name.eq(&new.name),
            pipelines::description.eq(&new.description),
            pipelines::enabled.eq(new.enabled),
            pipelines::version.eq(version),
            pipelines::updated_at.eq(diesel::dsl::now),
        ))
        .returning(Row::as_returning())
        .get_result(&mut conn)
        .await?;
    Ok(Replaced::Done(row))
}

async fn insert_version(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    version: i32,
    digest: Digest,
    author: Option<UserId>,
) -> QueryResult<()> {
    diesel::insert_into(pipeline_versions::table)
        .values((
            pipeline_versions::pipeline_id.eq(id.as_uuid()),
            pipeline_versions::version.eq(version),
            pipeline_versions::graph_digest.eq(digest.as_bytes().as_slice()),
            pipeline_versions::created_by.eq(author.map(UserId::as_uuid)),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = pipelines)]
struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    description: String,
    enabled: bool,
    version: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Pipeline {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            project: row.project_id.into(),
            name: row.name,
            description: row.description,
            enabled: row.enabled,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

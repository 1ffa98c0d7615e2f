//! Pipelines and their versions.

pub(crate) mod change;
pub(crate) mod versions;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::dsl::{not, sql};
use diesel::prelude::*;
use diesel::sql_types::{Array, Bytea, Json, Nullable};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{
    ControlError, Creation, Found, NewPipeline, Pipeline, PipelineHead, PipelineToStart, PipelineTool,
    RunRules,
};
use gathering_domain::{Digest, PipelineId, ProjectId, UserId};
use serde_json::Value;
use uuid::Uuid;

use crate::accounts::idempotency::{self, Claim, Kind};
use crate::control::projects::{hidden_projects, is_of_accounts, parse_role};
use crate::db::error::{Aborted, DatabaseError, Refusal, violated};
use crate::db::schema::{graphs, pipeline_versions, pipelines, project_members, projects};

/// Creates a pipeline in its version 1, unless the request's idempotency key says otherwise.
pub(crate) async fn create(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    by: Option<UserId>,
    new: &NewPipeline,
) -> Result<Creation<PipelineHead>, Aborted<ControlError>> {
    if let Some(user) = by {
        match idempotency::claim(conn, user, Kind::Pipeline, new.once.as_ref(), new.id.as_uuid()).await? {
            Claim::Granted => {}
            Claim::CreatedBefore(id) => {
                let earlier = find_in(conn, project, id.into()).await.map_err(refused)?;
                return Ok(earlier.map_or(Creation::Deleted, Creation::Repeated));
            }
            Claim::OtherRequest => return Ok(Creation::OtherRequest),
        }
    }
    let created = diesel::insert_into(pipelines::table)
        .values((
            pipelines::id.eq(new.id.as_uuid()),
            pipelines::project_id.eq(project.as_uuid()),
            pipelines::name.eq(&new.name),
            pipelines::description.eq(&new.description),
            pipelines::enabled.eq(new.enabled),
            pipelines::version.eq(1),
        ))
        .returning(Row::as_returning())
        .get_result::<Row>(&mut conn)
        .await;
    let row = created.map_err(|error| match violated(&error, Refusal::ForeignKey) {
        Some("pipelines_project_id_fkey") => Aborted::Refused(ControlError::NotFound),
        _ => Aborted::Query(error),
    })?;
    insert_version(conn, new.id, 1, new.graph, by).await?;
    Ok(Creation::Created(PipelineHead { pipeline: row.into(), graph: new.graph }))
}

fn refused(error: DatabaseError) -> Aborted<ControlError> {
    Aborted::Refused(error.into())
}

/// At most `limit` pipelines, the newest first, of projects that the user is a member of (absent: all) and of this
/// project (absent: any). `before` is the last of the previous page.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    visible_to: Option<UserId>,
    project: Option<ProjectId>,
    before: Option<PipelineId>,
    limit: usize,
) -> Result<Vec<Pipeline>, DatabaseError> {
    let mut query = pipelines::table
        .filter(not(pipelines::project_id.eq_any(hidden_projects())))
        .filter(pipelines::deleting_at.is_null())
        .into_boxed();
    if let Some(user) = visible_to {
        query = query.filter(pipelines::project_id.eq_any(projects_of(user)));
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
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing pipelines", error))?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// At most `limit` enabled pipelines whose latest version is a tool, the oldest first, of projects that the user is a
/// member of (absent: all). Of each definition only the input is read.
pub(crate) async fn list_tools(
    mut conn: &AsyncPgConnection,
    visible_to: Option<UserId>,
    limit: usize,
) -> Result<Vec<PipelineTool>, DatabaseError> {
    let mut query = pipelines::table
        .inner_join(pipeline_versions::table.on(is_latest()))
        .inner_join(graphs::table.on(graphs::digest.eq(pipeline_versions::graph_digest)))
        .filter(not(pipelines::project_id.eq_any(hidden_projects())))
        .filter(pipelines::deleting_at.is_null().and(pipelines::enabled).and(graphs::tool.is_not_null()))
        .into_boxed();
    if let Some(user) = visible_to {
        query = query.filter(pipelines::project_id.eq_any(projects_of(user)));
    }
    let input = sql::<Nullable<Json>>("graphs.definition -> 'input'");
    let rows: Vec<(Uuid, String, Option<Value>, Option<Value>)> = query
        .order(pipelines::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((pipelines::id, pipelines::name, graphs::tool, input))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing pipelines that are tools", error))?;
    let tool = |(id, name, tool, input): (Uuid, String, Option<Value>, Option<Value>)| {
        PipelineTool::new(id.into(), name, &tool?, input.as_ref())
    };
    Ok(rows.into_iter().filter_map(tool).collect())
}

#[diesel::dsl::auto_type]
fn projects_of(user: UserId) -> _ {
    let user: Uuid = user.as_uuid();
    project_members::table.filter(project_members::user_id.eq(user)).select(project_members::project_id)
}

/// The pipeline, and the role of this account in its project; nothing if the project is not one of accounts.
pub(crate) async fn find_as(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    user: UserId,
) -> Result<Option<Found<PipelineHead>>, DatabaseError> {
    let membership = project_members::project_id
        .eq(pipelines::project_id)
        .and(project_members::user_id.eq(user.as_uuid()));
    let row: Option<(Row, Vec<u8>, Option<String>)> = pipelines::table
        .inner_join(pipeline_versions::table.on(is_latest()))
        .inner_join(projects::table)
        .left_join(project_members::table.on(membership))
        .filter(pipelines::id.eq(id.as_uuid()).and(pipelines::deleting_at.is_null()).and(is_of_accounts()))
        .select((Row::as_select(), pipeline_versions::graph_digest, project_members::role.nullable()))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a pipeline", error))?;
    row.map(|(row, digest, role)| {
        let membership = role.map(|role| parse_role(&role)).transpose()?;
        Ok(Found { thing: head(row, &digest)?, membership })
    })
    .transpose()
}

/// The pipeline, if it belongs to this project.
pub(crate) async fn find_in(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    id: PipelineId,
) -> Result<Option<PipelineHead>, DatabaseError> {
    let row: Option<(Row, Vec<u8>)> = pipelines::table
        .inner_join(pipeline_versions::table.on(is_latest()))
        .filter(pipelines::id.eq(id.as_uuid()).and(pipelines::project_id.eq(project.as_uuid())))
        .filter(pipelines::deleting_at.is_null())
        .select((Row::as_select(), pipeline_versions::graph_digest))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a pipeline", error))?;
    row.map(|(row, digest)| head(row, &digest)).transpose()
}

/// A pipeline that is to be started, in this version (absent: the latest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PipelineToLock {
    pub(crate) pipeline: PipelineId,
    pub(crate) version: Option<i32>,
}

/// Keeps pipelines from being hidden until the end of the transaction, and loads each with what a run of the version
/// depends on. Those that are gone, or hidden, are absent, and so are those without that version.
pub(crate) async fn lock_for_start(
    mut conn: &AsyncPgConnection,
    wanted: HashSet<PipelineToLock>,
) -> Result<HashMap<PipelineToLock, PipelineToStart>, DatabaseError> {
    let failed = |error| DatabaseError::query("locking pipelines to start", error);
    let ids: HashSet<Uuid> = wanted.iter().map(|wanted| wanted.pipeline.as_uuid()).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<Row> = pipelines::table
        .filter(pipelines::id.eq_any(ids).and(pipelines::deleting_at.is_null()))
        .order(pipelines::id)
        .select(Row::as_select())
        .for_key_share()
        .load(&mut conn)
        .await
        .map_err(failed)?;
    let latest = rows.iter().map(|row| (row.id, row.version));
    let named = wanted.iter().filter_map(|wanted| Some((wanted.pipeline.as_uuid(), wanted.version?)));
    let (ids, versions): (Vec<Uuid>, Vec<i32>) = latest.chain(named).unzip();
    let graphs = load_graphs(conn, &ids, &versions).await.map_err(failed)?;
    let graph_of =
        |id: Uuid, version: i32| graphs.get(&(id, version)).map(|graph| graph_digest(graph)).transpose();
    let heads: HashMap<Uuid, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut locked = HashMap::new();
    for one in wanted {
        let Some(row) = heads.get(&one.pipeline.as_uuid()) else { continue };
        let version = one.version.unwrap_or(row.version);
        let (Some(latest), Some(graph)) = (graph_of(row.id, row.version)?, graph_of(row.id, version)?) else {
            continue;
        };
        locked.insert(one, (PipelineHead { pipeline: row.clone().into(), graph: latest }, graph));
    }
    let rules = load_run_rules(conn, locked.values().map(|(_, graph)| *graph)).await.map_err(failed)?;
    let to_start = |(one, (head, graph)): (PipelineToLock, (PipelineHead, Digest))| {
        let rules = rules.get(&graph).cloned().unwrap_or_default();
        (one, PipelineToStart { head, named: one.version.map(|_| graph), rules })
    };
    Ok(locked.into_iter().map(to_start).collect())
}

/// What holds for runs of these graphs. Of a large definition only the fields that say it are read.
pub(crate) async fn load_run_rules(
    mut conn: &AsyncPgConnection,
    graphs: impl Iterator<Item = Digest>,
) -> QueryResult<HashMap<Digest, RunRules>> {
    #[derive(QueryableByName)]
    struct Fields {
        #[diesel(sql_type = Bytea)]
        digest: Vec<u8>,
        #[diesel(sql_type = Json)]
        fields: Value,
    }
    let graphs: HashSet<Digest> = graphs.collect();
    if graphs.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "SELECT digest, json_build_object('timeout_seconds', definition -> 'timeout_seconds', \
                                                'input', definition -> 'input', \
                                                'concurrency', definition -> 'concurrency', \
                                                'rate_limit', definition -> 'rate_limit') AS fields \
               FROM graphs WHERE digest = ANY ($1)";
    let graphs: Vec<Vec<u8>> = graphs.iter().map(|graph| graph.as_bytes().to_vec()).collect();
    let rows: Vec<Fields> = diesel::sql_query(sql).bind::<Array<Bytea>, _>(graphs).load(&mut conn).await?;
    let rules = |row: Fields| {
        let rules = RunRules::of_definition(&row.fields);
        let rules = rules.map_err(|problems| diesel::result::Error::DeserializationError(problems.into()))?;
        let digest = Digest::try_from(&*row.digest);
        Ok((digest.map_err(|error| diesel::result::Error::DeserializationError(error.into()))?, rules))
    };
    rows.into_iter().map(rules).collect()
}

/// The graphs of these versions, by pipeline and version.
async fn load_graphs(
    mut conn: &AsyncPgConnection,
    ids: &[Uuid],
    numbers: &[i32],
) -> QueryResult<HashMap<(Uuid, i32), Vec<u8>>> {
    let rows: Vec<(Uuid, i32, Vec<u8>)> = pipeline_versions::table
        .filter(pipeline_versions::pipeline_id.eq_any(ids).and(pipeline_versions::version.eq_any(numbers)))
        .select((pipeline_versions::pipeline_id, pipeline_versions::version, pipeline_versions::graph_digest))
        .load(&mut conn)
        .await?;
    Ok(rows.into_iter().map(|(id, version, graph)| ((id, version), graph)).collect())
}

/// The graph of one version, if there is such a version.
pub(crate) async fn find_version(
    mut conn: &AsyncPgConnection,
    id: PipelineId,
    version: i32,
) -> Result<Option<Digest>, DatabaseError> {
    let digest: Option<Vec<u8>> = pipeline_versions::table
        .find((id.as_uuid(), version))
        .select(pipeline_versions::graph_digest)
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a version of a pipeline", error))?;
    digest.map(|digest| graph_digest(&digest)).transpose()
}

fn head(row: Row, digest: &[u8]) -> Result<PipelineHead, DatabaseError> {
    Ok(PipelineHead { pipeline: row.into(), graph: graph_digest(digest)? })
}

#[diesel::dsl::auto_type]
fn is_latest() -> _ {
    pipeline_versions::pipeline_id.eq(pipelines::id).and(pipeline_versions::version.eq(pipelines::version))
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

fn graph_digest(stored: &[u8]) -> Result<Digest, DatabaseError> {
    Digest::try_from(stored).map_err(|error| DatabaseError::corrupt("the graph of a pipeline", error))
}

#[derive(Clone, Queryable, Selectable)]
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

//! Agents and their versions.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::dsl::not;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Json, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_agents::AgentDefinition;
use gathering_auth::Caller;
use gathering_control::{
    Agent, AgentStore, ControlError, Creation, Found, NewAgent, PlannedAgentChange, PlannedAgentDeletion,
    Scoped, right,
};
use gathering_domain::{AgentId, ProjectId, RunId, UserId};
use gathering_nodes::AgentVersion;
use serde_json::Value;
use uuid::Uuid;

use crate::accounts::idempotency::{self, Claim, Kind};
use crate::control::projects::{hidden_projects, is_of_accounts, parse_role};
use crate::control::store::PgControlStore;
use crate::db::clock::clock_timestamp;
use crate::db::error::{Aborted, DatabaseError, Refusal, violated};
use crate::db::schema::{agent_versions, agents, project_members, projects};

#[async_trait]
impl AgentStore for PgControlStore {
    async fn find_agent(&self, by: &Caller, agent: AgentId) -> Result<Option<Found<Agent>>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(find_as(&conn, agent, by.user).await?)
    }

    async fn find_agent_for_run(
        &self,
        project: ProjectId,
        agent: AgentId,
        run: RunId,
    ) -> Result<Option<AgentVersion>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(find_for_run(&conn, project, agent, run).await?)
    }

    async fn list_agents(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<AgentId>,
        limit: usize,
    ) -> Result<Vec<Agent>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(list(&conn, visible_to, project, before, limit).await?)
    }

    async fn create_agent(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewAgent,
    ) -> Result<Creation<Agent>, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let (project, by) = (*project.thing(), project.user());
        let created = conn.transaction(async |conn| create(conn, project, by, new).await).await;
        created.map_err(|aborted| aborted.into_error("creating an agent"))
    }

    async fn change_agent(
        &self,
        agent: &Scoped<Agent, right::Write>,
        change: &PlannedAgentChange,
    ) -> Result<Agent, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let (id, by) = (agent.id, agent.user());
        let changed = conn.transaction(async |conn| update(conn, id, by, change).await).await;
        changed.map_err(|aborted| aborted.into_error("changing an agent"))
    }

    async fn delete_agent(
        &self,
        agent: &Scoped<Agent, right::Write>,
        deletion: &PlannedAgentDeletion,
    ) -> Result<(), ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let id = agent.id;
        let deleted = conn.transaction(async |conn| delete(conn, id, deletion).await).await;
        deleted.map_err(|aborted| aborted.into_error("deleting an agent"))
    }
}

/// The agent, and the role of this account in its project; nothing if the project is not one of accounts.
async fn find_as(
    mut conn: &AsyncPgConnection,
    id: AgentId,
    user: UserId,
) -> Result<Option<Found<Agent>>, DatabaseError> {
    let membership =
        project_members::project_id.eq(agents::project_id).and(project_members::user_id.eq(user.as_uuid()));
    let row: Option<(Row, Value, Option<String>)> = agents::table
        .inner_join(agent_versions::table.on(is_latest()))
        .inner_join(projects::table)
        .left_join(project_members::table.on(membership))
        .filter(agents::id.eq(id.as_uuid()).and(is_of_accounts()))
        .select((Row::as_select(), agent_versions::definition, project_members::role.nullable()))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for an agent", error))?;
    row.map(|(row, definition, role)| {
        let membership = role.map(|role| parse_role(&role)).transpose()?;
        Ok(Found { thing: agent(row, definition)?, membership })
    })
    .transpose()
}

/// `$1` is the project, `$2` the agent, `$3` the run. The versions are read from the latest until one is old enough.
const FIND_FOR_RUN: &str = "
    SELECT version.version, version.definition FROM agents CROSS JOIN LATERAL (
        SELECT version, definition FROM agent_versions
        WHERE agent_id = agents.id AND (version = 1 OR created_at <= (SELECT created_at FROM runs
            WHERE id = coalesce((SELECT root_run_id FROM child_runs WHERE run_id = $3), $3)))
        ORDER BY version DESC LIMIT 1
    ) AS version WHERE agents.id = $2 AND agents.project_id = $1";

async fn find_for_run(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    agent: AgentId,
    run: RunId,
) -> Result<Option<AgentVersion>, DatabaseError> {
    #[derive(QueryableByName)]
    struct Version {
        #[diesel(sql_type = Integer)]
        version: i32,
        #[diesel(sql_type = Json)]
        definition: Value,
    }
    let found: Option<Version> = diesel::sql_query(FIND_FOR_RUN)
        .bind::<SqlUuid, _>(project.as_uuid())
        .bind::<SqlUuid, _>(agent.as_uuid())
        .bind::<SqlUuid, _>(run.as_uuid())
        .get_result(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for the agent of a run", error))?;
    let version = |Version { version, definition }| {
        Ok(AgentVersion { version, definition: parse_definition(definition)? })
    };
    found.map(version).transpose()
}

/// At most `limit` agents, the newest first, of projects that the user is a member of (absent: all) and of this project
/// (absent: any). `before` is the last of the previous page.
async fn list(
    mut conn: &AsyncPgConnection,
    visible_to: Option<UserId>,
    project: Option<ProjectId>,
    before: Option<AgentId>,
    limit: usize,
) -> Result<Vec<Agent>, DatabaseError> {
    let mut query = agents::table
        .inner_join(agent_versions::table.on(is_latest()))
        .filter(not(agents::project_id.eq_any(hidden_projects())))
        .into_boxed();
    if let Some(user) = visible_to {
        let own = project_members::table
            .filter(project_members::user_id.eq(user.as_uuid()))
            .select(project_members::project_id);
        query = query.filter(agents::project_id.eq_any(own));
    }
    if let Some(project) = project {
        query = query.filter(agents::project_id.eq(project.as_uuid()));
    }
    if let Some(before) = before {
        query = query.filter(agents::id.lt(before.as_uuid()));
    }
    let rows: Vec<(Row, Value)> = query
        .order(agents::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((Row::as_select(), agent_versions::definition))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing agents", error))?;
    rows.into_iter().map(|(row, definition)| agent(row, definition)).collect()
}

/// Creates an agent in its version 1, unless the request's idempotency key says otherwise.
async fn create(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    by: Option<UserId>,
    new: &NewAgent,
) -> Result<Creation<Agent>, Aborted<ControlError>> {
    if let Some(user) = by {
        match idempotency::claim(conn, user, Kind::Agent, new.once.as_ref(), new.id.as_uuid()).await? {
            Claim::Granted => {}
            Claim::CreatedBefore(id) => {
                let earlier: Option<(Row, Value)> = agents::table
                    .inner_join(agent_versions::table.on(is_latest()))
                    .filter(agents::id.eq(id).and(agents::project_id.eq(project.as_uuid())))
                    .select((Row::as_select(), agent_versions::definition))
                    .first(&mut conn)
                    .await
                    .optional()?;
                let earlier = earlier.map(|(row, definition)| agent(row, definition)).transpose();
                return Ok(earlier.map_err(refused)?.map_or(Creation::Deleted, Creation::Repeated));
            }
            Claim::OtherRequest => return Ok(Creation::OtherRequest),
        }
    }
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let created = diesel::insert_into(agents::table)
        .values((
            agents::id.eq(new.id.as_uuid()),
            agents::project_id.eq(project.as_uuid()),
            agents::version.eq(1),
            agents::created_at.eq(now),
            agents::updated_at.eq(now),
        ))
        .execute(&mut conn)
        .await;
    created.map_err(|error| match violated(&error, Refusal::ForeignKey) {
        Some("agents_project_id_fkey") => Aborted::Refused(ControlError::NotFound),
        _ => Aborted::Query(error),
    })?;
    let definition = new.definition.clone();
    let agent = Agent { id: new.id, project, definition, version: 1, created_at: now, updated_at: now };
    insert_version(conn, &agent, by).await?;
    Ok(Creation::Created(agent))
}

/// Another transaction that changes the agent waits for this lock, and then reads what stands.
async fn lock(mut conn: &AsyncPgConnection, id: AgentId) -> Result<Agent, Aborted<ControlError>> {
    let found = agents::table.find(id.as_uuid()).select(Row::as_select());
    let locked: Option<Row> = found.for_no_key_update().first(&mut conn).await.optional()?;
    let row = locked.ok_or(Aborted::Refused(ControlError::NotFound))?;
    // By a statement of its own: the one that waited for the lock does not see a version that was made meanwhile.
    let latest = agent_versions::table.find((row.id, row.version)).select(agent_versions::definition);
    let definition: Value = latest.first(&mut conn).await?;
    agent(row, definition).map_err(refused)
}

async fn update(
    mut conn: &AsyncPgConnection,
    id: AgentId,
    by: Option<UserId>,
    change: &PlannedAgentChange,
) -> Result<Agent, Aborted<ControlError>> {
    let before = lock(conn, id).await?;
    let mut after = change.of(&before).map_err(Aborted::Refused)?;
    if after == before {
        return Ok(before);
    }
    // The time at which the transaction began may be before that of a change for which it waited.
    after.updated_at = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    insert_version(conn, &after, by).await?;
    diesel::update(agents::table.find(id.as_uuid()))
        .set((agents::version.eq(after.version), agents::updated_at.eq(after.updated_at)))
        .execute(&mut conn)
        .await?;
    Ok(after)
}

async fn delete(
    mut conn: &AsyncPgConnection,
    id: AgentId,
    deletion: &PlannedAgentDeletion,
) -> Result<(), Aborted<ControlError>> {
    deletion.permitted(&lock(conn, id).await?).map_err(Aborted::Refused)?;
    diesel::delete(agents::table.find(id.as_uuid())).execute(&mut conn).await?;
    Ok(())
}

/// Inserts the latest version of the agent.
async fn insert_version(
    mut conn: &AsyncPgConnection,
    agent: &Agent,
    author: Option<UserId>,
) -> Result<(), Aborted<ControlError>> {
    let definition = serde_json::to_value(&agent.definition);
    let definition = definition.map_err(|error| Aborted::Refused(ControlError::Broken(error.into())))?;
    diesel::insert_into(agent_versions::table)
        .values((
            agent_versions::agent_id.eq(agent.id.as_uuid()),
            agent_versions::version.eq(agent.version),
            agent_versions::definition.eq(definition),
            agent_versions::created_by.eq(author.map(UserId::as_uuid)),
            agent_versions::created_at.eq(agent.updated_at),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

fn refused(error: DatabaseError) -> Aborted<ControlError> {
    Aborted::Refused(error.into())
}

#[diesel::dsl::auto_type]
fn is_latest() -> _ {
    agent_versions::agent_id.eq(agents::id).and(agent_versions::version.eq(agents::version))
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = agents)]
struct Row {
    id: Uuid,
    project_id: Uuid,
    version: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

fn agent(row: Row, definition: Value) -> Result<Agent, DatabaseError> {
    Ok(Agent {
        id: row.id.into(),
        project: row.project_id.into(),
        definition: parse_definition(definition)?,
        version: row.version,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

/// It was valid when it was stored. Limits that a later version of this program lowered do not make it unreadable.
fn parse_definition(stored: Value) -> Result<AgentDefinition, DatabaseError> {
    serde_json::from_value(stored)
        .map_err(|error| DatabaseError::corrupt("the definition of an agent", error))
}

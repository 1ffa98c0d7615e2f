//! Mounted MCP servers: their rows, which refer to secrets by their names alone.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::AuditEvent;
use gathering_control::{
    ControlError, McpMount, McpPins, McpServerStore, OtherMount, PlannedAcceptance, PlannedMount, Scoped,
    StoredMcpServers, pins_bytes, right,
};
use gathering_domain::{McpServerName, ProjectId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::accounts::audit;
use crate::control::project_versions::{Versioned, begin_change};
use crate::control::store::PgControlStore;
use crate::db::clock::clock_timestamp;
use crate::db::error::{Aborted, DatabaseError};
use crate::db::schema::mcp_servers;

#[async_trait]
impl McpServerStore for PgControlStore {
    async fn mount_mcp_server(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        mount: &PlannedMount,
    ) -> Result<McpMount, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let mounted = conn.transaction(async |conn| insert(conn, project, mount).await).await;
        mounted.map_err(|aborted| aborted.into_error("mounting an MCP server"))
    }

    async fn accept_mcp_tools(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        acceptance: &PlannedAcceptance,
    ) -> Result<McpMount, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let accepted = conn.transaction(async |conn| accept(conn, project, acceptance).await).await;
        accepted.map_err(|aborted| aborted.into_error("accepting tools of an MCP server"))
    }

    async fn unmount_mcp_server(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        name: &McpServerName,
        audit: &AuditEvent,
    ) -> Result<(), ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let unmounted = conn.transaction(async |conn| delete(conn, project, name, audit).await).await;
        unmounted.map_err(|aborted| aborted.into_error("unmounting an MCP server"))
    }

    async fn find_mcp_servers(
        &self,
        project: ProjectId,
        known: Option<i64>,
    ) -> Result<StoredMcpServers, ControlError> {
        let conn = self.pool.get().await?;
        Ok(find(&conn, project, known).await?)
    }
}

/// The servers of a project, with the sizes of their accepted definitions.
async fn sizes(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
) -> Result<Vec<OtherMount>, Aborted<ControlError>> {
    let rows: Vec<(String, Value)> = mcp_servers::table
        .filter(mcp_servers::project_id.eq(project.as_uuid()))
        .select((mcp_servers::name, mcp_servers::pins))
        .load(&mut conn)
        .await?;
    let sizes = rows.into_iter().map(|(name, pins)| Ok((read_name(name)?, pins_bytes(&read_pins(pins)?))));
    let sizes: Result<_, DatabaseError> = sizes.collect();
    sizes.map_err(|error| Aborted::Refused(error.into()))
}

async fn insert(
    mut conn: &AsyncPgConnection,
    project: &Scoped<ProjectId, right::Write>,
    mount: &PlannedMount,
) -> Result<McpMount, Aborted<ControlError>> {
    begin_change(conn, project, Versioned::McpServers).await?;
    mount.check(&sizes(conn, *project.thing()).await?).map_err(Aborted::Refused)?;
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let PlannedMount { name, settings, pins, by, .. } = mount.clone();
    diesel::insert_into(mcp_servers::table)
        .values((
            mcp_servers::project_id.eq(project.thing().as_uuid()),
            mcp_servers::name.eq(name.as_str()),
            mcp_servers::settings.eq(json!(settings)),
            mcp_servers::pins.eq(json!(pins)),
            mcp_servers::created_by.eq(by.map(|by| by.as_uuid())),
            mcp_servers::created_at.eq(now),
            mcp_servers::updated_at.eq(now),
        ))
        .execute(&mut conn)
        .await?;
    audit::insert(conn, &mount.audit).await?;
    let (created_at, updated_at) = (now, now);
    Ok(McpMount { project: *project.thing(), name, settings, pins, created_by: by, created_at, updated_at })
}

async fn accept(
    mut conn: &AsyncPgConnection,
    project: &Scoped<ProjectId, right::Write>,
    acceptance: &PlannedAcceptance,
) -> Result<McpMount, Aborted<ControlError>> {
    begin_change(conn, project, Versioned::McpServers).await?;
    let key = (project.thing().as_uuid(), acceptance.name.as_str());
    let row: Option<Row> =
        mcp_servers::table.find(key).select(Row::as_select()).first(&mut conn).await.optional()?;
    let row = row.ok_or(Aborted::Refused(ControlError::NotFound))?;
    let before: McpMount = row.try_into().map_err(|error: DatabaseError| Aborted::Refused(error.into()))?;
    let sizes = sizes(conn, *project.thing()).await?;
    acceptance.check(&before.pins, &sizes).map_err(Aborted::Refused)?;
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let pins = acceptance.pins.clone();
    let changed = (mcp_servers::pins.eq(json!(pins)), mcp_servers::updated_at.eq(now));
    diesel::update(mcp_servers::table.find(key)).set(changed).execute(&mut conn).await?;
    audit::insert(conn, &acceptance.audit).await?;
    Ok(McpMount { pins, updated_at: now, ..before })
}

async fn delete(
    mut conn: &AsyncPgConnection,
    project: &Scoped<ProjectId, right::Write>,
    name: &McpServerName,
    event: &AuditEvent,
) -> Result<(), Aborted<ControlError>> {
    begin_change(conn, project, Versioned::McpServers).await?;
    let row = mcp_servers::table.find((project.thing().as_uuid(), name.as_str()));
    if diesel::delete(row).execute(&mut conn).await? == 0 {
        return Err(Aborted::Refused(ControlError::NotFound));
    }
    Ok(audit::insert(conn, event).await?)
}

/// One statement, so that the version is that of the servers. A project has few: the rule of the count bounds them.
async fn find(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    known: Option<i64>,
) -> Result<StoredMcpServers, DatabaseError> {
    let rows: Vec<Found> = diesel::sql_query(
        "SELECT projects.mcp_servers_version AS version, mcp_servers.name, mcp_servers.settings, mcp_servers.pins,
                mcp_servers.created_by, mcp_servers.created_at, mcp_servers.updated_at
         FROM projects LEFT JOIN mcp_servers
             ON mcp_servers.project_id = projects.id AND projects.mcp_servers_version IS DISTINCT FROM $2
         WHERE projects.id = $1
         ORDER BY mcp_servers.name COLLATE \"C\"",
    )
    .bind::<SqlUuid, _>(project.as_uuid())
    .bind::<Nullable<BigInt>, _>(known)
    .load(&mut conn)
    .await
    .map_err(|error| DatabaseError::query("reading the MCP servers of a project", error))?;
    let version = rows.as_slice().first().map(|row| row.version).unwrap_or_default();
    if known == Some(version) {
        return Ok(StoredMcpServers { version, servers: None });
    }
    let rows = rows.into_iter().filter_map(|row| row.into_row(project));
    Ok(StoredMcpServers { version, servers: Some(rows.map(TryInto::try_into).collect::<Result<_, _>>()?) })
}

fn read_name(name: String) -> Result<McpServerName, DatabaseError> {
    name.try_into().map_err(|error| DatabaseError::corrupt("the name of an MCP server", error))
}

fn read_pins(pins: Value) -> Result<McpPins, DatabaseError> {
    serde_json::from_value(pins).map_err(|error| DatabaseError::corrupt("the pins of an MCP server", error))
}

/// What [`find`] reads: without a server there are nulls.
#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
    #[diesel(sql_type = Nullable<Json>)]
    settings: Option<Value>,
    #[diesel(sql_type = Nullable<Json>)]
    pins: Option<Value>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    created_by: Option<Uuid>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    created_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    updated_at: Option<DateTime<Utc>>,
}

impl Found {
    fn into_row(self, project: ProjectId) -> Option<Row> {
        Some(Row {
            project_id: project.as_uuid(),
            name: self.name?,
            settings: self.settings?,
            pins: self.pins?,
            created_by: self.created_by,
            created_at: self.created_at?,
            updated_at: self.updated_at?,
        })
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = mcp_servers)]
struct Row {
    project_id: Uuid,
    name: String,
    settings: Value,
    pins: Value,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for McpMount {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        let Row { project_id, name, settings, pins, created_by, created_at, updated_at } = row;
        let settings = serde_json::from_value(settings);
        Ok(Self {
            project: project_id.into(),
            name: read_name(name)?,
            settings: settings
                .map_err(|error| DatabaseError::corrupt("the settings of an MCP server", error))?,
            pins: read_pins(pins)?,
            created_by: created_by.map(Into::into),
            created_at,
            updated_at,
        })
    }
}

//! The numbers by which instances see that something of a project has changed: its secrets, its MCP servers.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{ControlError, Scoped, right};
use gathering_domain::ProjectId;

use crate::control::members;
use crate::db::error::Aborted;
use crate::db::schema::projects;

/// What has a version of its own in each project.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Versioned {
    /// Its secrets.
    Secrets,
    /// Its MCP servers.
    McpServers,
}

/// Begins a change: locks the project, checks the right again, and raises the version.
pub(crate) async fn begin_change(
    mut conn: &AsyncPgConnection,
    project: &Scoped<ProjectId, right::Write>,
    what: Versioned,
) -> Result<(), Aborted<ControlError>> {
    let id = *project.thing();
    if !members::lock_project(conn, id).await? {
        return Err(Aborted::Refused(ControlError::NotFound));
    }
    if let Some(user) = project.user() {
        let now = members::load_access(conn, id, user).await?;
        project.check_again(&now).map_err(Aborted::Refused)?;
    }
    let row = diesel::update(projects::table.find(id.as_uuid()));
    match what {
        Versioned::Secrets => {
            row.set(projects::secrets_version.eq(projects::secrets_version + 1)).execute(&mut conn).await?
        }
        Versioned::McpServers => {
            row.set(projects::mcp_servers_version.eq(projects::mcp_servers_version + 1))
                .execute(&mut conn)
                .await?
        }
    };
    Ok(())
}

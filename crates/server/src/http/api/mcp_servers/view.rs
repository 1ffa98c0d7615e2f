//! A mounted MCP server as it is shown: never with the value of a secret.

use chrono::{DateTime, Utc};
use gathering_edge::values::AnyObject;
use gathering_mcp::{FieldChange, McpStatus};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::words::{
    EffectClassSchema, McpConnectionSchema, McpGenerationSchema, McpToolStatusSchema,
};
use crate::mounts::{ShownServer, ShownTool};

/// A mounted MCP server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = McpServer)]
pub(crate) struct McpServerView {
    name: String,
    project_id: Uuid,
    /// As it was sent: secrets by their names.
    #[schema(value_type = AnyObject)]
    transport: Value,
    #[schema(value_type = McpGenerationSchema)]
    protocol: &'static str,
    /// How far its hints are believed.
    #[schema(value_type = EffectClassSchema)]
    allow: &'static str,
    connection: ConnectionView,
    tools: Vec<McpToolView>,
    /// What was wrong with its list of tools.
    problems: Vec<String>,
    /// Stands for the definitions that are shown; with it they are accepted.
    digest: String,
    /// The account that mounted it; null if it is gone.
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    /// When definitions were last accepted.
    updated_at: DateTime<Utc>,
}

/// The connection of this instance to an MCP server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = McpConnection)]
pub(crate) struct ConnectionView {
    #[schema(value_type = McpConnectionSchema)]
    state: &'static str,
    /// Why it is down.
    reason: Option<String>,
    /// What the server calls itself.
    server_name: Option<String>,
    server_version: Option<String>,
    /// The version of the protocol that the connection speaks.
    protocol_version: Option<String>,
}

/// A tool of a mounted MCP server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = McpTool)]
pub(crate) struct McpToolView {
    /// Its name for pipelines and agents.
    name: String,
    #[schema(value_type = EffectClassSchema)]
    class: &'static str,
    /// Only an accepted tool can be called.
    #[schema(value_type = McpToolStatusSchema)]
    status: &'static str,
    /// Why it cannot be called.
    reason: Option<String>,
    /// How it differs from what was accepted, field by field.
    changes: Vec<ChangeView>,
    /// What the server says of it; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AnyObject>, required = false)]
    definition: Option<Value>,
}

/// A field of a definition that differs from what was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = McpToolChange)]
pub(crate) struct ChangeView {
    /// Such as `description` or `inputSchema`.
    field: String,
    /// What was accepted; null if it was absent.
    #[schema(value_type = Option<Value>)]
    old: Value,
    /// What the server says now; null if it is absent.
    #[schema(value_type = Option<Value>)]
    new: Value,
}

impl McpServerView {
    /// With the definitions of its tools.
    pub(super) fn whole(shown: ShownServer) -> Self {
        Self::of(shown, true)
    }

    /// Without them.
    pub(super) fn brief(shown: ShownServer) -> Self {
        Self::of(shown, false)
    }

    fn of(shown: ShownServer, with_definitions: bool) -> Self {
        let connection = ConnectionView::of(&shown);
        let ShownServer { mount, tools, problems, digest, .. } = shown;
        let tools = tools.into_iter().map(|tool| McpToolView::of(tool, with_definitions)).collect();
        Self {
            name: mount.name.to_string(),
            project_id: mount.project.as_uuid(),
            transport: json!(mount.settings.transport),
            protocol: mount.settings.protocol.as_str(),
            allow: mount.settings.allow.as_str(),
            connection,
            tools,
            problems,
            digest,
            created_by: mount.created_by.map(|user| user.as_uuid()),
            created_at: mount.created_at,
            updated_at: mount.updated_at,
        }
    }
}

impl ConnectionView {
    fn of(shown: &ShownServer) -> Self {
        let (state, reason) = match &shown.connection {
            None | Some(McpStatus::Stopped) => ("not_connected", None),
            Some(McpStatus::Connecting) => ("connecting", None),
            Some(McpStatus::Connected) => ("connected", None),
            Some(McpStatus::Down { reason }) => ("down", Some(reason.clone())),
        };
        let about = shown.about.as_ref();
        Self {
            state,
            reason,
            server_name: about.map(|about| about.name.clone()),
            server_version: about.map(|about| about.version.clone()),
            protocol_version: about.map(|about| about.protocol_version.clone()),
        }
    }
}

impl McpToolView {
    fn of(tool: ShownTool, with_definition: bool) -> Self {
        let change = |FieldChange { field, old, new }| ChangeView {
            field,
            old: old.unwrap_or_default(),
            new: new.unwrap_or_default(),
        };
        Self {
            name: tool.name,
            class: tool.class.as_str(),
            status: tool.status.as_str(),
            reason: tool.reason,
            changes: tool.changes.into_iter().map(change).collect(),
            definition: with_definition.then_some(tool.definition),
        }
    }
}

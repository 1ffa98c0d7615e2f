//! A sample request for every route of the server: one that does the work of the route.

/// A sample request for a route. [`crate::Scene::fill`] fills in the placeholders in braces.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Method and pattern, each parameter as `{}`.
    pub name: &'static str,
    /// The path of the request.
    pub path: &'static str,
    /// Its JSON body; empty for none.
    pub body: &'static str,
}

impl Route {
    /// `GET` and so on.
    pub fn method(&self) -> &'static str {
        self.name.split_once(' ').map_or(self.name, |(method, _)| method)
    }
}

/// A pattern without the names of its parameters, as names of routes have it.
pub fn without_parameter_names(pattern: &str) -> String {
    let mut parts = pattern.split('{');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str("{}");
        plain.push_str(part.split_once('}').map_or("", |(_, after)| after));
    }
    plain
}

const fn route(name: &'static str, path: &'static str, body: &'static str) -> Route {
    Route { name, path, body }
}

/// A sample for every route; the access test compares them with the routes that the server declares.
pub const ROUTES: [Route; 92] = [
    route("GET /health/live", "/health/live", ""),
    route("GET /health/ready", "/health/ready", ""),
    route("GET /health", "/health", ""),
    route("GET /metrics", "/metrics", ""),
    route("GET /api/openapi.json", "/api/openapi.json", ""),
    route(
        "POST /api/v1/auth/register",
        "/api/v1/auth/register",
        r#"{"email": "{new_email}", "name": "New", "password": "{password}"}"#,
    ),
    route(
        "POST /api/v1/auth/login",
        "/api/v1/auth/login",
        r#"{"email": "owner@example.org", "password": "{password}"}"#,
    ),
    route("POST /api/v1/auth/refresh", "/api/v1/auth/refresh", r#"{"refresh_token": "{refresh_token}"}"#),
    route("POST /api/v1/auth/logout", "/api/v1/auth/logout", r#"{"refresh_token": "{refresh_token}"}"#),
    route("GET /api/v1/auth/me", "/api/v1/auth/me", ""),
    route(
        "PUT /api/v1/auth/password",
        "/api/v1/auth/password",
        r#"{"current_password": "{password}", "new_password": "{password}"}"#,
    ),
    route("GET /api/v1/auth/api-keys", "/api/v1/auth/api-keys", ""),
    route(
        "POST /api/v1/auth/api-keys",
        "/api/v1/auth/api-keys",
        r#"{"name": "a key", "scopes": ["read"], "expires_at": "2100-01-01T00:00:00Z"}"#,
    ),
    route("DELETE /api/v1/auth/api-keys/{}", "/api/v1/auth/api-keys/{new_key}", ""),
    route("GET /api/v1/users", "/api/v1/users", ""),
    route("PATCH /api/v1/users/{}", "/api/v1/users/{guest}", r#"{"role": "member", "is_active": true}"#),
    route("GET /api/v1/audit/events", "/api/v1/audit/events", ""),
    route("GET /api/v1/projects", "/api/v1/projects", ""),
    route(
        "POST /api/v1/projects",
        "/api/v1/projects",
        r#"{"name": "another", "description": "of somebody"}"#,
    ),
    route("GET /api/v1/projects/{}", "/api/v1/projects/{project}", ""),
    route(
        "PATCH /api/v1/projects/{}",
        "/api/v1/projects/{project}",
        r#"{"name": "shared", "description": "of all"}"#,
    ),
    route("DELETE /api/v1/projects/{}", "/api/v1/projects/{new_project}", ""),
    route("GET /api/v1/projects/{}/members", "/api/v1/projects/{project}/members", ""),
    route(
        "PUT /api/v1/projects/{}/members/{}",
        "/api/v1/projects/{project}/members/{guest}",
        r#"{"role": "viewer"}"#,
    ),
    route("DELETE /api/v1/projects/{}/members/{}", "/api/v1/projects/{project}/members/{new_member}", ""),
    route("GET /api/v1/projects/{}/budget", "/api/v1/projects/{project}/budget", ""),
    route("PUT /api/v1/projects/{}/budget", "/api/v1/projects/{project}/budget", r#"{"tool_calls": 1000}"#),
    route("GET /api/v1/projects/{}/secrets", "/api/v1/projects/{project}/secrets", ""),
    route(
        "PUT /api/v1/projects/{}/secrets/{}",
        "/api/v1/projects/{project}/secrets/{secret}",
        r#"{"value": "{password}"}"#,
    ),
    route("DELETE /api/v1/projects/{}/secrets/{}", "/api/v1/projects/{project}/secrets/{new_secret}", ""),
    route("GET /api/v1/projects/{}/files", "/api/v1/projects/{project}/files", ""),
    route("GET /api/v1/projects/{}/files/{}", "/api/v1/projects/{project}/files/{file}", ""),
    route("PUT /api/v1/projects/{}/files/{}", "/api/v1/projects/{project}/files/{file}", "{}"),
    route("DELETE /api/v1/projects/{}/files/{}", "/api/v1/projects/{project}/files/{new_file}", ""),
    route(
        "POST /api/v1/pipelines/validate",
        "/api/v1/pipelines/validate",
        r#"{"nodes": [{"id": "begin", "type": "trigger"}], "edges": []}"#,
    ),
    route("GET /api/v1/pipelines", "/api/v1/pipelines", ""),
    route(
        "POST /api/v1/pipelines",
        "/api/v1/pipelines",
        r#"{"project_id": "{project}", "name": "another", "description": "",
            "definition": {"nodes": [{"id": "begin", "type": "trigger"}], "edges": []}}"#,
    ),
    route("GET /api/v1/pipelines/{}", "/api/v1/pipelines/{pipeline}", ""),
    route(
        "PUT /api/v1/pipelines/{}",
        "/api/v1/pipelines/{pipeline}",
        r#"{"name": "shared", "enabled": true}"#,
    ),
    route("DELETE /api/v1/pipelines/{}", "/api/v1/pipelines/{new_pipeline}", ""),
    route("GET /api/v1/pipelines/{}/versions", "/api/v1/pipelines/{pipeline}/versions", ""),
    route("POST /api/v1/pipelines/{}/runs", "/api/v1/pipelines/{pipeline}/runs", r#"{"input": {"a": "b"}}"#),
    route(
        "POST /api/v1/agents",
        "/api/v1/agents",
        r#"{"project_id": "{project}", "name": "a", "provider": "scripted"}"#,
    ),
    route("GET /api/v1/agents", "/api/v1/agents", ""),
    route("GET /api/v1/agents/{}", "/api/v1/agents/{agent}", ""),
    route("PATCH /api/v1/agents/{}", "/api/v1/agents/{agent}", r#"{"role": "other"}"#),
    route("DELETE /api/v1/agents/{}", "/api/v1/agents/{new_agent}", ""),
    route("POST /api/v1/agents/{}/chat", "/api/v1/agents/{agent}/chat", r#"{"message": "Hello"}"#),
    route("GET /api/v1/runs", "/api/v1/runs", ""),
    route("GET /api/v1/runs/{}", "/api/v1/runs/{run}", ""),
    route("POST /api/v1/runs/{}/cancel", "/api/v1/runs/{run}/cancel", ""),
    route("GET /api/v1/runs/{}/journal", "/api/v1/runs/{run}/journal", ""),
    route("GET /api/v1/runs/{}/stream", "/api/v1/runs/{run}/stream", ""),
    route("POST /api/v1/runs/{}/rerun", "/api/v1/runs/{run}/rerun", r#"{"from": "start"}"#),
    route(
        "POST /api/v1/runs/{}/nodes/{}/decision",
        "/api/v1/runs/{run}/nodes/begin/decision",
        r#"{"approve": true}"#,
    ),
    route("POST /api/v1/runs/{}/budget", "/api/v1/runs/{run}/budget", r#"{"add": {"tool_calls": 1}}"#),
    route("POST /api/v1/events", "/api/v1/events", r#"{"project_id": "{project}", "type": "order.paid"}"#),
    route("GET /api/v1/events", "/api/v1/events?format=json", ""),
    route("GET /api/v1/events/ws", "/api/v1/events/ws", ""),
    route("GET /api/v1/system/instances", "/api/v1/system/instances", ""),
    route("GET /.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource", ""),
    route("GET /.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource/mcp", ""),
    route(
        "POST /api/v1/mcp/servers",
        "/api/v1/mcp/servers",
        r#"{"project_id": "{project}", "name": "time", "transport": {"type": "stdio", "command": "not-allowed"}}"#,
    ),
    route("GET /api/v1/mcp/servers", "/api/v1/mcp/servers?project_id={project}", ""),
    route("GET /api/v1/mcp/servers/{}", "/api/v1/mcp/servers/time?project_id={project}", ""),
    route("DELETE /api/v1/mcp/servers/{}", "/api/v1/mcp/servers/time?project_id={project}", ""),
    route(
        "POST /api/v1/mcp/servers/{}/accept",
        "/api/v1/mcp/servers/time/accept?project_id={project}",
        r#"{"digest": "0123"}"#,
    ),
    route("POST /mcp", "/mcp", r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}"#),
    route("GET /api/v1/tools", "/api/v1/tools", ""),
    route("GET /api/v1/tools/{}", "/api/v1/tools/list_files", ""),
    route(
        "POST /api/v1/tools/{}/invoke",
        "/api/v1/tools/list_files/invoke",
        r#"{"project_id": "{project}"}"#,
    ),
    route(
        "POST /api/v1/schedules",
        "/api/v1/schedules",
        r#"{"project_id": "{project}", "name": "s", "trigger": {"type": "cron", "expression": "0 9 1 1 *"},
            "action": {"action": "execute_pipeline", "pipeline_id": "{pipeline}"}}"#,
    ),
    route("GET /api/v1/schedules", "/api/v1/schedules", ""),
    route(
        "POST /api/v1/schedules/preview",
        "/api/v1/schedules/preview",
        r#"{"trigger": {"type": "cron", "expression": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"}}"#,
    ),
    route(
        "GET /api/v1/schedules/fires",
        "/api/v1/schedules/fires?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z",
        "",
    ),
    route(
        "GET /api/v1/schedules/upcoming",
        "/api/v1/schedules/upcoming?from=2030-01-01T00:00:00Z&to=2030-02-01T00:00:00Z",
        "",
    ),
    route("GET /api/v1/schedules/{}", "/api/v1/schedules/{schedule}", ""),
    route("PATCH /api/v1/schedules/{}", "/api/v1/schedules/{schedule}", r#"{"name": "other"}"#),
    route("DELETE /api/v1/schedules/{}", "/api/v1/schedules/{new_schedule}", ""),
    route("GET /api/v1/schedules/{}/fires", "/api/v1/schedules/{schedule}/fires", ""),
    route("POST /api/v1/schedules/{}/pause", "/api/v1/schedules/{schedule}/pause", ""),
    route("POST /api/v1/schedules/{}/resume", "/api/v1/schedules/{schedule}/resume", ""),
    route("POST /api/v1/schedules/{}/trigger", "/api/v1/schedules/{schedule}/trigger", ""),
    route(
        "POST /api/v1/schedules/{}/backfill",
        "/api/v1/schedules/{schedule}/backfill",
        r#"{"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}"#,
    ),
    route(
        "POST /api/v1/hooks",
        "/api/v1/hooks",
        r#"{"project_id": "{project}", "name": "h", "target": {"pipeline_id": "{pipeline}"},
            "verification": {"scheme": "token", "header": "X-Token"}, "secret": "{password}", "when": "true",
            "map": {"a": "${{ body.a }}"}}"#,
    ),
    route("GET /api/v1/hooks", "/api/v1/hooks", ""),
    route("POST /api/v1/hooks/in/{}", "/api/v1/hooks/in/{hook_token}", r#"{"a": "b"}"#),
    route("GET /api/v1/hooks/{}", "/api/v1/hooks/{hook}", ""),
    route("PATCH /api/v1/hooks/{}", "/api/v1/hooks/{hook}", r#"{"name": "other"}"#),
    route("DELETE /api/v1/hooks/{}", "/api/v1/hooks/{new_hook}", ""),
    route("GET /api/v1/hooks/{}/deliveries", "/api/v1/hooks/{hook}/deliveries", ""),
    route(
        "POST /api/v1/hooks/{}/deliveries/{}/redeliver",
        "/api/v1/hooks/{hook}/deliveries/{delivery}/redeliver",
        "",
    ),
];

//! The table of all endpoints: method, path, access, rate-limit tier, body limit, handler.
//!
//! Routing, authentication, rate limits, body limits, the OpenAPI document and the access test are made of it. A row
//! without one of the columns does not compile. The documentation of an endpoint stands at its handler.

use actix_web::http::Method;
use gathering_auth::Action::{Manage, Read, Run, Write};

use crate::http::api::agents::chat;
use crate::http::api::events::{post, read, socket};
use crate::http::api::hooks::{deliveries, receive};
use crate::http::api::pipelines::{change, versions};
use crate::http::api::runs::{decide, rerun, start, top_up};
use crate::http::api::schedules::{acts, agenda, fires, preview};
use crate::http::api::{
    agents, api_keys, audit, auth, budgets, files, health, hooks, mcp, mcp_servers, members, metadata,
    metrics, pipelines, projects, runs, schedules, secrets, stream, system, tools, users,
};
use gathering_edge::limits::Tier;
use gathering_edge::openapi::{self, Document};
use gathering_edge::route::Access::{Account, Admin, Own, Project, Public, Session};
use gathering_edge::route::{BodyLimit, Description, Route};

/// What the OpenAPI document says that no route knows.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "GatheRing", description = "Runs teams of AI agents as durable workflows on PostgreSQL."),
    servers((url = "/", description = "The server that serves this document")),
    security(("bearer" = [])),
    tags(
        (name = "auth", description = "Sessions, passwords and API keys"),
        (name = "users", description = "Accounts, for admins"),
        (name = "audit", description = "Security events, for admins"),
        (name = "projects", description = "Projects, their members and budgets"),
        (name = "files", description = "The workspaces of projects"),
        (name = "pipelines", description = "Named graphs in versions"),
        (name = "runs", description = "Executions of graphs"),
        (name = "agents", description = "Who does the work of nodes, in versions"),
        (name = "tools", description = "What agents and pipelines call, by itself"),
        (name = "mcp", description = "The Model Context Protocol"),
        (name = "events", description = "The log of events"),
        (name = "schedules", description = "What starts runs at due times"),
        (name = "hooks", description = "Addresses that other programs call"),
        (name = "health", description = "The state of the server"),
        (name = "system", description = "The instances, for admins"),
    )
)]
struct Base;

/// The OpenAPI document of this version.
///
/// # Errors
/// If a schema cannot be written as JSON.
pub(crate) fn document() -> serde_json::Result<Document> {
    Document::of(<Base as utoipa::OpenApi>::openapi(), ROUTES)
}

/// One row: `route!(METHOD path, access, tier, body limit => module::handler)`.
macro_rules! route {
    ($method:ident $path:literal, $access:expr, $tier:ident, $body:ident => $module:ident::$handler:ident) => {
        Route {
            method: Method::$method,
            path: $path,
            access: $access,
            tier: Tier::$tier,
            body: BodyLimit::$body,
            handler: |resource| resource.to($module::$handler),
            describe: pastey::paste!(Description::of::<$module::[<__path_ $handler>]>),
        }
    };
}

/// Every endpoint.
#[rustfmt::skip]
pub(crate) static ROUTES: &[Route] = &[
    route!(GET    "/health/live",                                Public,          Health, None  => health::live),
    route!(GET    "/health/ready",                               Public,          Health, None  => health::ready),
    route!(GET    "/health",                                     Public,          Health, None  => health::health),
    route!(GET    "/metrics",                                    Public,          Health, None  => metrics::metrics_text),
    route!(GET    "/api/openapi.json",                           Public,          Read,   None  => openapi::openapi_json),

    route!(POST   "/api/v1/auth/register",                       Public,          Auth,   Small => auth::register),
    route!(POST   "/api/v1/auth/login",                          Public,          Auth,   Small => auth::login),
    route!(POST   "/api/v1/auth/refresh",                        Public,          Auth,   Small => auth::refresh),
    route!(POST   "/api/v1/auth/logout",                         Session,         Write,  Small => auth::logout),
    route!(GET    "/api/v1/auth/me",                             Account,         Read,   None  => auth::me),
    route!(PUT    "/api/v1/auth/password",                       Session,         Auth,   Small => auth::change_password),
    route!(POST   "/api/v1/auth/api-keys",                       Session,         Write,  Small => api_keys::create),
    route!(GET    "/api/v1/auth/api-keys",                       Account,         Read,   None  => api_keys::list),
    route!(DELETE "/api/v1/auth/api-keys/{id}",                  Session,         Write,  None  => api_keys::revoke),
    route!(GET    "/api/v1/users",                               Admin,           Read,   None  => users::list),
    route!(PATCH  "/api/v1/users/{id}",                          Admin,           Write,  Small => users::change),
    route!(GET    "/api/v1/audit/events",                        Admin,           Read,   None  => audit::list),

    route!(POST   "/api/v1/projects",                            Own(Manage),     Write,  Small => projects::create),
    route!(GET    "/api/v1/projects",                            Own(Read),       Read,   None  => projects::list),
    route!(GET    "/api/v1/projects/{id}",                       Project(Read),   Read,   None  => projects::show),
    route!(PATCH  "/api/v1/projects/{id}",                       Project(Manage), Write,  Small => projects::change),
    route!(DELETE "/api/v1/projects/{id}",                       Project(Manage), Write,  None  => projects::delete),
    route!(GET    "/api/v1/projects/{id}/members",               Project(Read),   Read,   None  => members::list),
    route!(PUT    "/api/v1/projects/{id}/members/{user_id}",     Project(Manage), Write,  Small => members::put),
    route!(DELETE "/api/v1/projects/{id}/members/{user_id}",     Project(Manage), Write,  None  => members::remove),
    route!(GET    "/api/v1/projects/{id}/budget",                Project(Read),   Read,   None  => budgets::show),
    route!(PUT    "/api/v1/projects/{id}/budget",                Project(Manage), Write,  Small => budgets::put),
    route!(GET    "/api/v1/projects/{id}/secrets",               Project(Read),   Read,   None  => secrets::list),
    route!(PUT    "/api/v1/projects/{id}/secrets/{name}",        Project(Write),  Write,  Large => secrets::put),
    route!(DELETE "/api/v1/projects/{id}/secrets/{name}",        Project(Write),  Write,  None  => secrets::delete),
    route!(GET    "/api/v1/projects/{id}/files",                 Project(Read),   Read,   None  => files::list),
    route!(GET    "/api/v1/projects/{id}/files/{path:.*}",       Project(Read),   Read,   None  => files::show),
    route!(PUT    "/api/v1/projects/{id}/files/{path:.*}",       Project(Write),  Write,  File  => files::put),
    route!(DELETE "/api/v1/projects/{id}/files/{path:.*}",       Project(Write),  Write,  None  => files::delete),

    route!(POST   "/api/v1/pipelines/validate",                  Account,         Write,  Large => pipelines::validate),
    route!(POST   "/api/v1/pipelines",                           Project(Write),  Write,  Large => pipelines::create),
    route!(GET    "/api/v1/pipelines",                           Own(Read),       Read,   None  => pipelines::list),
    route!(GET    "/api/v1/pipelines/{id}",                      Project(Read),   Read,   None  => pipelines::show),
    route!(PUT    "/api/v1/pipelines/{id}",                      Project(Write),  Write,  Large => change::change),
    route!(DELETE "/api/v1/pipelines/{id}",                      Project(Write),  Write,  None  => change::delete),
    route!(GET    "/api/v1/pipelines/{id}/versions",             Project(Read),   Read,   None  => versions::list),
    route!(POST   "/api/v1/pipelines/{id}/runs",                 Project(Run),    Write,  Large => start::start),

    route!(POST   "/api/v1/agents",                              Project(Write),  Write,  Large => agents::create),
    route!(GET    "/api/v1/agents",                              Own(Read),       Read,   None  => agents::list),
    route!(GET    "/api/v1/agents/{id}",                         Project(Read),   Read,   None  => agents::show),
    route!(PATCH  "/api/v1/agents/{id}",                         Project(Write),  Write,  Large => agents::change),
    route!(DELETE "/api/v1/agents/{id}",                         Project(Write),  Write,  None  => agents::delete),
    route!(POST   "/api/v1/agents/{id}/chat",                    Project(Run),    Write,  Large => chat::send),

    route!(GET    "/api/v1/runs",                                Own(Read),       Read,   None  => runs::list),
    route!(GET    "/api/v1/runs/{id}",                           Project(Read),   Read,   None  => runs::show),
    route!(POST   "/api/v1/runs/{id}/cancel",                    Project(Run),    Write,  None  => runs::cancel),
    route!(GET    "/api/v1/runs/{id}/journal",                   Project(Read),   Read,   None  => runs::journal),
    route!(POST   "/api/v1/runs/{id}/rerun",                     Project(Run),    Write,  Large => rerun::rerun),
    route!(POST   "/api/v1/runs/{id}/nodes/{node_id}/decision",  Project(Run),    Write,  Large => decide::decide),
    route!(POST   "/api/v1/runs/{id}/budget",                    Project(Manage), Write,  Small => top_up::top_up),
    route!(GET    "/api/v1/runs/{id}/stream",                    Project(Read),   Read,   None  => stream::stream),
    route!(POST   "/api/v1/events",                              Project(Run),    Write,  Large => post::post),
    route!(GET    "/api/v1/events",                              Own(Read),       Read,   None  => read::read),
    route!(GET    "/api/v1/events/ws",                           Own(Read),       Read,   None  => socket::watch),

    route!(POST   "/api/v1/schedules",                           Project(Write),  Write,  Large => schedules::create),
    route!(GET    "/api/v1/schedules",                           Own(Read),       Read,   None  => schedules::list),
    route!(POST   "/api/v1/schedules/preview",                   Account,         Write,  Small => preview::preview),
    route!(GET    "/api/v1/schedules/fires",                     Own(Read),       Read,   None  => agenda::fires),
    route!(GET    "/api/v1/schedules/upcoming",                  Own(Read),       Read,   None  => agenda::upcoming),
    route!(GET    "/api/v1/schedules/{id}",                      Project(Read),   Read,   None  => schedules::show),
    route!(PATCH  "/api/v1/schedules/{id}",                      Project(Write),  Write,  Large => schedules::change),
    route!(DELETE "/api/v1/schedules/{id}",                      Project(Write),  Write,  None  => schedules::delete),
    route!(GET    "/api/v1/schedules/{id}/fires",                Project(Read),   Read,   None  => fires::list),
    route!(POST   "/api/v1/schedules/{id}/pause",                Project(Run),    Write,  None  => acts::pause),
    route!(POST   "/api/v1/schedules/{id}/resume",               Project(Run),    Write,  None  => acts::resume),
    route!(POST   "/api/v1/schedules/{id}/trigger",              Project(Run),    Write,  None  => acts::trigger),
    route!(POST   "/api/v1/schedules/{id}/backfill",             Project(Run),    Write,  Small => acts::backfill),

    route!(POST   "/api/v1/hooks",                               Project(Write),  Write,  Large => hooks::create),
    route!(GET    "/api/v1/hooks",                               Own(Read),       Read,   None  => hooks::list),
    route!(POST   "/api/v1/hooks/in/{token}",                    Public,          Write,  Message => receive::receive),
    route!(GET    "/api/v1/hooks/{id}",                          Project(Read),   Read,   None  => hooks::show),
    route!(PATCH  "/api/v1/hooks/{id}",                          Project(Write),  Write,  Large => hooks::change),
    route!(DELETE "/api/v1/hooks/{id}",                          Project(Write),  Write,  None  => hooks::delete),
    route!(GET    "/api/v1/hooks/{id}/deliveries",               Project(Read),   Read,   None  => deliveries::list),
    route!(POST   "/api/v1/hooks/{id}/deliveries/{delivery_id}/redeliver", Project(Run), Write, None => deliveries::redeliver),

    route!(GET    "/api/v1/tools",                               Account,         Read,   None  => tools::list),
    route!(GET    "/api/v1/tools/{name}",                        Account,         Read,   None  => tools::show),
    route!(POST   "/api/v1/tools/{name}/invoke",                 Project(Run),    Write,  Large => tools::invoke),

    route!(POST   "/api/v1/mcp/servers",                         Project(Write),  Write,  Small => mcp_servers::mount),
    route!(GET    "/api/v1/mcp/servers",                         Project(Read),   Read,   None  => mcp_servers::list),
    route!(GET    "/api/v1/mcp/servers/{name}",                  Project(Read),   Read,   None  => mcp_servers::show),
    route!(DELETE "/api/v1/mcp/servers/{name}",                  Project(Write),  Write,  None  => mcp_servers::unmount),
    route!(POST   "/api/v1/mcp/servers/{name}/accept",           Project(Write),  Write,  Small => mcp_servers::accept),
    route!(POST   "/mcp",                                        Account,         Write,  Large => mcp::post),
    route!(GET    "/.well-known/oauth-protected-resource",       Public,          Read,   None  => metadata::of_server),
    route!(GET    "/.well-known/oauth-protected-resource/mcp",   Public,          Read,   None  => metadata::of_mcp),

    route!(GET    "/api/v1/system/instances",                    Admin,           Read,   None  => system::instances),
];

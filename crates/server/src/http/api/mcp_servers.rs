//! MCP servers of a project: mounted, listed, shown, accepted, unmounted.

mod settings;
mod view;

use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use gathering_domain::{McpServerName, ProjectId};
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::input::{self, Input};
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::query::Query;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use self::settings::MountServer;
use self::view::McpServerView;
use crate::http::api::lists;
use crate::mounts::{MountError, Mounts};

/// Of which project.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfProject {
    /// The project; your default project if absent.
    project_id: Option<Uuid>,
}

/// What to accept.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptTools {
    /// The `digest` of the definitions that you saw.
    #[schema(min_length = 1, max_length = 128)]
    digest: String,
}

impl Input for AcceptTools {}

impl From<MountError> for ProblemDetails {
    fn from(error: MountError) -> Self {
        match error {
            MountError::Control(error) => error.into(),
            MountError::Unusable(why) => Self::invalid_field("transport", why),
            MountError::ChangedMeanwhile => Self::new(Kind::PreconditionFailed, error.to_string()),
        }
    }
}

fn read_name(name: &str) -> Result<McpServerName, ProblemDetails> {
    name.parse().map_err(|_| ProblemDetails::not_found())
}

/// Mounts an MCP server: connects to it, and accepts the tools that it has now, which are in the answer.
///
/// If the server cannot be used, the answer says why, and nothing is stored.
#[utoipa::path(post, path = "/api/v1/mcp/servers", tag = "mcp", operation_id = "mount_mcp_server", request_body = MountServer, responses(
    (status = 201, body = McpServerView),
    (status = 404, description = "No such project"),
    (status = 409, description = "The name is taken, or the project has as many servers as it may"),
    (status = 422, description = "The settings are wrong or not allowed, or the server cannot be used"),
))]
pub(crate) async fn mount(mounts: web::Data<Mounts>, body: Body) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let shown = source.placing(async {
        let mount: MountServer = input::read(value)?;
        let project = mount.project_id.map(ProjectId::from);
        let (name, settings) = mount.into_settings()?;
        let allowed = mounts.control().allow(&caller, project, name, settings).await?;
        Ok(mounts.mount(allowed).await?)
    });
    let shown = shown.await?;
    let place = format!("/api/v1/mcp/servers/{}?project_id={}", shown.mount.name, shown.mount.project);
    Ok(HttpResponse::Created().insert_header((LOCATION, place)).json(McpServerView::whole(shown)))
}

/// The MCP servers of a project, by name, as this instance knows them: none is connected for that.
#[utoipa::path(get, path = "/api/v1/mcp/servers", tag = "mcp", operation_id = "list_mcp_servers", params(OfProject, PageQuery), responses(
    (status = 200, body = Page<McpServerView>),
    (status = 404, description = "No such project"),
))]
pub(crate) async fn list(
    mounts: web::Data<Mounts>,
    caller: Authenticated,
    query: Query<OfProject>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::MCP_SERVERS)?;
    let servers = mounts.control().list(&caller.0, query.project_id.map(ProjectId::from)).await?;
    // There are few: their numbers are the keys of the pages.
    let numbered = (1..).map(Uuid::from_u128).zip(servers);
    let mut rows = Vec::new();
    for (number, server) in
        numbered.filter(|(number, _)| page.after().is_none_or(|after: Uuid| *number > after))
    {
        rows.push((number, mounts.peek(server).await?));
    }
    Ok(HttpResponse::Ok().json(page.of(
        rows,
        |(number, _)| *number,
        |(_, shown)| McpServerView::brief(shown),
    )))
}

/// One MCP server with the definitions of its tools as they are now: it is connected for that. If it cannot be connected,
/// `connection` says why, and the tools are those that were accepted.
#[utoipa::path(get, path = "/api/v1/mcp/servers/{name}", tag = "mcp", operation_id = "get_mcp_server", params(
    ("name" = String, Path), OfProject,
), responses((status = 200, body = McpServerView)))]
pub(crate) async fn show(
    mounts: web::Data<Mounts>,
    caller: Authenticated,
    name: web::Path<String>,
    query: Query<OfProject>,
) -> Result<HttpResponse, ProblemDetails> {
    let project = query.read()?.project_id.map(ProjectId::from);
    let server = mounts.control().find(&caller.0, project, &read_name(&name)?).await?;
    Ok(HttpResponse::Ok().json(McpServerView::whole(mounts.look(server).await?)))
}

/// Accepts the definitions of the tools of an MCP server, if they are still those with this digest.
#[utoipa::path(post, path = "/api/v1/mcp/servers/{name}/accept", tag = "mcp", operation_id = "accept_mcp_tools", params(
    ("name" = String, Path), OfProject,
), request_body = AcceptTools, responses(
    (status = 200, body = McpServerView),
    (status = 409, description = "Somebody else accepted others at the same time"),
    (status = 412, description = "The server describes its tools differently by now"),
    (status = 422, description = "The server cannot be used"),
))]
pub(crate) async fn accept(
    mounts: web::Data<Mounts>,
    name: web::Path<String>,
    query: Query<OfProject>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let project = query.read()?.project_id.map(ProjectId::from);
    let server = mounts.control().find_to_change(&caller, project, &read_name(&name)?).await?;
    let AcceptTools { digest } = body.input().await?;
    Ok(HttpResponse::Ok().json(McpServerView::whole(mounts.accept(&server, &digest).await?)))
}

/// Unmounts an MCP server. Calls that start from the answer on find no tool of it.
#[utoipa::path(delete, path = "/api/v1/mcp/servers/{name}", tag = "mcp", operation_id = "unmount_mcp_server", params(
    ("name" = String, Path), OfProject,
), responses(
    (status = 204),
    (status = 404, description = "No such project or server"),
))]
pub(crate) async fn unmount(
    mounts: web::Data<Mounts>,
    caller: Authenticated,
    name: web::Path<String>,
    query: Query<OfProject>,
) -> Result<HttpResponse, ProblemDetails> {
    let project = query.read()?.project_id.map(ProjectId::from);
    let name = read_name(&name)?;
    let project = mounts.control().unmount(&caller.0, project, &name).await?;
    mounts.forget(project, &name);
    Ok(HttpResponse::NoContent().finish())
}

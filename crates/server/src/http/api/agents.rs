//! Agents: created, listed, shown, changed, deleted.

pub(crate) mod chat;
mod fields;
mod view;

use actix_web::http::header::{ETag, EntityTag};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use gathering_control::{Agent, AgentControl, DefineAgent};
use gathering_domain::{AgentId, ProjectId};
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::conditions;
use gathering_edge::idempotency::keyed_body;
use gathering_edge::input;
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use self::fields::{ChangeAgent, CreateAgent};
use self::view::AgentView;
use crate::http::api::lists;
use crate::http::api::revisions::expected_revision;

/// Which agents to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListAgents {
    /// Only of this project.
    project_id: Option<Uuid>,
}

/// Creates an agent, which the nodes of pipelines name as `agent_id`.
#[utoipa::path(post, path = "/api/v1/agents", tag = "agents", operation_id = "create_agent", params(
    ("Idempotency-Key" = Option<String>, Header, description = "For 24 hours the same key and body answer the same agent"),
), request_body(
    content((CreateAgent = "application/json"), (CreateAgent = "application/yaml"))
), responses(
    (status = 201, description = "With its `ETag`", body = AgentView),
    (status = 404, description = "No such project"),
    (status = 409, description = "The key was used for another request, or what it created was deleted"),
))]
pub(crate) async fn create(
    agents: web::Data<AgentControl>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let created = source.placing(async {
        let CreateAgent { project_id, definition } = input::read(value)?;
        let project = project_id.map(ProjectId::from);
        let define = DefineAgent { project, definition: Value::Object(definition), once };
        Ok(agents.define(&caller, define).await?)
    });
    let agent = created.await?;
    let mut response = HttpResponse::Created();
    response.insert_header(("location", format!("/api/v1/agents/{}", agent.id)));
    Ok(shown(response, agent))
}

/// An agent with its `ETag`.
fn shown(mut response: HttpResponseBuilder, agent: Agent) -> HttpResponse {
    response.insert_header(ETag(tag_of(&agent)));
    response.json(AgentView::of(agent))
}

fn tag_of(agent: &Agent) -> EntityTag {
    EntityTag::new_strong(agent.revision())
}

/// The agents that the caller may see, the newest first.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", operation_id = "list_agents", params(ListAgents, PageQuery), responses(
    (status = 200, body = Page<AgentView>),
))]
pub(crate) async fn list(
    agents: web::Data<AgentControl>,
    caller: Authenticated,
    query: Query<ListAgents>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::AGENTS)?;
    let project = query.project_id.map(ProjectId::from);
    let rows = agents.list(&caller.0, project, page.after(), page.n_rows()).await?;
    Ok(HttpResponse::Ok().json(page.of(rows, |agent: &Agent| agent.id.as_uuid(), AgentView::of)))
}

/// One agent, in its latest version.
#[utoipa::path(get, path = "/api/v1/agents/{id}", tag = "agents", operation_id = "get_agent", params(
    ("id" = Uuid, Path),
    ("If-None-Match" = Option<String>, Header, description = "`ETag`s: only if the agent is another than these"),
), responses(
    (status = 200, description = "With its `ETag`", body = AgentView),
    (status = 304, description = "It is one of those in `If-None-Match`"),
))]
pub(crate) async fn show(
    agents: web::Data<AgentControl>,
    caller: Authenticated,
    id: web::Path<AgentId>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let agent = agents.load(&caller.0, *id).await?;
    let tag = tag_of(&agent);
    if conditions::is_known(&request, &tag) {
        return Ok(HttpResponse::NotModified().insert_header(ETag(tag)).finish());
    }
    Ok(shown(HttpResponse::Ok(), agent))
}

/// Changes an agent: the fields that are sent replace its own, and `null` takes one away. That makes a new version; runs
/// keep the one that was the latest when they were accepted. Where everything is so already, nothing changes.
#[utoipa::path(patch, path = "/api/v1/agents/{id}", tag = "agents", operation_id = "change_agent", params(
    ("id" = Uuid, Path),
    ("If-Match" = Option<String>, Header, description = "`ETag`s: only if the agent is still one of these"),
), request_body(
    content((ChangeAgent = "application/json"), (ChangeAgent = "application/yaml"))
), responses(
    (status = 200, description = "As it is now, with its `ETag`", body = AgentView),
    (status = 412, description = "It was changed since"),
))]
pub(crate) async fn change(
    agents: web::Data<AgentControl>,
    id: web::Path<AgentId>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let expected = expected_revision(&request)?;
    let (value, source) = body.value()?;
    let changed = source.placing(async {
        let ChangeAgent(fields) = input::read(value)?;
        Ok(agents.change(&caller, *id, &expected, &fields).await?)
    });
    Ok(shown(HttpResponse::Ok(), changed.await?))
}

/// Deletes an agent with its versions. What it does at this moment goes on; nodes that name it fail from now on.
#[utoipa::path(delete, path = "/api/v1/agents/{id}", tag = "agents", operation_id = "delete_agent", params(
    ("id" = Uuid, Path),
    ("If-Match" = Option<String>, Header, description = "`ETag`s: only if the agent is still one of these"),
), responses(
    (status = 204),
    (status = 412, description = "It was changed since"),
))]
pub(crate) async fn delete(
    agents: web::Data<AgentControl>,
    caller: Authenticated,
    id: web::Path<AgentId>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    agents.delete(&caller.0, *id, expected_revision(&request)?).await?;
    Ok(HttpResponse::NoContent().finish())
}

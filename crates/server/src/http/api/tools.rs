//! Tools: listed, shown, called by themselves.

mod view;

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control::{CallTool, ToolControl};
use gathering_dag_engine::check_value;
use gathering_domain::{Pointer, Problems, ProjectId};
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::idempotency::keyed_body;
use gathering_edge::input::{self, Input};
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::query::Query;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use self::view::{ToolOutputView, ToolView};
use crate::http::api::awaited::Awaited;
use crate::http::api::lists;
use crate::http::api::run_view::RunView;
use crate::http::run_ends::RunEnds;

/// A call of a tool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InvokeTool {
    /// The parameters, as the schema of the tool describes them; an empty object by default.
    #[schema(required = false, value_type = Option<Object>)]
    params: Option<Value>,
    /// The project whose files the tool uses; your default project if absent.
    #[schema(required = false)]
    project_id: Option<Uuid>,
    /// How long the call may take, with its time in the queue; without a limit if absent.
    #[schema(required = false, exclusive_minimum = 0, maximum = 31_536_000)]
    timeout_seconds: Option<f64>,
}

impl Input for InvokeTool {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        if let Some(Err(limit)) = object.get("params").map(check_value) {
            problems.add(Pointer::root().join("params"), limit.to_string());
        }
    }
}

/// Of which project.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ToolsOf {
    /// Also the tools of the MCP servers that are mounted in this project.
    project_id: Option<Uuid>,
}

/// The tools that every project has, or those of one project, by name.
#[utoipa::path(get, path = "/api/v1/tools", tag = "tools", operation_id = "list_tools", params(ToolsOf, PageQuery), responses(
    (status = 200, body = Page<ToolView>),
    (status = 404, description = "No such project"),
))]
pub(crate) async fn list(
    tools: web::Data<ToolControl>,
    caller: Authenticated,
    query: Query<ToolsOf>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::TOOLS)?;
    let tools = tools.open(&caller.0, query.project_id.map(ProjectId::from)).await?;
    // They are few, always in the same order: their numbers are the keys of the pages.
    let mut numbered: Vec<(Uuid, _)> = (1..).map(Uuid::from_u128).zip(tools.list()).collect();
    numbered.retain(|(number, _)| page.after().is_none_or(|after: Uuid| *number > after));
    Ok(HttpResponse::Ok().json(page.of(numbered, |(number, _)| *number, |(_, tool)| ToolView::of(tool))))
}

/// One tool with the schema of its parameters.
#[utoipa::path(get, path = "/api/v1/tools/{name}", tag = "tools", operation_id = "get_tool", params(
    ("name" = String, Path), ToolsOf,
), responses((status = 200, body = ToolView)))]
pub(crate) async fn show(
    tools: web::Data<ToolControl>,
    caller: Authenticated,
    name: web::Path<String>,
    query: Query<ToolsOf>,
) -> Result<HttpResponse, ProblemDetails> {
    let project = query.read()?.project_id.map(ProjectId::from);
    Ok(HttpResponse::Ok().json(ToolView::of(&tools.find(&caller.0, project, &name).await?)))
}

/// Calls a tool, as a run of its own: it is recorded, it can be cancelled, and it ends even if this instance does not
/// live to see it.
///
/// The answer comes when the run has ended, after 300 seconds at most, or `Prefer: wait=SECONDS` (up to 3600). If the
/// run goes on then, or with `Prefer: respond-async`, the answer is 202 with the run.
#[utoipa::path(post, path = "/api/v1/tools/{name}/invoke", tag = "tools", operation_id = "invoke_tool", params(
    ("name" = String, Path),
    ("Prefer" = Option<String>, Header, description = "`respond-async`, or `wait=SECONDS`"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same run"),
), request_body = InvokeTool, responses(
    (status = 200, body = ToolOutputView),
    (status = 202, body = RunView, description = "The call goes on, as this run"),
    (status = 409, description = "The key was used for another request"),
    (status = 424, description = "The tool was called and failed, or the run was cancelled; `run_id` and `error` say more"),
))]
pub(crate) async fn invoke(
    tools: web::Data<ToolControl>,
    ends: web::Data<RunEnds>,
    name: web::Path<String>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let awaited = Awaited::new(&request, &ends, caller.user)?;
    let run = source.placing(async {
        let InvokeTool { params, project_id, timeout_seconds } = input::read(value)?;
        let call = CallTool {
            tool: name.into_inner(),
            params: params.unwrap_or_else(|| json!({})),
            project: project_id.map(ProjectId::from),
            timeout: timeout_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            once,
        };
        Ok(tools.call(&caller, call).await?)
    });
    awaited.answer(run.await?, Kind::ToolFailed, ToolOutputView::of, |run| tools.find_failure(run)).await
}

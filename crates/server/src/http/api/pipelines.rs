//! Pipelines: checked, created, listed, shown.

pub(crate) mod change;
pub(crate) mod versions;

use actix_web::http::header::{ETag, EntityTag};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_control::right::{self, Right};
use gathering_control::{Pipeline, PipelineHead, Scoped, visible_to};
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{PipelineId, Pointer, Problems, ProjectId};
use gathering_persistence::NewPipeline;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields, Source, line, prose, read_object};
use gathering_edge::caller::Authenticated;
use gathering_edge::conditions;
use gathering_edge::page::{self, Page};
use gathering_edge::problem::{FieldError, ProblemDetails, ProblemView, field_errors};
use gathering_edge::query::Query;
use gathering_edge::values::AnyObject;

const MAX_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 20_000;

/// A named graph in versions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pipeline)]
pub(crate) struct PipelineView {
    id: Uuid,
    project_id: Uuid,
    name: String,
    description: String,
    /// Whether it starts runs.
    enabled: bool,
    /// The latest version, from 1.
    version: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The definition of the latest version, as it was written; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = AnyObject, required = false)]
    definition: Option<Value>,
}

impl PipelineView {
    fn of(pipeline: Pipeline, definition: Option<Value>) -> Self {
        Self {
            id: pipeline.id.as_uuid(),
            project_id: pipeline.project.as_uuid(),
            name: pipeline.name,
            description: pipeline.description,
            enabled: pipeline.enabled,
            version: pipeline.version,
            created_at: pipeline.created_at,
            updated_at: pipeline.updated_at,
            definition,
        }
    }
}

/// What a definition looks like when it is checked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Validation)]
pub(crate) struct ValidationView {
    /// Whether it may be executed.
    valid: bool,
    /// Everything that is wrong with it.
    errors: Vec<FieldError>,
    /// The ids of its nodes in a topological order; empty when it is invalid.
    order: Vec<String>,
    /// The ids by depth: those of one level depend only on levels before it.
    levels: Vec<Vec<String>>,
}

/// A pipeline to be created.
#[derive(ToSchema)]
pub(crate) struct CreatePipeline {
    /// Absent: the caller's default project.
    #[schema(value_type = Uuid, required = false)]
    project_id: Option<ProjectId>,
    name: String,
    #[schema(required = false, default = "")]
    description: String,
    /// Nodes, edges and what holds for the whole.
    #[schema(value_type = AnyObject)]
    definition: Value,
    #[schema(required = false, default = true)]
    enabled: bool,
}

impl FromFields for CreatePipeline {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let project = fields.optional("project_id", Shape::Text).and_then(Value::as_str);
        let project_id = project.and_then(|text| {
            text.parse().map_err(|error| fields.problem("project_id", format!("{error}"))).ok()
        });
        let name =
            fields.required("name", Shape::Text).and_then(|value| line(fields, "name", value, MAX_NAME));
        let description = match fields.optional("description", Shape::Any) {
            None | Some(Value::Null) => Some(String::new()),
            Some(value) => prose(fields, "description", value, MAX_DESCRIPTION),
        };
        let definition = fields.required("definition", Shape::Object).cloned();
        let enabled = fields.optional("enabled", Shape::Bool).and_then(Value::as_bool).unwrap_or(true);
        Some(Self { project_id, name: name?, description: description?, definition: definition?, enabled })
    }
}

/// Which pipelines to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListPipelines {
    /// Only of this project.
    project_id: Option<Uuid>,
    /// The length of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[expect(dead_code, reason = "`Query::read_page` reads it")]
    cursor: Option<String>,
}

/// Checks a definition without storing it.
#[utoipa::path(post, path = "/api/v1/pipelines/validate", tag = "pipelines", operation_id = "validate_definition", request_body(
    content((AnyObject = "application/json"), (AnyObject = "application/yaml")), description = "A definition"
), responses(
    (status = 200, description = "What is wrong with it, or its order", body = ValidationView),
    (status = 400, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn validate(state: web::Data<AppState>, body: Body) -> Result<HttpResponse, ProblemDetails> {
    let (definition, source) = body.receive().await?.1.value()?;
    let view = match state.control.graphs.check(definition).await?.1 {
        Ok(summary) => ValidationView {
            valid: true,
            errors: Vec::new(),
            order: summary.nodes.into_iter().map(|(id, _)| id).collect(),
            levels: summary.levels,
        },
        Err(problems) => ValidationView {
            valid: false,
            errors: source.placed(field_errors(problems)).await?,
            order: Vec::new(),
            levels: Vec::new(),
        },
    };
    Ok(HttpResponse::Ok().json(view))
}

/// Creates a pipeline. An invalid definition is refused with everything that is wrong with it, and nothing is stored.
///
/// As YAML, the body may also be a definition alone, with its own `name`.
#[utoipa::path(post, path = "/api/v1/pipelines", tag = "pipelines", operation_id = "create_pipeline", request_body(
    content((CreatePipeline = "application/json"), (CreatePipeline = "application/yaml"))
), responses(
    (status = 201, description = "With its `ETag`", body = PipelineView),
    (status = 403, body = ProblemView, content_type = "application/problem+json"),
    (status = 404, description = "No such project", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn create(state: web::Data<AppState>, body: Body) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let (value, at) = body_of_pipeline(value, &source);
    let (project, new) = source.placing(checked(&state, &caller, &value, &at)).await?;
    let pipeline = state.pipelines.create(PipelineId::new(), project, &new, Some(caller.user)).await?;
    let location = format!("/api/v1/pipelines/{}", pipeline.id);
    let mut response = HttpResponse::Created();
    response.insert_header(("location", location));
    Ok(shown(response, pipeline, new.definition))
}

/// What is to be created, and in which project.
async fn checked(
    state: &AppState,
    caller: &Caller,
    body: &Value,
    at: &Pointer,
) -> Result<(ProjectId, NewPipeline), ProblemDetails> {
    let CreatePipeline { project_id, name, description, definition, enabled } = read_object(body)?;
    let project = state.project_for(caller, project_id).await?;
    let definition = state.check_definition_at(at, definition).await?;
    Ok((project, NewPipeline { name, description, enabled, definition }))
}

/// A pipeline with its definition and its `ETag`.
fn shown(mut response: HttpResponseBuilder, pipeline: Pipeline, definition: Value) -> HttpResponse {
    response.insert_header(ETag(tag_of(&pipeline)));
    response.json(PipelineView::of(pipeline, Some(definition)))
}

fn tag_of(pipeline: &Pipeline) -> EntityTag {
    EntityTag::new_strong(pipeline.revision())
}

/// The body for a pipeline, and where the definition stands in its text: YAML may be a definition alone.
fn body_of_pipeline(value: Value, source: &Source) -> (Value, Pointer) {
    if source.is_yaml() && value.get("nodes").is_some() {
        (body_of_definition(value), Pointer::root())
    } else {
        (value, Pointer::root().join("definition"))
    }
}

/// A file that holds one pipeline: a definition with its own name.
fn body_of_definition(definition: Value) -> Value {
    let mut body = serde_json::Map::new();
    for field in ["name", "description"] {
        if let Some(value) = definition.get(field) {
            body.insert(field.to_owned(), value.clone());
        }
    }
    body.insert("definition".to_owned(), definition);
    Value::Object(body)
}

/// The problems of a definition, as problems of the body that holds it there.
fn below(at: &Pointer, problems: Problems) -> Problems {
    let mut all = Problems::new();
    for problem in problems {
        all.add(Pointer::from(format!("{at}{}", problem.pointer)), problem.message);
    }
    all
}

/// The pipelines that the caller may see, the newest first.
#[utoipa::path(get, path = "/api/v1/pipelines", tag = "pipelines", operation_id = "list_pipelines", params(ListPipelines), responses(
    (status = 200, body = Page<PipelineView>),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    state: web::Data<AppState>,
    caller: Authenticated,
    query: Query<ListPipelines>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, before) = query.read_page(lists::PIPELINES)?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let project = query.project_id.map(ProjectId::from);
    let visible_to = visible_to(&caller.0)?;
    let rows = state.pipelines.list(visible_to, project, before.map(Into::into), limit + 1).await?;
    let key = |pipeline: &Pipeline| pipeline.id.as_uuid();
    let page = Page::of(lists::PIPELINES, rows, limit, key, |pipeline| PipelineView::of(pipeline, None));
    Ok(HttpResponse::Ok().json(page))
}

/// One pipeline, with the definition of its latest version.
#[utoipa::path(get, path = "/api/v1/pipelines/{id}", tag = "pipelines", operation_id = "get_pipeline", params(
    ("id" = Uuid, Path),
    ("If-None-Match" = Option<String>, Header, description = "`ETag`s: only if the pipeline is another than these"),
), responses(
    (status = 200, description = "With its `ETag`", body = PipelineView),
    (status = 304, description = "It is one of those in `If-None-Match`"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn show(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let id: PipelineId = id.parse().map_err(|_| ProblemDetails::not_found())?;
    let found = state.pipelines.find_with_definition(id).await?;
    let (pipeline, definition) = found.ok_or_else(ProblemDetails::not_found)?;
    state.control.projects.find::<right::Read>(&caller.0, pipeline.project).await?;
    let tag = tag_of(&pipeline);
    if conditions::is_known(&request, &tag) {
        return Ok(HttpResponse::NotModified().insert_header(ETag(tag)).finish());
    }
    Ok(shown(HttpResponse::Ok(), pipeline, definition))
}

impl AppState {
    /// Checks the definition that stands there in a body, and gives it back.
    ///
    /// # Errors
    /// 422 with everything that is wrong with it.
    async fn check_definition_at(&self, at: &Pointer, definition: Value) -> Result<Value, ProblemDetails> {
        let (definition, checked) = self.control.graphs.check(definition).await?;
        checked.map_err(|problems| ProblemDetails::invalid(below(at, problems)))?;
        Ok(definition)
    }

    /// The pipeline that this text names, if the caller may do `R` with it.
    ///
    /// # Errors
    /// 404 for what is absent, invisible or no id at all; 403 for what the caller's role does not allow.
    pub(crate) async fn pipeline<R: Right>(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<Scoped<PipelineHead, R>, ProblemDetails> {
        let id: PipelineId = id.parse().map_err(|_| ProblemDetails::not_found())?;
        Ok(self.control.pipelines.find(caller, id).await?)
    }
}

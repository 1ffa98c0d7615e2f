//! Pipelines: checked, created, listed, shown.

pub(crate) mod change;
pub(crate) mod versions;

use actix_web::http::header::{ETag, EntityTag};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use chrono::{DateTime, Utc};
use gathering_control::{
    DefinePipeline, DefinedPipeline, Graphs, Pipeline, PipelineControl, SubmittedDefinition,
};
use gathering_domain::{PipelineId, Pointer, ProjectId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::api::lists;
use gathering_edge::body::{Body, Source};
use gathering_edge::caller::Authenticated;
use gathering_edge::conditions;
use gathering_edge::idempotency::keyed_body;
use gathering_edge::input::{self, Input};
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::{FieldError, ProblemDetails, field_errors};
use gathering_edge::query::Query;
use gathering_edge::values::{AnyObject, one_line, prose_or_null, trimmed};

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
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreatePipeline {
    /// Absent: the caller's default project.
    #[schema(required = false)]
    project_id: Option<Uuid>,
    /// 1 to 200 characters.
    #[schema(schema_with = one_line::<MAX_NAME>)]
    #[serde(deserialize_with = "trimmed")]
    name: String,
    /// At most 20,000 characters; empty by default.
    #[schema(schema_with = prose_or_null::<MAX_DESCRIPTION>, required = false)]
    description: Option<String>,
    /// Nodes, edges and what holds for the whole.
    #[schema(value_type = AnyObject)]
    definition: Value,
    /// Whether it starts runs.
    #[schema(required = false, default = true)]
    enabled: Option<bool>,
}

impl Input for CreatePipeline {}

/// Which pipelines to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListPipelines {
    /// Only of this project.
    project_id: Option<Uuid>,
}

/// Checks a definition without storing it.
#[utoipa::path(post, path = "/api/v1/pipelines/validate", tag = "pipelines", operation_id = "validate_definition", request_body(
    content((AnyObject = "application/json"), (AnyObject = "application/yaml")), description = "A definition"
), responses(
    (status = 200, description = "What is wrong with it, or its order", body = ValidationView),
    (status = 422, description = "No definition was sent"),
))]
pub(crate) async fn validate(graphs: web::Data<Graphs>, body: Body) -> Result<HttpResponse, ProblemDetails> {
    let (definition, source) = body.receive().await?.1.required_value()?;
    let view = match graphs.check(definition).await?.1 {
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
#[utoipa::path(post, path = "/api/v1/pipelines", tag = "pipelines", operation_id = "create_pipeline", params(
    ("Idempotency-Key" = Option<String>, Header, description = "For 24 hours the same key and body answer the same pipeline"),
), request_body(
    content((CreatePipeline = "application/json"), (CreatePipeline = "application/yaml"))
), responses(
    (status = 201, description = "With its `ETag`", body = PipelineView),
    (status = 404, description = "No such project"),
    (status = 409, description = "The key was used for another request, or what it created was deleted"),
))]
pub(crate) async fn create(
    pipelines: web::Data<PipelineControl>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let (value, at) = body_of_pipeline(value, &source);
    let defined = source.placing(async {
        let CreatePipeline { project_id, name, description, definition, enabled } = input::read(value)?;
        let define = DefinePipeline {
            project: project_id.map(ProjectId::from),
            name,
            description: description.unwrap_or_default(),
            enabled: enabled.unwrap_or(true),
            definition: SubmittedDefinition { value: definition, at },
            once,
        };
        Ok(pipelines.define(&caller, define).await?)
    });
    let defined = defined.await?;
    let mut response = HttpResponse::Created();
    response.insert_header(("location", format!("/api/v1/pipelines/{}", defined.pipeline.id)));
    Ok(shown(response, defined))
}

/// A pipeline with its definition and its `ETag`.
fn shown(mut response: HttpResponseBuilder, defined: DefinedPipeline) -> HttpResponse {
    let DefinedPipeline { pipeline, definition } = defined;
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

/// The pipelines that the caller may see, the newest first.
#[utoipa::path(get, path = "/api/v1/pipelines", tag = "pipelines", operation_id = "list_pipelines", params(ListPipelines, PageQuery), responses(
    (status = 200, body = Page<PipelineView>),
))]
pub(crate) async fn list(
    pipelines: web::Data<PipelineControl>,
    caller: Authenticated,
    query: Query<ListPipelines>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::PIPELINES)?;
    let project = query.project_id.map(ProjectId::from);
    let rows = pipelines.list(&caller.0, project, page.after(), page.n_rows()).await?;
    let key = |pipeline: &Pipeline| pipeline.id.as_uuid();
    Ok(HttpResponse::Ok().json(page.of(rows, key, |pipeline| PipelineView::of(pipeline, None))))
}

/// One pipeline, with the definition of its latest version.
#[utoipa::path(get, path = "/api/v1/pipelines/{id}", tag = "pipelines", operation_id = "get_pipeline", params(
    ("id" = Uuid, Path),
    ("If-None-Match" = Option<String>, Header, description = "`ETag`s: only if the pipeline is another than these"),
), responses(
    (status = 200, description = "With its `ETag`", body = PipelineView),
    (status = 304, description = "It is one of those in `If-None-Match`"),
))]
pub(crate) async fn show(
    pipelines: web::Data<PipelineControl>,
    caller: Authenticated,
    id: web::Path<PipelineId>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let defined = pipelines.load(&caller.0, *id).await?;
    let tag = tag_of(&defined.pipeline);
    if conditions::is_known(&request, &tag) {
        return Ok(HttpResponse::NotModified().insert_header(ETag(tag)).finish());
    }
    Ok(shown(HttpResponse::Ok(), defined))
}

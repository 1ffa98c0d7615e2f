//! Pipelines changed and deleted, where the caller says so only as they saw them.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control::right;
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{PipelineId, Pointer};
use gathering_persistence::{ExpectedPipeline, PipelineChange, PipelineDeletion, PipelineUpdate};
use serde_json::Value;
use utoipa::ToSchema;

use super::{MAX_DESCRIPTION, MAX_NAME, PipelineView, body_of_pipeline, shown};
use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields, line, prose, read_object};
use gathering_edge::caller::Authenticated;
use gathering_edge::conditions::Expected;
use gathering_edge::problem::{Kind, ProblemDetails, ProblemView};
use gathering_edge::values::AnyObject;

/// What to change of a pipeline; what is absent stays.
#[derive(Debug, ToSchema)]
pub(crate) struct ChangePipeline {
    #[schema(required = false)]
    name: Option<String>,
    #[schema(required = false)]
    description: Option<String>,
    /// Nodes, edges and what holds for the whole. Another one than the latest makes a new version.
    #[schema(value_type = AnyObject, required = false)]
    definition: Option<Value>,
    /// `false`: it starts no runs.
    #[schema(required = false)]
    enabled: Option<bool>,
}

impl FromFields for ChangePipeline {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name =
            fields.optional("name", Shape::Text).and_then(|value| line(fields, "name", value, MAX_NAME));
        let description = fields
            .optional("description", Shape::Any)
            .filter(|value| !value.is_null())
            .and_then(|value| prose(fields, "description", value, MAX_DESCRIPTION));
        let definition = fields.optional("definition", Shape::Object).cloned();
        let enabled = fields.optional("enabled", Shape::Bool).and_then(Value::as_bool);
        Some(Self { name, description, definition, enabled })
    }
}

/// Changes a pipeline; what is absent stays. Another definition than that of the latest version makes a new version;
/// runs keep the one that they began with. Where everything is so already, nothing changes, not even the `ETag`.
///
/// As YAML, the body may also be a definition alone, with its own `name`.
#[utoipa::path(put, path = "/api/v1/pipelines/{id}", tag = "pipelines", operation_id = "change_pipeline", params(
    ("id" = Uuid, Path),
    ("If-Match" = Option<String>, Header, description = "`ETag`s: only if the pipeline is still one of these"),
), request_body(
    content((ChangePipeline = "application/json"), (ChangePipeline = "application/yaml"))
), responses(
    (status = 200, description = "As it is now, with its `ETag`", body = PipelineView),
    (status = 403, body = ProblemView, content_type = "application/problem+json"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 412, description = "It was changed since", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn change(
    state: web::Data<AppState>,
    id: web::Path<String>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let id = state.pipeline::<right::Write>(&caller, &id).await?.pipeline.id;
    let expected = expected_pipeline(&request)?;
    let (value, source) = body.value()?;
    let (value, at) = body_of_pipeline(value, &source);
    let change = source.placing(checked(&state, &value, &at)).await?;
    match state.pipelines.update(id, &expected, &change, Some(caller.user)).await? {
        PipelineUpdate::Done(pipeline) => {
            let definition = match change.definition {
                Some(definition) => definition,
                None => state.pipelines.load_definition(id, pipeline.version).await?.1,
            };
            Ok(shown(HttpResponse::Ok(), pipeline, definition))
        }
        PipelineUpdate::Unexpected => Err(changed_since(id)),
        PipelineUpdate::Missing => Err(ProblemDetails::not_found()),
    }
}

async fn checked(state: &AppState, body: &Value, at: &Pointer) -> Result<PipelineChange, ProblemDetails> {
    let ChangePipeline { name, description, definition, enabled } = read_object(body)?;
    let definition = match definition {
        None => None,
        Some(definition) => Some(state.check_definition_at(at, definition).await?),
    };
    Ok(PipelineChange { name, description, enabled, definition })
}

/// Deletes a pipeline with its versions. Its runs stay, and name no pipeline any more.
#[utoipa::path(delete, path = "/api/v1/pipelines/{id}", tag = "pipelines", operation_id = "delete_pipeline", params(
    ("id" = Uuid, Path),
    ("If-Match" = Option<String>, Header, description = "`ETag`s: only if the pipeline is still one of these"),
), responses(
    (status = 204),
    (status = 403, body = ProblemView, content_type = "application/problem+json"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "Runs of it have not ended", body = ProblemView, content_type = "application/problem+json"),
    (status = 412, description = "It was changed since", body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let id = state.pipeline::<right::Write>(&caller.0, &id).await?.pipeline.id;
    match state.pipelines.delete(id, &expected_pipeline(&request)?).await? {
        PipelineDeletion::Done => Ok(HttpResponse::NoContent().finish()),
        PipelineDeletion::Unexpected => Err(changed_since(id)),
        PipelineDeletion::RunsActive => Err(ProblemDetails::conflict(
            "the pipeline has runs that have not ended: cancel them, or wait for them",
        )),
        PipelineDeletion::Missing => Err(ProblemDetails::not_found()),
    }
}

/// What the pipeline must be, for it to be changed.
fn expected_pipeline(request: &HttpRequest) -> Result<ExpectedPipeline, ProblemDetails> {
    if request.headers().contains_key(header::IF_NONE_MATCH) {
        // To ignore a condition would be to do what the caller does not want.
        return Err(ProblemDetails::new(Kind::Malformed, "`If-None-Match` is not supported here"));
    }
    Ok(match Expected::of(request)? {
        Expected::Nothing | Expected::Present => ExpectedPipeline::Any,
        Expected::OneOf(tags) => ExpectedPipeline::OneOf(tags),
    })
}

fn changed_since(id: PipelineId) -> ProblemDetails {
    let detail = format!("pipeline {id} is not as `If-Match` says any more: read it again");
    ProblemDetails::new(Kind::PreconditionFailed, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_of_a_change_stays() {
        let read: ChangePipeline = read_object(&json!({})).unwrap();
        assert_eq!((read.name, read.description, read.definition, read.enabled), (None, None, None, None));
        let read: ChangePipeline = read_object(&json!({"name": " a ", "enabled": false})).unwrap();
        assert_eq!((read.name.as_deref(), read.enabled), (Some("a"), Some(false)));
        for wrong in [
            json!({"name": ""}),
            json!({"enabled": "no"}),
            json!({"definition": []}),
            json!({"version": 2}),
            json!([]),
        ] {
            assert_eq!(read_object::<ChangePipeline>(&wrong).unwrap_err().status(), 422, "{wrong}");
        }
    }
}

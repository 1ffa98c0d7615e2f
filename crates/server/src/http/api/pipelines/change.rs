//! Pipelines changed and deleted, on request only as the caller saw them.

use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control::{self as control, PipelineControl, SubmittedDefinition};
use gathering_domain::PipelineId;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{MAX_DESCRIPTION, MAX_NAME, PipelineView, body_of_pipeline, shown};
use crate::http::api::revisions::expected_revision;
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::input::{self, Input};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::values::{AnyObject, one_line_or_null, prose_or_null, trimmed_or_null};

/// What to change of a pipeline; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePipeline {
    /// 1 to 200 characters.
    #[schema(schema_with = one_line_or_null::<MAX_NAME>, required = false)]
    #[serde(default, deserialize_with = "trimmed_or_null")]
    name: Option<String>,
    /// At most 20,000 characters.
    #[schema(schema_with = prose_or_null::<MAX_DESCRIPTION>, required = false)]
    description: Option<String>,
    /// Nodes, edges and what holds for the whole. Another one than the latest makes a new version.
    #[schema(value_type = Option<AnyObject>, required = false)]
    definition: Option<Value>,
    /// `false`: it starts no runs.
    #[schema(required = false)]
    enabled: Option<bool>,
}

impl Input for ChangePipeline {}

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
    (status = 412, description = "It was changed since"),
))]
pub(crate) async fn change(
    pipelines: web::Data<PipelineControl>,
    id: web::Path<PipelineId>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let expected = expected_revision(&request)?;
    let (value, source) = body.value()?;
    let (value, at) = body_of_pipeline(value, &source);
    let changed = source.placing(async {
        let ChangePipeline { name, description, definition, enabled } = input::read(value)?;
        let definition = definition.map(|value| SubmittedDefinition { value, at });
        let change = control::ChangePipeline { name, description, enabled, definition };
        Ok(pipelines.change(&caller, *id, expected, change).await?)
    });
    Ok(shown(HttpResponse::Ok(), changed.await?))
}

/// Deletes a pipeline with its versions. Its runs stay, and name no pipeline any more.
#[utoipa::path(delete, path = "/api/v1/pipelines/{id}", tag = "pipelines", operation_id = "delete_pipeline", params(
    ("id" = Uuid, Path),
    ("If-Match" = Option<String>, Header, description = "`ETag`s: only if the pipeline is still one of these"),
), responses(
    (status = 204),
    (status = 409, description = "Runs of it have not ended"),
    (status = 412, description = "It was changed since"),
))]
pub(crate) async fn delete(
    pipelines: web::Data<PipelineControl>,
    caller: Authenticated,
    id: web::Path<PipelineId>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    pipelines.delete(&caller.0, *id, expected_revision(&request)?).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_of_a_change_stays() {
        let read: ChangePipeline = input::read(json!({})).unwrap();
        assert_eq!((read.name, read.description, read.definition, read.enabled), (None, None, None, None));
        let read: ChangePipeline = input::read(json!({"name": " a ", "enabled": false})).unwrap();
        assert_eq!((read.name.as_deref(), read.enabled), (Some("a"), Some(false)));
        for wrong in [
            json!({"name": ""}),
            json!({"enabled": "no"}),
            json!({"definition": []}),
            json!({"version": 2}),
            json!([]),
        ] {
            assert_eq!(input::read::<ChangePipeline>(wrong.clone()).unwrap_err().status(), 422, "{wrong}");
        }
    }
}

//! Runs of pipelines, started.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{self as control, DEFAULT_PRIORITY};
use gathering_dag_engine::{Fields, Shape, check_value};
use gathering_domain::PipelineId;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::accepted;
use crate::http::api::run_view::RunView;
use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields, read_object};
use gathering_edge::idempotency::keyed_body;
use gathering_edge::page;
use gathering_edge::problem::{ProblemDetails, ProblemView};

/// A run to be started.
#[derive(ToSchema)]
pub(crate) struct StartRun {
    /// Its input; an empty object by default.
    #[schema(required = false)]
    input: Value,
    /// 1 to 10; runs with a higher priority start first. 5 by default.
    #[schema(required = false, minimum = 1, maximum = 10)]
    priority: i32,
    /// The run does not start before this time.
    #[schema(required = false)]
    available_at: Option<DateTime<Utc>>,
    /// The version of the pipeline; the latest by default.
    #[schema(required = false, minimum = 1)]
    version: Option<i32>,
}

impl FromFields for StartRun {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let input = run_input(fields).unwrap_or_else(|| json!({}));
        let whole = |value: Option<&Value>| {
            value.and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok())
        };
        let priority = whole(fields.optional("priority", Shape::Whole(1, 10))).unwrap_or(DEFAULT_PRIORITY);
        let version = whole(fields.optional("version", Shape::Whole(1, i32::MAX as u64)));
        let text = fields.optional("available_at", Shape::Text).and_then(Value::as_str);
        let available_at = page::time("available_at", text, fields.problems());
        Some(Self { input, priority, available_at, version })
    }
}

/// The input, if there is one; what is wrong with it is named.
pub(super) fn run_input(fields: &mut Fields<'_>) -> Option<Value> {
    let input = fields.optional("input", Shape::Any).filter(|input| !input.is_null())?;
    if let Err(limit) = check_value(input) {
        fields.problem("input", limit.to_string());
        return None;
    }
    Some(input.clone())
}

/// Starts a run of a pipeline. An accepted run always reaches a terminal state.
#[utoipa::path(post, path = "/api/v1/pipelines/{id}/runs", tag = "runs", operation_id = "start_run", params(
    ("id" = Uuid, Path, description = "The pipeline"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same run"),
), request_body = StartRun, responses(
    (status = 202, body = RunView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "The key was used for another request, or the pipeline is disabled", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn start(
    state: web::Data<AppState>,
    id: web::Path<String>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let pipeline: PipelineId = id.parse().map_err(|_| ProblemDetails::not_found())?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let run = source.placing(async {
        let StartRun { input, priority, available_at, version } = read_object(&value)?;
        let start = control::StartRun { input, priority, available_at, version, once };
        Ok(state.control.runs.start(&caller, pipeline, start).await?)
    });
    Ok(accepted(run.await?))
}

#[cfg(test)]
mod tests {
    use super::super::rerun::Rerun;
    use super::*;

    #[test]
    fn an_input_that_could_not_be_read_again_is_refused_at_its_place() {
        let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let started = |levels| read_object::<StartRun>(&json!({ "input": deep(levels) })).err();
        let repeated =
            |levels| read_object::<Rerun>(&json!({ "from": "start", "input": deep(levels) })).err();
        assert!(started(100).is_none() && repeated(100).is_none());
        for problem in [started(101), repeated(101)] {
            let problem = problem.unwrap();
            assert_eq!(problem.status().as_u16(), 422);
            assert_eq!(problem.errors.iter().map(|error| &*error.pointer).collect::<Vec<_>>(), ["/input"]);
        }
    }
}

//! Runs of pipelines, started.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{self as control, DEFAULT_PRIORITY, RunControl};
use gathering_dag_engine::check_value;
use gathering_domain::{PipelineId, Pointer, Problems};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::accepted;
use crate::http::api::run_view::RunView;
use gathering_edge::body::Body;
use gathering_edge::idempotency::keyed_body;
use gathering_edge::input::{self, Input};
use gathering_edge::problem::ProblemDetails;

/// A run to be started.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartRun {
    /// Its input; an empty object by default.
    #[schema(required = false)]
    input: Option<Value>,
    /// 1 to 10; runs with a higher priority start first.
    #[schema(required = false, minimum = 1, maximum = 10, default = 5)]
    priority: Option<i32>,
    /// The run does not start before this time.
    #[schema(required = false)]
    available_at: Option<DateTime<Utc>>,
    /// The version of the pipeline; the latest by default.
    #[schema(required = false, minimum = 1, maximum = 2_147_483_647)]
    version: Option<i32>,
}

impl Input for StartRun {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        judge_input(object, problems);
    }
}

/// Refuses an input that a run could not keep.
pub(super) fn judge_input(object: &Map<String, Value>, problems: &mut Problems) {
    if let Some(Err(limit)) = object.get("input").map(check_value) {
        problems.add(Pointer::root().join("input"), limit.to_string());
    }
}

/// Starts a run of a pipeline. An accepted run always reaches a terminal state.
#[utoipa::path(post, path = "/api/v1/pipelines/{id}/runs", tag = "runs", operation_id = "start_run", params(
    ("id" = Uuid, Path, description = "The pipeline"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same run"),
), request_body = StartRun, responses(
    (status = 202, body = RunView),
    (status = 409, description = "The key was used for another request, or the pipeline is disabled"),
))]
pub(crate) async fn start(
    runs: web::Data<RunControl>,
    id: web::Path<PipelineId>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let run = source.placing(async {
        let StartRun { input, priority, available_at, version } = input::read(value)?;
        let input = input.unwrap_or_else(|| json!({}));
        let priority = priority.unwrap_or(DEFAULT_PRIORITY);
        let start = control::StartRun { input, priority, available_at, version, once };
        Ok(runs.start(&caller, *id, start).await?)
    });
    Ok(accepted(RunView::of(run.await?)))
}

#[cfg(test)]
mod tests {
    use super::super::rerun::Rerun;
    use super::*;

    #[test]
    fn an_input_that_could_not_be_read_again_is_refused_at_its_place() {
        let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let started = |levels| input::read::<StartRun>(json!({ "input": deep(levels) })).err();
        let repeated = |levels| input::read::<Rerun>(json!({ "from": "start", "input": deep(levels) })).err();
        assert!(started(100).is_none() && repeated(100).is_none());
        for problem in [started(101), repeated(101)] {
            let problem = problem.unwrap();
            assert_eq!(problem.status().as_u16(), 422);
            assert_eq!(problem.errors.iter().map(|error| &*error.pointer).collect::<Vec<_>>(), ["/input"]);
        }
    }
    #[test]
    fn everything_wrong_with_a_start_is_named_and_null_is_absent() {
        let null = json!({"input": null, "priority": null, "available_at": null, "version": null});
        for right in [json!({}), null, json!({"input": [1], "priority": 10, "version": 1.0})] {
            assert!(input::read::<StartRun>(right.clone()).is_ok(), "{right}");
        }
        let wrong =
            json!({"priority": 11, "available_at": "soon", "version": 2_147_483_648_u32, "inputs": 1});
        let problem = input::read::<StartRun>(wrong).unwrap_err();
        assert_eq!(
            problem.errors.iter().map(|error| &*error.pointer).collect::<Vec<_>>(),
            ["/available_at", "/inputs", "/priority", "/version"]
        );
    }
}

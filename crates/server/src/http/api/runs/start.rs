//! Runs of pipelines, started.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::Action;
use gathering_dag_engine::{Fields, NewRun, Shape, check_value};
use gathering_domain::{RunId, RunKind};
use gathering_persistence::{PipelineSeen, RunOrigin};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::accept::{Planned, accept};
use crate::http::api::run_view::RunView;
use crate::http::edge::body::{Body, FromFields};
use crate::http::edge::page;
use crate::http::edge::problem::{Problem, ProblemView};
use crate::http::state::AppState;

const DEFAULT_PRIORITY: i32 = 5;

/// A run to be started.
#[derive(ToSchema)]
pub(crate) struct StartRun {
    /// What it is started with; an empty object by default.
    #[schema(required = false)]
    input: Value,
    /// 1 to 10; the higher the sooner. 5 by default.
    #[schema(required = false, minimum = 1, maximum = 10)]
    priority: i32,
    /// Not to begin before.
    #[schema(required = false)]
    available_at: Option<DateTime<Utc>>,
    /// Of the pipeline; the latest by default.
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

/// The input that is asked for, if any is, with what is wrong with it named.
pub(super) fn run_input(fields: &mut Fields<'_>) -> Option<Value> {
    let input = fields.optional("input", Shape::Any).filter(|input| !input.is_null())?;
    if let Err(limit) = check_value(input) {
        fields.problem("input", limit.to_string());
        return None;
    }
    Some(input.clone())
}

/// Starts a run of a pipeline: once this is answered, the run will reach a terminal state.
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
) -> Result<HttpResponse, Problem> {
    let (caller, body) = body.receive().await?;
    let seen = state.pipeline(&caller, &id, Action::Run).await?;
    let about = json!({ "pipeline_id": seen.pipeline.id });
    let trigger = json!({ "type": "api", "user_id": caller.user });
    let project = seen.pipeline.project;
    accept(&state, &request, body, project, about, async |wanted| plan(&state, seen, trigger, wanted).await)
        .await
}

async fn plan(
    state: &AppState,
    seen: PipelineSeen,
    trigger: Value,
    wanted: StartRun,
) -> Result<Planned, Problem> {
    let PipelineSeen { pipeline, graph: latest, .. } = seen;
    if !pipeline.enabled {
        return Err(Problem::conflict("the pipeline is disabled: enable it first"));
    }
    let (version, graph) = match wanted.version {
        Some(version) if version != pipeline.version => {
            let graph = state.pipelines.find_graph(pipeline.id, version).await?;
            let missing = || format!("the pipeline has no version {version}");
            (version, graph.ok_or_else(|| Problem::invalid_field("version", missing()))?)
        }
        _ => (pipeline.version, latest),
    };
    let run = NewRun {
        id: RunId::new(),
        project: pipeline.project,
        graph,
        input: wanted.input,
        priority: wanted.priority,
        available_at: wanted.available_at,
        timeout: state.graph_summary(graph).await?.timeout,
    };
    let origin = RunOrigin {
        kind: RunKind::Pipeline,
        trigger,
        pipeline: Some((pipeline.id, version)),
        ..RunOrigin::default()
    };
    Ok(Planned { run, origin, begins_with: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::super::rerun::Rerun;
    use super::*;
    use crate::http::edge::body::read_object;

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

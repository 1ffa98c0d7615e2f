//! Runs, rerun: as new runs, which keep the results that stand.

use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control::{self as control, AcceptedRerun, RunControl};
use gathering_dag_engine::{RerunFrom, RerunPlan};
use gathering_domain::{Pointer, Problems, RunId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::accepted;
use super::start::judge_input;
use crate::http::api::run_view::RunView;
use crate::http::api::words::NotKeptReasonSchema;
use gathering_edge::body::Body;
use gathering_edge::idempotency::keyed_body;
use gathering_edge::input::{self, Input};
use gathering_edge::problem::ProblemDetails;

/// How to rerun a run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rerun {
    /// `start`: every node runs again. `failed`: the nodes that did not succeed, and those after them; where all did and
    /// the run failed, its output is computed again. A node's id: this node, those after it, and those whose failure
    /// ended the run.
    #[schema(value_type = String, example = "failed")]
    #[serde(deserialize_with = "rerun_from")]
    from: RerunFrom,
    /// Its input; that of the old run by default. A result is kept only if the node read the same of both.
    #[schema(required = false)]
    input: Option<Value>,
    /// The version of the pipeline; that of the old run by default. A result is kept only if the node, and everything
    /// before it, would do the same again.
    #[schema(required = false, minimum = 1, maximum = 2_147_483_647)]
    version: Option<i32>,
    /// Show what would be kept, and start nothing.
    #[schema(required = false, default = false)]
    dry_run: Option<bool>,
}

/// What a rerun keeps of the run that it continues.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RerunPlan)]
pub(crate) struct RerunPlanView {
    /// The nodes whose results are kept, in a topological order.
    kept: Vec<String>,
    /// The nodes that run, in a topological order.
    not_kept: Vec<NotKeptView>,
}

/// A node that runs in a rerun.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotKept)]
pub(crate) struct NotKeptView {
    node_id: String,
    #[schema(value_type = NotKeptReasonSchema)]
    reason: &'static str,
    message: String,
    /// How many of its effects are done already and are not repeated with the same request.
    reused_effects: usize,
}

impl RerunPlanView {
    fn of(plan: RerunPlan) -> Self {
        let not_kept = plan.not_kept.into_iter().map(|node| NotKeptView {
            node_id: node.node.to_string(),
            reason: node.reason.as_str(),
            message: node.reason.to_string(),
            reused_effects: node.n_reused_effects,
        });
        let kept = plan.kept.iter().map(ToString::to_string).collect();
        Self { kept, not_kept: not_kept.collect() }
    }
}

impl Input for Rerun {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        if let Some(text) = object.get("from").and_then(Value::as_str)
            && let Err(wrong) = point(text)
        {
            problems.add(Pointer::root().join("from"), wrong);
        }
        judge_input(object, problems);
    }
}

/// The point that a text names.
fn point(text: &str) -> Result<RerunFrom, &'static str> {
    match text {
        "start" => Ok(RerunFrom::Start),
        "failed" => Ok(RerunFrom::Failed),
        node => match node.parse() {
            Ok(node) => Ok(RerunFrom::Node(node)),
            Err(_) => Err("must be `start`, `failed` or the id of a node"),
        },
    }
}

fn rerun_from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RerunFrom, D::Error> {
    point(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Reruns a run that has ended, as a new run that refers to it. A node that succeeded before the chosen point keeps its
/// result if it would do the same again: the same type, the same computed config, the same nodes before it. The answer
/// says what is kept and why the other nodes run. With `dry_run` nothing is started.
#[utoipa::path(post, path = "/api/v1/runs/{id}/rerun", tag = "runs", operation_id = "rerun", params(
    ("id" = Uuid, Path, description = "The run that has ended"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same run"),
), request_body = Rerun, responses(
    (status = 200, description = "What a rerun would keep: with `dry_run`", body = RerunPlanView),
    (status = 202, description = "The new run, with its `plan`", body = RunView),
    (status = 409, description = "The run has not ended, nothing in it failed, another one started it, its pipeline is disabled, or the key was used for another request"),
))]
pub(crate) async fn rerun(
    runs: web::Data<RunControl>,
    id: web::Path<RunId>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let answer = source.placing(async {
        let Rerun { from, input, version, dry_run } = input::read(value)?;
        let rerun = control::Rerun { from, input, version, once };
        if dry_run == Some(true) {
            let plan = runs.preview_rerun(&caller, *id, rerun).await?;
            return Ok(HttpResponse::Ok().json(RerunPlanView::of(plan)));
        }
        let AcceptedRerun { run, plan } = runs.rerun(&caller, *id, rerun).await?;
        Ok(accepted(RunView::with_plan(run, plan.map(RerunPlanView::of))))
    });
    answer.await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_rerun_from_its_start_from_what_failed_or_from_a_node() {
        let from = |text: &str| input::read::<Rerun>(json!({ "from": text })).map(|Rerun { from, .. }| from);
        assert_eq!(from("start").unwrap(), RerunFrom::Start);
        assert_eq!(from("failed").unwrap(), RerunFrom::Failed);
        assert_eq!(from("a-1").unwrap(), RerunFrom::Node("a-1".parse().unwrap()));
        for wrong in ["", "1a", "a b", "a.b"] {
            assert_eq!(from(wrong).err().map(|problem| problem.status().as_u16()), Some(422), "{wrong}");
        }
        assert!(input::read::<Rerun>(json!({})).is_err());
        assert!(input::read::<Rerun>(json!({"from": "start", "version": 0})).is_err());
        assert!(input::read::<Rerun>(json!({"from": "start", "version": 2, "dry_run": true})).is_ok());
    }
}

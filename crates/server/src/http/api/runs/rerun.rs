//! Runs, rerun: as new runs, which keep the results that stand.

use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control as control;
use gathering_dag_engine::{Fields, RerunFrom, Shape};
use gathering_domain::RunId;
use serde_json::Value;
use utoipa::ToSchema;

use super::accepted;
use super::start::run_input;
use crate::http::api::run_view::RunView;
use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields, read_object};
use gathering_edge::idempotency::keyed_body;
use gathering_edge::problem::{ProblemDetails, ProblemView};

/// How to rerun a run.
#[derive(ToSchema)]
pub(crate) struct Rerun {
    /// `start`: every node runs again. `failed`: the nodes that did not succeed, and those after them; where all did and
    /// the run failed, its output is computed again. A node's id: this node, those after it, and those whose failure
    /// ended the run.
    #[schema(value_type = String, example = "failed")]
    from: RerunFrom,
    /// Its input; that of the old run by default. Results that are kept were made of the old input.
    #[schema(required = false)]
    input: Option<Value>,
}

impl FromFields for Rerun {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let from = match fields.required("from", Shape::Text).and_then(Value::as_str) {
            None => None,
            Some("start") => Some(RerunFrom::Start),
            Some("failed") => Some(RerunFrom::Failed),
            Some(node) => match node.parse() {
                Ok(node) => Some(RerunFrom::Node(node)),
                Err(_) => {
                    fields.problem("from", "must be `start`, `failed` or the id of a node");
                    None
                }
            },
        };
        let input = run_input(fields);
        Some(Self { from: from?, input })
    }
}

/// Reruns a run that has ended, as a new run that refers to it. Nodes that succeeded before the chosen point keep their
/// results and do not execute again.
#[utoipa::path(post, path = "/api/v1/runs/{id}/rerun", tag = "runs", operation_id = "rerun", params(
    ("id" = Uuid, Path, description = "The run that has ended"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same run"),
), request_body = Rerun, responses(
    (status = 202, description = "The new run", body = RunView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "The run has not ended, nothing in it failed, another one started it, its pipeline is disabled, or the key was used for another request", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn rerun(
    state: web::Data<AppState>,
    id: web::Path<String>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let old: RunId = id.parse().map_err(|_| ProblemDetails::not_found())?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let run = source.placing(async {
        let Rerun { from, input } = read_object(&value)?;
        Ok(state.control.runs.rerun(&caller, old, control::Rerun { from, input, once }).await?)
    });
    Ok(accepted(run.await?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_rerun_from_its_start_from_what_failed_or_from_a_node() {
        let from = |text: &str| read_object::<Rerun>(&json!({ "from": text })).map(|Rerun { from, .. }| from);
        assert_eq!(from("start").unwrap(), RerunFrom::Start);
        assert_eq!(from("failed").unwrap(), RerunFrom::Failed);
        assert_eq!(from("a-1").unwrap(), RerunFrom::Node("a-1".parse().unwrap()));
        for wrong in ["", "1a", "a b", "a.b"] {
            assert_eq!(from(wrong).err().map(|problem| problem.status().as_u16()), Some(422), "{wrong}");
        }
        assert!(read_object::<Rerun>(&json!({})).is_err());
        assert!(read_object::<Rerun>(&json!({"from": "start", "version": 1})).is_err());
    }
}

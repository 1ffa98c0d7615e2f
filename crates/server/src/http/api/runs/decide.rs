//! What people decide about nodes that wait for them.

use actix_web::{HttpResponse, web};
use gathering_control as control;
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{NodeId, RunId};
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::api::run_view::RunView;
use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields, prose};
use gathering_edge::problem::{ProblemDetails, ProblemView};

const MAX_COMMENT: usize = 10_000;

/// A decision.
#[derive(Debug, ToSchema)]
pub(crate) struct Decide {
    /// Whether the node may go on; else it fails as `denied`.
    approve: bool,
    /// A comment, which becomes part of the node's output.
    #[schema(required = false)]
    comment: Option<String>,
}

impl FromFields for Decide {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let approve = fields.required("approve", Shape::Bool).and_then(Value::as_bool);
        let comment = fields
            .optional("comment", Shape::Any)
            .filter(|value| !value.is_null())
            .and_then(|value| prose(fields, "comment", value, MAX_COMMENT));
        Some(Self { approve: approve?, comment })
    }
}

/// Decides about a node that waits for an approval. An approved node succeeds and the run goes on; a denied one fails.
/// The first decision is final.
#[utoipa::path(post, path = "/api/v1/runs/{id}/nodes/{node_id}/decision", tag = "runs", operation_id = "decide_node", params(
    ("id" = Uuid, Path, description = "The run"),
    ("node_id" = String, Path),
), request_body = Decide, responses(
    (status = 202, description = "The decision is recorded, and reaches the instance that drives the run", body = RunView),
    (status = 403, description = "You are not one of the node's approvers", body = ProblemView, content_type = "application/problem+json"),
    (status = 404, description = "No such run or node", body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "The node is not waiting for an approval, or already has a decision", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn decide(
    state: web::Data<AppState>,
    path: web::Path<(String, String)>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (run, node) = path.into_inner();
    let run: RunId = run.parse().map_err(|_| ProblemDetails::not_found())?;
    let node: NodeId = node.parse().map_err(|_| ProblemDetails::not_found())?;
    let Decide { approve, comment } = body.read().await?;
    let decide = control::Decide { approve, comment };
    let run = state.control.runs.decide(&caller, run, &node, decide).await?;
    Ok(HttpResponse::Accepted().json(RunView::of(run)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use gathering_edge::body::read_object;

    #[test]
    fn a_decision_says_yes_or_no_and_maybe_why() {
        let read: Decide = read_object(&json!({"approve": false, "comment": "too\ndear"})).unwrap();
        assert_eq!((read.approve, read.comment.as_deref()), (false, Some("too\ndear")));
        let read: Decide = read_object(&json!({"approve": true, "comment": null})).unwrap();
        assert_eq!((read.approve, read.comment), (true, None));
        let long = "x".repeat(MAX_COMMENT + 1);
        for wrong in [
            json!({}),
            json!({"approve": "yes"}),
            json!({"approve": true, "comment": long}),
            json!({"approve": true, "by": "me"}),
        ] {
            assert_eq!(read_object::<Decide>(&wrong).unwrap_err().status(), 422);
        }
    }
}

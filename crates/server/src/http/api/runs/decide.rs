//! What people decide about nodes that wait for them.

use actix_web::{HttpResponse, web};
use gathering_control::{self as control, RunControl};
use gathering_domain::{NodeId, RunId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::api::run_view::RunView;
use gathering_edge::body::Body;
use gathering_edge::input::Input;
use gathering_edge::problem::ProblemDetails;

/// A decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decide {
    /// Whether the node may go on; else it fails as `denied`.
    approve: bool,
    /// A comment of at most 10,000 characters, which becomes part of the node's output.
    #[schema(required = false, max_length = 10_000, pattern = "^[^\\u0000]*$")]
    comment: Option<String>,
}

impl Input for Decide {}

/// Decides about a node that waits for an approval. An approved node succeeds and the run goes on; a denied one fails.
/// The first decision is final.
#[utoipa::path(post, path = "/api/v1/runs/{id}/nodes/{node_id}/decision", tag = "runs", operation_id = "decide_node", params(
    ("id" = Uuid, Path, description = "The run"),
    ("node_id" = String, Path),
), request_body = Decide, responses(
    (status = 202, description = "The decision is recorded, and reaches the instance that drives the run", body = RunView),
    (status = 403, description = "You are not one of the node's approvers"),
    (status = 404, description = "No such run or node"),
    (status = 409, description = "The node is not waiting for an approval, or already has a decision"),
))]
pub(crate) async fn decide(
    runs: web::Data<RunControl>,
    path: web::Path<(RunId, NodeId)>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (run, node) = path.into_inner();
    let Decide { approve, comment } = body.input().await?;
    let decide = control::Decide { approve, comment };
    let run = runs.decide(&caller, run, &node, decide).await?;
    Ok(HttpResponse::Accepted().json(RunView::of(run)))
}

#[cfg(test)]
mod tests {
    use gathering_edge::input::read;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_says_yes_or_no_and_maybe_why() {
        let no: Decide = read(json!({"approve": false, "comment": "too\ndear"})).unwrap();
        assert_eq!((no.approve, no.comment.as_deref()), (false, Some("too\ndear")));
        let yes: Decide = read(json!({"approve": true, "comment": null})).unwrap();
        assert_eq!((yes.approve, yes.comment), (true, None));
        let long = "x".repeat(10_001);
        for wrong in [
            json!({}),
            json!({"approve": "yes"}),
            json!({"approve": true, "comment": long}),
            json!({"approve": true, "comment": "a\0b"}),
            json!({"approve": true, "by": "me"}),
        ] {
            assert_eq!(read::<Decide>(wrong).unwrap_err().status(), 422);
        }
    }
}

//! What people decide about nodes that wait for them.

use actix_web::{HttpResponse, web};
use gathering_auth::Action;
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::NodeId;
use gathering_persistence::{Decided, NewDecision};
use serde_json::Value;
use utoipa::ToSchema;

use super::fold;
use crate::http::api::run_view::RunView;
use crate::http::edge::body::{Body, FromFields, prose};
use crate::http::edge::problem::{Problem, ProblemView};
use crate::http::state::AppState;

const MAX_COMMENT: usize = 10_000;

/// What somebody decides.
#[derive(Debug, ToSchema)]
pub(crate) struct Decide {
    /// Whether the node may go on; else it fails as `denied`.
    approve: bool,
    /// What there is to say to it; the node hands it on.
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

/// Decides about a node that waits for an approval: approved, it succeeds and the run goes on; denied, it fails. The
/// first decision stands.
#[utoipa::path(post, path = "/api/v1/runs/{id}/nodes/{node_id}/decision", tag = "runs", operation_id = "decide_node", params(
    ("id" = Uuid, Path, description = "The run"),
    ("node_id" = String, Path),
), request_body = Decide, responses(
    (status = 202, description = "It is recorded, and reaches whoever drives the run", body = RunView),
    (status = 403, description = "The node names others who may decide", body = ProblemView, content_type = "application/problem+json"),
    (status = 404, description = "No such run or node", body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "The node waits for no approval, or it is decided already", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn decide(
    state: web::Data<AppState>,
    path: web::Path<(String, String)>,
    body: Body,
) -> Result<HttpResponse, Problem> {
    let (caller, body) = body.receive().await?;
    let (run, node) = path.into_inner();
    let run = state.run(&caller, &run, Action::Run).await?;
    let node: NodeId = node.parse().map_err(|_| Problem::not_found())?;
    let summary = state.graph_summary(run.graph).await?;
    if !summary.has(&node) {
        return Err(Problem::not_found());
    }
    let account = state.auth.me(&caller).await?;
    if !summary.may_decide(&node, &account.email) {
        return Err(Problem::forbidden("the node names who may decide, and you are not among them"));
    }
    let Decide { approve, comment } = body.read().await?;
    if run.state.is_terminal() || !fold(&state, run.id).await?.is_waiting_for_approval(&node) {
        return Err(Problem::conflict(format!("node `{node}` waits for no approval")));
    }
    let decision =
        NewDecision { approve, comment, decided_by: account.id, decided_as: account.email.to_string() };
    match state.runs.decide(run.id, &node, &decision).await? {
        Decided::Recorded => {
            tracing::info!(run.id = %run.id, node.id = %node, "node {node} of run {} is decided", run.id);
            let run = state.runs.find(run.id).await?.ok_or_else(Problem::not_found)?;
            Ok(HttpResponse::Accepted().json(RunView::of(run)))
        }
        Decided::DecidedBefore => {
            Err(Problem::conflict(format!("node `{node}` is decided already: the first decision stands")))
        }
        Decided::Missing => Err(Problem::not_found()),
        Decided::RunEnded => Err(Problem::conflict("the run has ended")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::edge::body::read_object;

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

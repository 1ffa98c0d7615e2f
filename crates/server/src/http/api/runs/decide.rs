//! What people decide about nodes: those that wait for an approval, those whose tools ask something, and those whose end
//! nobody knows.

use actix_web::{HttpResponse, web};
use gathering_control::{self as control, Answer, DecideOutcome, RunControl};
use gathering_dag_engine::{DecidedOutcome, check_value};
use gathering_domain::{NodeId, Pointer, Problems, QuestionId, RunId};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::api::run_view::RunView;
use crate::http::api::words::DecidedOutcomeSchema;
use gathering_edge::body::Body;
use gathering_edge::input::Input;
use gathering_edge::problem::ProblemDetails;

/// A decision: about an approval (`approve`), about a question of a tool (`approve` with `question`), or about how a node
/// ended where nobody knows (`outcome`).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decide {
    /// About a node that waits for an approval: whether it may go on; else it fails as `denied`. About a question: yes or
    /// no.
    #[schema(required = false)]
    approve: Option<bool>,
    /// With `approve`: the question of a tool that it answers, one of the node's `questions`.
    #[schema(required = false, value_type = Option<Uuid>)]
    question: Option<QuestionId>,
    /// With a yes to a question: the filled in form. It must fit the question's `form`; `{}` by default.
    #[schema(required = false)]
    content: Option<Value>,
    /// With `approve`: a comment of at most 10,000 characters, which becomes part of the node's output.
    #[schema(required = false, max_length = 10_000, pattern = "^[^\\u0000]*$")]
    comment: Option<String>,
    /// About a node of a run that has ended, whose effect may have taken place. A rerun keeps it as `succeeded` or
    /// `failed`, or performs it again (`repeat`).
    #[schema(required = false, value_type = Option<DecidedOutcomeSchema>)]
    outcome: Option<DecidedOutcome>,
    /// With the outcome `succeeded`: the node's output; null by default.
    #[schema(required = false)]
    output: Option<Value>,
    /// With `outcome`, which needs it: how you know, in at most 10,000 characters.
    #[schema(required = false, min_length = 1, max_length = 10_000, pattern = "^[^\\u0000]*$")]
    reason: Option<String>,
}

/// The fields of the two forms beside the one that tells them apart.
const WITH_APPROVE: &[&str] = &["comment", "question", "content"];
const WITH_OUTCOME: &[&str] = &["output", "reason"];

impl Input for Decide {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        let at = |name: &str| Pointer::root().join(name);
        let is_given = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
        let (other, of) = match (is_given("approve"), is_given("outcome")) {
            (true, true) => return problems.add(at("outcome"), "must not be together with `approve`"),
            (false, false) => return problems.add(Pointer::root(), "must have `approve` or `outcome`"),
            (true, false) => (WITH_OUTCOME, "outcome"),
            (false, true) => (WITH_APPROVE, "approve"),
        };
        for name in other.iter().copied().filter(|name| is_given(name)) {
            problems.add(at(name), format!("belongs to `{of}`"));
        }
        if is_given("question") && is_given("comment") {
            problems.add(at("comment"), "must not be together with `question`");
        }
        if is_given("approve") && is_given("content") && !is_given("question") {
            problems.add(at("content"), "belongs to `question`");
        }
        if let Some(Err(limit)) = object.get("content").map(check_value) {
            problems.add(at("content"), limit.to_string());
        }
        if is_given("outcome") {
            if !is_given("reason") {
                problems.add(at("reason"), "is required with `outcome`");
            }
            if is_given("output") && object["outcome"] != DecidedOutcome::Succeeded.as_str() {
                problems.add(at("output"), "belongs to the outcome `succeeded`");
            }
            if let Some(Err(limit)) = object.get("output").map(check_value) {
                problems.add(at("output"), limit.to_string());
            }
        }
    }
}

/// Decides about a node: an approval that it waits for, a question that its tool asks, or, once the run has ended, how the
/// node ended where nobody knows.
///
/// An approved node succeeds and the run goes on; a denied one fails. An answer goes to the tool, which goes on with it. A
/// run that has ended stays as it is: a rerun applies what was decided about its nodes. The first decision about a node of
/// a run is final, and so is the first answer to a question.
#[utoipa::path(post, path = "/api/v1/runs/{id}/nodes/{node_id}/decision", tag = "runs", operation_id = "decide_node", params(
    ("id" = Uuid, Path, description = "The run"),
    ("node_id" = String, Path),
), request_body = Decide, responses(
    (status = 202, description = "The decision is recorded. It reaches the instance that drives the run, or the next rerun", body = RunView),
    (status = 403, description = "You are not one of the node's approvers"),
    (status = 404, description = "No such run, node or question"),
    (status = 409, description = "The node is not waiting for an approval, the question is no longer open, the node's end is known, the run has not ended, or the node already has a decision"),
))]
pub(crate) async fn decide(
    runs: web::Data<RunControl>,
    path: web::Path<(RunId, NodeId)>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (run, node) = path.into_inner();
    let Decide { approve, comment, question, content, outcome, output, reason } = body.input().await?;
    let approve = approve.unwrap_or_default();
    let run = match (outcome, question) {
        (Some(outcome), _) => {
            let decide = DecideOutcome { outcome, output, reason: reason.unwrap_or_default() };
            runs.decide_outcome(&caller, run, &node, decide).await?
        }
        (None, Some(question)) => {
            runs.answer(&caller, run, &node, Answer { question, approve, content }).await?
        }
        (None, None) => runs.decide(&caller, run, &node, control::Decide { approve, comment }).await?,
    };
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
        assert_eq!((no.approve, no.comment.as_deref()), (Some(false), Some("too\ndear")));
        let yes: Decide = read(json!({"approve": true, "comment": null})).unwrap();
        assert_eq!((yes.approve, yes.comment), (Some(true), None));
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

    #[test]
    fn an_answer_names_its_question_and_brings_no_comment() {
        let question = "0197b8a4-9ab1-7000-8000-000000000000";
        let yes: Decide = read(json!({"approve": true, "question": question, "content": {"a": 1}})).unwrap();
        assert_eq!((yes.question, yes.content), (question.parse().ok(), Some(json!({"a": 1}))));
        let problem = |wrong: Value| read::<Decide>(wrong).unwrap_err().to_string();
        for (wrong, place) in [
            (json!({"approve": true, "content": {}}), "/content"),
            (json!({"approve": true, "question": question, "comment": "c"}), "/comment"),
            (json!({"outcome": "repeat", "reason": "r", "question": question}), "/question"),
            (json!({"outcome": "repeat", "reason": "r", "content": {}}), "/content"),
            (json!({"approve": true, "question": "one"}), "/question"),
        ] {
            let found = problem(wrong);
            assert!(found.contains(place), "{place}: {found}");
        }
    }

    #[test]
    fn an_outcome_comes_with_a_reason_and_an_output_only_where_it_succeeded() {
        let paid = json!({"outcome": "succeeded", "output": {"paid": 1}, "reason": "the bank says so"});
        let paid: Decide = read(paid).unwrap();
        assert_eq!((paid.outcome, paid.output), (Some(DecidedOutcome::Succeeded), Some(json!({"paid": 1}))));
        for outcome in DecidedOutcome::ALL {
            let plain: Decide = read(json!({"outcome": outcome, "output": null, "reason": "r"})).unwrap();
            assert_eq!((plain.outcome, plain.output), (Some(outcome), None));
        }
        let long = "x".repeat(10_001);
        for wrong in [
            json!({"outcome": "succeeded"}),
            json!({"outcome": "repeat", "reason": ""}),
            json!({"outcome": "repeat", "reason": long}),
            json!({"outcome": "repeat", "reason": "a\0b"}),
            json!({"outcome": "skipped", "reason": "r"}),
            json!({"outcome": "repeat", "reason": "r", "output": 1}),
            json!({"outcome": "failed", "reason": "r", "output": 1}),
            json!({"outcome": "failed", "reason": "r", "comment": "c"}),
            json!({"outcome": "failed", "reason": "r", "approve": true}),
            json!({"approve": true, "reason": "r"}),
            json!({"approve": true, "output": 1}),
            json!({"reason": "r"}),
            json!({"outcome": "succeeded", "reason": "r", "output": "x".repeat(16 * 1024 * 1024)}),
        ] {
            let answer = read::<Decide>(wrong.clone()).map_err(|problem| problem.status().as_u16());
            assert_eq!(answer.err(), Some(422), "{wrong:.100}");
        }
    }
}

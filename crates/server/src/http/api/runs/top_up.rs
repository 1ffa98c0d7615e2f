//! What a run may use up beyond the budget of its project.

use actix_web::{HttpResponse, web};
use gathering_control::right;
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{Amounts, Pointer, Problems, Resource};
use gathering_persistence::TopUp;
use utoipa::ToSchema;

use crate::http::api::budgets::amounts;
use crate::http::api::run_view::RunView;
use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields};
use gathering_edge::problem::{ProblemDetails, ProblemView};

/// What to add to what a run and all runs of its tree may use up.
#[derive(Debug, ToSchema)]
pub(crate) struct AddToBudget {
    /// How much of `tokens`, `model_calls` and `tool_calls`; at least one of them.
    #[schema(value_type = std::collections::BTreeMap<String, i64>)]
    add: Amounts,
}

impl FromFields for AddToBudget {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let add = fields.required("add", Shape::Object)?;
        let at = fields.place("add");
        let mut inner = Fields::of(add, at.clone(), fields.problems())?;
        let found = amounts(&mut inner, 1);
        inner.finish();
        if found.is_empty() && fields.problems().is_empty() {
            fields.problem("add", "must name at least one of tokens, model_calls and tool_calls");
        }
        Some(Self { add: found })
    }
}

/// Allows the whole tree of a run to use up more than its project's budget pays, and resumes those of its runs that wait
/// for that.
#[utoipa::path(post, path = "/api/v1/runs/{id}/budget", tag = "runs", operation_id = "top_up_run", params(("id" = Uuid, Path)), request_body = AddToBudget, responses(
    (status = 202, body = RunView),
    (status = 403, description = "For owners only", body = ProblemView, content_type = "application/problem+json"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "No run of the tree waits as `budget_exceeded`", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn top_up(
    state: web::Data<AppState>,
    id: web::Path<String>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let run = state.run::<right::Manage>(&caller, &id).await?;
    let AddToBudget { add } = body.read().await?;
    let wrong = |resource: Resource, message: &str| {
        ProblemDetails::invalid(Problems::one(Pointer::root().join("add").join(resource.as_str()), message))
    };
    match state.budgets.top_up(run.project, run.id, &add, &caller).await? {
        TopUp::Done => {
            tracing::info!(run.id = %run.id, "the budget of run {} is topped up", run.id);
            let run = state.runs.find(run.id).await?.ok_or_else(ProblemDetails::not_found)?;
            Ok(HttpResponse::Accepted().json(RunView::of(run)))
        }
        TopUp::NobodyWaits => Err(ProblemDetails::conflict("no run of this tree waits for its budget")),
        TopUp::Unbounded(resource) => {
            Err(wrong(resource, "is not bounded in this project, so nothing waits for it"))
        }
        TopUp::TooMuch(resource) => Err(wrong(resource, "would be more than can be counted")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use gathering_edge::body::read_object;

    #[test]
    fn something_is_added_and_nothing_is_taken_away() {
        let read: AddToBudget = read_object(&json!({"add": {"tokens": 1, "tool_calls": null}})).unwrap();
        assert_eq!(read.add, Amounts::from([(Resource::Tokens, 1)]));
        for (wrong, place) in [
            (json!({}), "/add"),
            (json!({"add": {}}), "/add"),
            (json!({"add": {"tokens": null}}), "/add"),
            (json!({"add": {"tokens": 0}}), "/add/tokens"),
            (json!({"add": {"tokens": -1}}), "/add/tokens"),
            (json!({"add": {"tokens": 1e30}}), "/add/tokens"),
            (json!({"add": {"money": 1}}), "/add/money"),
            (json!({"add": {"tokens": 1, "minutes": 1}}), "/add/minutes"),
            (json!({"add": {"tokens": 1}, "period": "day"}), "/period"),
        ] {
            let refused = read_object::<AddToBudget>(&wrong).unwrap_err();
            assert_eq!(refused.status(), 422, "{wrong}");
            let errors = serde_json::to_value(&refused.errors).unwrap();
            assert_eq!(errors[0]["pointer"], place, "{wrong}: {errors}");
        }
    }
}

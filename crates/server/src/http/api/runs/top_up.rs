//! What a run may use up beyond the budget of its project.

use actix_web::{HttpResponse, web};
use gathering_control::{BudgetControl, TopUp};
use gathering_domain::{Pointer, Problems, RunId};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::api::budgets::{amounts, judge_money};
use crate::http::api::run_view::RunView;
use gathering_edge::body::Body;
use gathering_edge::input::Input;
use gathering_edge::problem::ProblemDetails;

/// What to add to what a run and all runs of its tree may use up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddToBudget {
    /// At least one amount.
    add: AddedAmounts,
}

/// So much more of each; what is absent or null stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddedAmounts {
    /// Tokens that models read and write.
    #[schema(required = false, minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    tokens: Option<i64>,
    /// Calls of models.
    #[schema(required = false, minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    model_calls: Option<i64>,
    /// Calls of tools, by agents and by `tool` nodes.
    #[schema(required = false, minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    tool_calls: Option<i64>,
    /// Absent or null: no prices are known, so money cannot be accounted for.
    #[schema(required = false)]
    #[expect(dead_code, reason = "`judge` refuses it")]
    money: Option<Value>,
}

impl Input for AddToBudget {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        let Some(add) = object.get("add").and_then(Value::as_object) else { return };
        let place = Pointer::root().join("add");
        judge_money(add, &place, problems);
        if add.values().all(Value::is_null) {
            problems.add(place, "must name at least one of tokens, model_calls and tool_calls");
        }
    }
}

impl From<AddToBudget> for TopUp {
    fn from(AddToBudget { add }: AddToBudget) -> Self {
        let AddedAmounts { tokens, model_calls, tool_calls, .. } = add;
        Self { add: amounts(tokens, model_calls, tool_calls) }
    }
}

/// Allows the whole tree of a run to use up more than its project's budget pays, and resumes those of its runs that wait
/// for that.
#[utoipa::path(post, path = "/api/v1/runs/{id}/budget", tag = "runs", operation_id = "top_up_run", params(("id" = Uuid, Path)), request_body = AddToBudget, responses(
    (status = 202, body = RunView),
    (status = 403, description = "For owners only"),
    (status = 409, description = "No run of the tree waits as `budget_exceeded`"),
))]
pub(crate) async fn top_up(
    budgets: web::Data<BudgetControl>,
    id: web::Path<RunId>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let top_up: TopUp = body.input::<AddToBudget>().await?.into();
    let run = budgets.top_up(&caller, *id, &top_up).await?;
    Ok(HttpResponse::Accepted().json(RunView::of(run)))
}

#[cfg(test)]
mod tests {
    use gathering_domain::Resource;
    use gathering_edge::input::read;
    use serde_json::json;

    use super::*;

    #[test]
    fn something_is_added_and_nothing_is_taken_away() {
        let added: AddToBudget = read(json!({"add": {"tokens": 1, "tool_calls": null}})).unwrap();
        assert_eq!(TopUp::from(added), TopUp { add: [(Resource::Tokens, 1)].into() });
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
            let refused = read::<AddToBudget>(wrong.clone()).unwrap_err();
            assert_eq!(refused.status(), 422, "{wrong}");
            let errors = serde_json::to_value(&refused.errors).unwrap();
            assert_eq!(
                (&errors[0]["pointer"], errors.as_array().map(Vec::len)),
                (&json!(place), Some(1)),
                "{wrong}"
            );
        }
    }
}

//! What a project may use up: shown, and set.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{Bounds, Budget, BudgetControl, Period};
use gathering_domain::{Amounts, Pointer, Problems, ProjectId, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::api::words::PeriodSchema;
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::input::Input;
use gathering_edge::problem::ProblemDetails;
use gathering_edge::values::Word;

/// A project's budget: what is null has no bound.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Budget)]
pub(crate) struct BudgetView {
    #[serde(flatten)]
    amounts: AmountsView,
    /// In UTC; a week starts on a Monday. Null where nothing is bounded.
    #[schema(value_type = Option<PeriodSchema>)]
    period: Option<&'static str>,
    /// From when `spent` counts.
    period_start: Option<DateTime<Utc>>,
    /// What was used in this period.
    spent: AmountsView,
    /// The most that calls may use that are under way.
    reserved: AmountsView,
}

/// So much of each.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Amounts)]
pub(crate) struct AmountsView {
    /// Tokens that models read and write.
    tokens: Option<i64>,
    /// Calls of models.
    model_calls: Option<i64>,
    /// Calls of tools, by agents and by `tool` nodes.
    tool_calls: Option<i64>,
}

impl BudgetView {
    fn of(budgets: &[Budget]) -> Self {
        let each = |what: fn(&Budget) -> i64| {
            let of = |resource| budgets.iter().find(|budget| budget.resource == resource).map(what);
            AmountsView {
                tokens: of(Resource::Tokens),
                model_calls: of(Resource::ModelCalls),
                tool_calls: of(Resource::ToolCalls),
            }
        };
        Self {
            amounts: each(|budget| budget.amount),
            period: budgets.first().map(|budget| budget.period.as_str()),
            period_start: budgets.iter().map(|budget| budget.period_start).min(),
            spent: each(|budget| budget.spent),
            reserved: each(|budget| budget.reserved),
        }
    }
}

/// What a project may use up from now on; what is absent or null has no bound.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutBudget {
    /// Tokens that models read and write.
    #[schema(required = false, minimum = 0, maximum = 1_000_000_000_000_000_i64)]
    tokens: Option<i64>,
    /// Calls of models.
    #[schema(required = false, minimum = 0, maximum = 1_000_000_000_000_000_i64)]
    model_calls: Option<i64>,
    /// Calls of tools, by agents and by `tool` nodes.
    #[schema(required = false, minimum = 0, maximum = 1_000_000_000_000_000_i64)]
    tool_calls: Option<i64>,
    /// Absent or null: no prices are known, so money cannot be accounted for.
    #[schema(required = false)]
    #[expect(dead_code, reason = "`judge` refuses it")]
    money: Option<Value>,
    /// In UTC; a week starts on a Monday.
    #[schema(required = false, value_type = Option<PeriodSchema>, default = "total")]
    period: Option<Word<Period>>,
}

impl Input for PutBudget {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        judge_money(object, &Pointer::root(), problems);
    }
}

impl From<PutBudget> for Bounds {
    fn from(put: PutBudget) -> Self {
        let PutBudget { tokens, model_calls, tool_calls, period, .. } = put;
        let amounts = amounts(tokens, model_calls, tool_calls);
        Self { period: period.map_or(Period::Total, |Word(period)| period), amounts }
    }
}

/// The amounts that are given.
pub(super) fn amounts(tokens: Option<i64>, model_calls: Option<i64>, tool_calls: Option<i64>) -> Amounts {
    let all =
        [(Resource::Tokens, tokens), (Resource::ModelCalls, model_calls), (Resource::ToolCalls, tool_calls)];
    all.into_iter().filter_map(|(resource, amount)| Some((resource, amount?))).collect()
}

/// Refuses an amount of money, in an object at `place`, and says why.
pub(super) fn judge_money(object: &Map<String, Value>, place: &Pointer, problems: &mut Problems) {
    if object.get("money").is_some_and(|money| !money.is_null()) {
        problems.add(place.join("money"), "cannot be accounted for: no prices are known here");
    }
}

/// What a project may use up, and what of it is used.
#[utoipa::path(get, path = "/api/v1/projects/{id}/budget", tag = "projects", operation_id = "get_budget", params(("id" = Uuid, Path)), responses(
    (status = 200, body = BudgetView),
))]
pub(crate) async fn show(
    budgets: web::Data<BudgetControl>,
    caller: Authenticated,
    id: web::Path<ProjectId>,
) -> Result<HttpResponse, ProblemDetails> {
    let budgets = budgets.show(&caller.0, *id).await?;
    Ok(HttpResponse::Ok().json(BudgetView::of(&budgets)))
}

/// Sets what a project may use up; what was used in this period stays used. Runs that wait for their budget try again.
#[utoipa::path(put, path = "/api/v1/projects/{id}/budget", tag = "projects", operation_id = "put_budget", params(("id" = Uuid, Path)), request_body = PutBudget, responses(
    (status = 200, body = BudgetView),
    (status = 403, description = "For owners only"),
))]
pub(crate) async fn put(
    budgets: web::Data<BudgetControl>,
    id: web::Path<ProjectId>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let bounds: Bounds = body.input::<PutBudget>().await?.into();
    let budgets = budgets.set(&caller, *id, &bounds).await?;
    Ok(HttpResponse::Ok().json(BudgetView::of(&budgets)))
}

#[cfg(test)]
mod tests {
    use gathering_domain::MAX_AMOUNT;
    use gathering_edge::input::read;
    use serde_json::json;

    use super::*;

    fn bounds(body: Value) -> Result<Bounds, ProblemDetails> {
        read::<PutBudget>(body).map(Bounds::from)
    }

    #[test]
    fn what_is_absent_or_null_has_no_bound() {
        let read = bounds(json!({"tokens": 5, "tool_calls": null, "money": null, "period": null})).unwrap();
        assert_eq!(read, Bounds { period: Period::Total, amounts: [(Resource::Tokens, 5)].into() });
        let read = bounds(json!({"model_calls": 0, "period": "week"})).unwrap();
        assert_eq!(read, Bounds { period: Period::Week, amounts: [(Resource::ModelCalls, 0)].into() });
        let read = bounds(json!({"tool_calls": MAX_AMOUNT, "tokens": 2.0})).unwrap();
        let amounts = [(Resource::ToolCalls, MAX_AMOUNT), (Resource::Tokens, 2)].into();
        assert_eq!(read, Bounds { period: Period::Total, amounts });
    }

    #[test]
    fn money_is_refused_and_says_why() {
        let refused = bounds(json!({"money": 5})).unwrap_err();
        let errors: Vec<String> =
            refused.errors.iter().map(|error| serde_json::to_string(error).unwrap()).collect();
        assert_eq!(refused.status(), 422);
        assert!(
            errors.len() == 1 && errors[0].contains("/money") && errors[0].contains("no prices"),
            "{errors:?}"
        );
    }

    #[test]
    fn an_amount_that_nobody_can_mean_is_refused() {
        for wrong in [
            json!({"tokens": -1}),
            json!({"tokens": 1.5}),
            json!({"tokens": "many"}),
            json!({"tokens": u64::MAX}),
            json!({"tokens": MAX_AMOUNT + 1}),
            json!({"period": "year"}),
            json!({"wall_clock": 1}),
        ] {
            assert_eq!(bounds(wrong.clone()).unwrap_err().status(), 422, "{wrong}");
        }
    }
}

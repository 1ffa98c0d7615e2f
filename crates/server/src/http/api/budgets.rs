//! What a project may use up: shown, and set.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::right;
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{Amounts, MAX_AMOUNT, Period, Resource};
use gathering_persistence::{Bounds, Budget};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields};
use gathering_edge::caller::Authenticated;
use gathering_edge::problem::{ProblemDetails, ProblemView};

/// A project's budget: what is null has no bound.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Budget)]
pub(crate) struct BudgetView {
    #[serde(flatten)]
    amounts: AmountsView,
    /// `total`, `day`, `week` (from Monday) or `month`, in UTC; null where nothing is bounded.
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
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what `Bounds` is read from")]
pub(crate) struct PutBudget {
    /// Tokens that models read and write.
    #[schema(required = false, minimum = 0)]
    tokens: Option<i64>,
    /// Calls of models.
    #[schema(required = false, minimum = 0)]
    model_calls: Option<i64>,
    /// Calls of tools, by agents and by `tool` nodes.
    #[schema(required = false, minimum = 0)]
    tool_calls: Option<i64>,
    /// `total`, `day`, `week` (from Monday) or `month`, in UTC.
    #[schema(required = false, default = "total")]
    period: Option<String>,
}

/// What a project may use up from now on, as the budget service takes it.
#[derive(Debug, PartialEq)]
struct NewBounds(Bounds);

impl FromFields for NewBounds {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let amounts = amounts(fields, 0);
        let period = fields.optional("period", Shape::OneOf(&["total", "day", "week", "month"]));
        let period = period.and_then(Value::as_str).and_then(|period| period.parse().ok());
        Some(Self(Bounds { period: period.unwrap_or(Period::Total), amounts }))
    }
}

/// So much of each resource, `least` or more.
pub(super) fn amounts(fields: &mut Fields<'_>, least: u64) -> Amounts {
    if fields.optional("money", Shape::Any).is_some_and(|money| !money.is_null()) {
        fields.problem("money", "cannot be accounted for: no prices are known here");
    }
    let shape = Shape::Whole(least, MAX_AMOUNT.unsigned_abs());
    let given = |resource: Resource| {
        let amount = fields.optional(resource.as_str(), shape)?.as_i64()?;
        Some((resource, amount))
    };
    Resource::ALL.into_iter().filter_map(given).collect()
}

/// What a project may use up, and what of it is used.
#[utoipa::path(get, path = "/api/v1/projects/{id}/budget", tag = "projects", operation_id = "get_budget", params(("id" = Uuid, Path)), responses(
    (status = 200, body = BudgetView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn show(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
) -> Result<HttpResponse, ProblemDetails> {
    let project = state.project::<right::Read>(&caller.0, &id).await?;
    Ok(HttpResponse::Ok().json(BudgetView::of(&state.budgets.list(project).await?)))
}

/// Sets what a project may use up; what was used in this period stays used. Runs that wait for their budget look again.
#[utoipa::path(put, path = "/api/v1/projects/{id}/budget", tag = "projects", operation_id = "put_budget", params(("id" = Uuid, Path)), request_body = PutBudget, responses(
    (status = 200, body = BudgetView),
    (status = 403, description = "For owners only", body = ProblemView, content_type = "application/problem+json"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn put(
    state: web::Data<AppState>,
    id: web::Path<String>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let project = state.project::<right::Manage>(&caller, &id).await?;
    let NewBounds(bounds) = body.read().await?;
    let budgets = state.budgets.set(project, &bounds, &caller).await?;
    tracing::info!(project.id = %project, "the budget of project {project} is set");
    Ok(HttpResponse::Ok().json(BudgetView::of(&budgets)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use gathering_edge::body::read_object;

    #[test]
    fn what_is_absent_or_null_has_no_bound() {
        let NewBounds(read) = read_object(&json!({"tokens": 5, "tool_calls": null, "money": null})).unwrap();
        assert_eq!(read, Bounds { period: Period::Total, amounts: [(Resource::Tokens, 5)].into() });
        let NewBounds(read) = read_object(&json!({"model_calls": 0, "period": "week"})).unwrap();
        assert_eq!(read, Bounds { period: Period::Week, amounts: [(Resource::ModelCalls, 0)].into() });
    }

    #[test]
    fn money_is_refused_and_says_why() {
        let refused = read_object::<NewBounds>(&json!({"money": 5})).unwrap_err();
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
            json!({"period": "year"}),
            json!({"wall_clock": 1}),
        ] {
            assert_eq!(read_object::<NewBounds>(&wrong).unwrap_err().status(), 422, "{wrong}");
        }
    }
}

//! Accounts as admins see and change them.

use actix_web::{HttpResponse, web};
use gathering_auth::{Account, Role, authorize_admin};
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{Problems, UserId};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::http::api::auth::UserView;
use crate::http::edge::body::{Body, FromFields};
use crate::http::edge::caller::Authenticated;
use crate::http::edge::page::{self, List, Page};
use crate::http::edge::problem::{Problem, ProblemView};
use crate::http::edge::query::Query;
use crate::http::state::AppState;

/// Which accounts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListUsers {
    /// 1 to 200; 50 by default.
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What to change of an account; what is absent stays.
#[derive(Debug, ToSchema)]
pub(crate) struct ChangeUser {
    /// `admin` or `member`.
    #[schema(value_type = String, required = false)]
    role: Option<Role>,
    /// `false` ends every session of the account; its API keys are refused for as long as it is.
    #[schema(required = false)]
    is_active: Option<bool>,
}

impl FromFields for ChangeUser {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let role = fields.optional("role", Shape::Text).and_then(Value::as_str);
        let role = page::id("role", role, fields.problems());
        let is_active = fields.optional("is_active", Shape::Bool).and_then(Value::as_bool);
        Some(Self { role, is_active })
    }
}

/// Every account, the newest first. For admins only.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", operation_id = "list_users", params(ListUsers), responses(
    (status = 200, body = Page<UserView>),
    (status = 403, body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    state: web::Data<AppState>,
    caller: Authenticated,
    query: Query<ListUsers>,
) -> Result<HttpResponse, Problem> {
    authorize_admin(&caller.0)?;
    let query = query.read()?;
    let mut problems = Problems::new();
    let limit = page::limit(query.limit.as_deref(), &mut problems);
    let before = page::cursor(List::Users, query.cursor.as_deref(), &mut problems);
    problems.into_result().map_err(Problem::invalid)?;
    let accounts = state.auth.list_accounts(&caller.0, before.map(UserId::from), limit + 1).await?;
    let key = |account: &Account| account.id.as_uuid();
    let page = Page::of(List::Users, accounts, limit, key, UserView::from);
    Ok(HttpResponse::Ok().json(page))
}

/// Changes an account's global role, or whether it may be used. For admins only.
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", operation_id = "change_user", params(("id" = Uuid, Path)), request_body = ChangeUser, responses(
    (status = 200, body = UserView),
    (status = 403, body = ProblemView, content_type = "application/problem+json"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "No active admin would be left", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn change(
    state: web::Data<AppState>,
    id: web::Path<String>,
    body: Body,
) -> Result<HttpResponse, Problem> {
    let (caller, body) = body.receive().await?;
    authorize_admin(&caller)?;
    let id: UserId = id.parse().map_err(|_| Problem::not_found())?;
    let ChangeUser { role, is_active } = body.read().await?;
    let account = state.auth.change_account(&caller, id, role, is_active).await?;
    Ok(HttpResponse::Ok().json(UserView::from(account)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::edge::body::read_object;

    #[test]
    fn what_is_absent_of_a_change_stays() {
        let read: ChangeUser = read_object(&json!({"role": "admin"})).unwrap();
        assert_eq!((read.role, read.is_active), (Some(Role::Admin), None));
        let read: ChangeUser = read_object(&json!({"is_active": false})).unwrap();
        assert_eq!((read.role, read.is_active), (None, Some(false)));
        for wrong in
            [json!({"role": "owner"}), json!({"is_active": "no"}), json!({"email": "a@b"}), json!([])]
        {
            assert_eq!(read_object::<ChangeUser>(&wrong).unwrap_err().status(), 422, "{wrong}");
        }
    }
}

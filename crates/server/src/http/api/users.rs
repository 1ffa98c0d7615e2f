//! Accounts, for admins: list and change them.

use actix_web::{HttpResponse, web};
use gathering_auth::{Account, Auth, Role};
use gathering_domain::UserId;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::api::auth::UserView;
use crate::http::api::lists;
use crate::http::api::words::RoleSchema;
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::input::Input;
use gathering_edge::page::{NoFilter, Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use gathering_edge::values::Word;

/// What to change of an account; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeUser {
    #[schema(value_type = Option<RoleSchema>, required = false)]
    role: Option<Word<Role>>,
    /// `false` ends every session of the account and refuses its API keys until it is active again.
    #[schema(required = false)]
    is_active: Option<bool>,
}

impl Input for ChangeUser {}

/// Every account, the newest first. For admins only.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", operation_id = "list_users", params(PageQuery), responses(
    (status = 200, body = Page<UserView>),
))]
pub(crate) async fn list(
    auth: web::Data<Auth>,
    caller: Authenticated,
    query: Query<NoFilter>,
) -> Result<HttpResponse, ProblemDetails> {
    let (_, page) = query.read_page(lists::USERS)?;
    let accounts = auth.list_accounts(&caller.0, page.after(), page.n_rows()).await?;
    let key = |account: &Account| account.id.as_uuid();
    Ok(HttpResponse::Ok().json(page.of(accounts, key, UserView::from)))
}

/// Changes an account's global role, or whether it may be used. For admins only.
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", operation_id = "change_user", params(("id" = Uuid, Path)), request_body = ChangeUser, responses(
    (status = 200, body = UserView),
    (status = 409, description = "No active admin would be left"),
))]
pub(crate) async fn change(
    auth: web::Data<Auth>,
    id: web::Path<UserId>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let ChangeUser { role, is_active } = body.input().await?;
    let account = auth.change_account(&caller, *id, role.map(|Word(role)| role), is_active).await?;
    Ok(HttpResponse::Ok().json(UserView::from(account)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use gathering_edge::input::read;

    #[test]
    fn what_is_absent_of_a_change_stays() {
        let change: ChangeUser = read(json!({"role": "admin"})).unwrap();
        assert_eq!((change.role, change.is_active), (Some(Word(Role::Admin)), None));
        let change: ChangeUser = read(json!({"is_active": false})).unwrap();
        assert_eq!((change.role, change.is_active), (None, Some(false)));
        for wrong in
            [json!({"role": "owner"}), json!({"is_active": "no"}), json!({"email": "a@b"}), json!([])]
        {
            assert_eq!(read::<ChangeUser>(wrong.clone()).unwrap_err().status(), 422, "{wrong}");
        }
    }
}

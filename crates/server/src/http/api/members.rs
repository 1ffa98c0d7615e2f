//! Who is a member of a project: listed, added, given another role, removed.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::{Action, ProjectRole};
use gathering_control::{authorize_credential, right};
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::UserId;
use gathering_persistence::Membership;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::words::ProjectRoleSchema;
use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields};
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{self, Page};
use gathering_edge::problem::{ProblemDetails, ProblemView};
use gathering_edge::query::Query;

/// A member of a project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub(crate) struct MemberView {
    user_id: Uuid,
    email: String,
    name: String,
    #[schema(value_type = ProjectRoleSchema)]
    role: &'static str,
    /// Since when they are a member.
    created_at: DateTime<Utc>,
}

impl From<Membership> for MemberView {
    fn from(member: Membership) -> Self {
        Self {
            user_id: member.user.as_uuid(),
            email: member.email.to_string(),
            name: member.name,
            role: member.role.as_str(),
            created_at: member.created_at,
        }
    }
}

/// What somebody shall be in a project.
#[derive(Debug, ToSchema)]
pub(crate) struct PutMember {
    #[schema(value_type = ProjectRoleSchema)]
    role: ProjectRole,
}

impl FromFields for PutMember {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let role = fields.required("role", Shape::Text).and_then(Value::as_str);
        let role = page::id("role", role, fields.problems());
        Some(Self { role: role? })
    }
}

/// Which members to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListMembers {
    /// The length of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[expect(dead_code, reason = "`Query::read_page` reads it")]
    cursor: Option<String>,
}

/// The members of a project, in the order in which their accounts were made.
#[utoipa::path(get, path = "/api/v1/projects/{id}/members", tag = "projects", operation_id = "list_members", params(("id" = Uuid, Path), ListMembers), responses(
    (status = 200, body = Page<MemberView>),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
    query: Query<ListMembers>,
) -> Result<HttpResponse, ProblemDetails> {
    let project = state.project::<right::Read>(&caller.0, &id).await?;
    let (query, after) = query.read_page(lists::MEMBERS)?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let rows = state.projects.list_members(project, after.map(UserId::from), limit + 1).await?;
    let key = |member: &Membership| member.user.as_uuid();
    let page = Page::of(lists::MEMBERS, rows, limit, key, MemberView::from);
    Ok(HttpResponse::Ok().json(page))
}

/// Makes somebody a member, or gives a member another role.
#[utoipa::path(put, path = "/api/v1/projects/{id}/members/{user_id}", tag = "projects", operation_id = "put_member", params(
    ("id" = Uuid, Path, description = "The project"),
    ("user_id" = Uuid, Path),
), request_body = PutMember, responses(
    (status = 204),
    (status = 403, description = "For owners only", body = ProblemView, content_type = "application/problem+json"),
    (status = 404, description = "No such project or account", body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "No owner would be left", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn put(
    state: web::Data<AppState>,
    path: web::Path<(String, String)>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (project, user) = path.into_inner();
    let project = state.project::<right::Manage>(&caller, &project).await?;
    let member: UserId = user.parse().map_err(|_| ProblemDetails::not_found())?;
    let PutMember { role } = body.read().await?;
    state.projects.put_member(project, member, role, &caller).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends a membership. Owners end every one; everybody their own.
#[utoipa::path(delete, path = "/api/v1/projects/{id}/members/{user_id}", tag = "projects", operation_id = "remove_member", params(
    ("id" = Uuid, Path, description = "The project"),
    ("user_id" = Uuid, Path),
), responses(
    (status = 204),
    (status = 403, body = ProblemView, content_type = "application/problem+json"),
    (status = 404, description = "No such project or member", body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "No owner would be left", body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn remove(
    state: web::Data<AppState>,
    caller: Authenticated,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ProblemDetails> {
    let (project, user) = path.into_inner();
    let member: UserId = user.parse().map_err(|_| ProblemDetails::not_found())?;
    let is_own = member == caller.0.user;
    let project = if is_own {
        state.project::<right::Read>(&caller.0, &project).await?
    } else {
        state.project::<right::Manage>(&caller.0, &project).await?
    };
    // Who leaves needs no role, but an API key that may only look ends nothing.
    authorize_credential(&caller.0, Action::Manage)?;
    if state.projects.remove_member(project, member, &caller.0).await? {
        Ok(HttpResponse::NoContent().finish())
    } else {
        Err(ProblemDetails::not_found())
    }
}

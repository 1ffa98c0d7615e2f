//! Who is a member of a project: listed, added, given another role, removed.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::ProjectRole;
use gathering_control::{Member, ProjectControl};
use gathering_domain::{ProjectId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::words::ProjectRoleSchema;
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::input::Input;
use gathering_edge::page::{NoFilter, Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use gathering_edge::values::Word;

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

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        Self {
            user_id: member.user.as_uuid(),
            email: member.email.to_string(),
            name: member.name,
            role: member.role.as_str(),
            created_at: member.created_at,
        }
    }
}

/// The role of a member from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutMember {
    #[schema(value_type = ProjectRoleSchema)]
    role: Word<ProjectRole>,
}

impl Input for PutMember {}

/// The members of a project, in the order in which their accounts were made.
#[utoipa::path(get, path = "/api/v1/projects/{id}/members", tag = "projects", operation_id = "list_members", params(("id" = Uuid, Path), PageQuery), responses(
    (status = 200, body = Page<MemberView>),
))]
pub(crate) async fn list(
    projects: web::Data<ProjectControl>,
    caller: Authenticated,
    id: web::Path<ProjectId>,
    query: Query<NoFilter>,
) -> Result<HttpResponse, ProblemDetails> {
    let (_, page) = query.read_page(lists::MEMBERS)?;
    let members = projects.list_members(&caller.0, *id, page.after(), page.n_rows()).await?;
    let key = |member: &Member| member.user.as_uuid();
    Ok(HttpResponse::Ok().json(page.of(members, key, MemberView::from)))
}

/// Makes somebody a member, or gives a member another role.
#[utoipa::path(put, path = "/api/v1/projects/{id}/members/{user_id}", tag = "projects", operation_id = "put_member", params(
    ("id" = Uuid, Path, description = "The project"),
    ("user_id" = Uuid, Path),
), request_body = PutMember, responses(
    (status = 204),
    (status = 403, description = "For owners only"),
    (status = 404, description = "No such project or account"),
    (status = 409, description = "No owner would be left"),
))]
pub(crate) async fn put(
    projects: web::Data<ProjectControl>,
    path: web::Path<(ProjectId, UserId)>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (project, user) = path.into_inner();
    let PutMember { role: Word(role) } = body.input().await?;
    projects.put_member(&caller, project, user, role).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends a membership. Owners end every one; everybody their own.
#[utoipa::path(delete, path = "/api/v1/projects/{id}/members/{user_id}", tag = "projects", operation_id = "remove_member", params(
    ("id" = Uuid, Path, description = "The project"),
    ("user_id" = Uuid, Path),
), responses(
    (status = 204),
    (status = 404, description = "No such project or member"),
    (status = 409, description = "No owner would be left"),
))]
pub(crate) async fn remove(
    projects: web::Data<ProjectControl>,
    caller: Authenticated,
    path: web::Path<(ProjectId, UserId)>,
) -> Result<HttpResponse, ProblemDetails> {
    let (project, user) = path.into_inner();
    projects.remove_member(&caller.0, project, user).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use gathering_edge::input::read;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_has_one_of_the_roles() {
        for role in ProjectRole::ALL {
            let put: PutMember = read(json!({"role": role.as_str()})).unwrap();
            assert_eq!(put.role, Word(role));
        }
        for wrong in [json!({}), json!({"role": "god"}), json!({"role": null}), json!({"role": 1})] {
            let problem = read::<PutMember>(wrong.clone()).unwrap_err();
            let pointers: Vec<_> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
            assert_eq!((problem.status().as_u16(), pointers), (422, vec!["/role"]), "{wrong}");
        }
    }
}

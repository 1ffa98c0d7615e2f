//! Projects: created, listed, shown, changed, deleted with everything in them.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::ProjectRole;
use gathering_control::right::Right;
use gathering_control::{self as control, Found, Project, ProjectControl, Scoped, Workspaces};
use gathering_domain::{ProjectId, with_causes};
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
use gathering_edge::values::{one_line, one_line_or_null, prose_or_null, trimmed, trimmed_or_null};

/// What owns pipelines, runs and files, and what membership is of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Project)]
pub(crate) struct ProjectView {
    id: Uuid,
    name: String,
    description: String,
    /// The caller's role in it; null for an admin who is not a member.
    #[schema(value_type = Option<ProjectRoleSchema>)]
    role: Option<&'static str>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl ProjectView {
    fn of(project: Project, role: Option<ProjectRole>) -> Self {
        Self {
            id: project.id.as_uuid(),
            name: project.name,
            description: project.description,
            role: role.map(ProjectRole::as_str),
            created_at: project.created_at,
            updated_at: project.updated_at,
        }
    }
}

impl<R: Right> From<Scoped<Project, R>> for ProjectView {
    fn from(project: Scoped<Project, R>) -> Self {
        let role = project.membership();
        Self::of(project.into_thing(), role)
    }
}

/// A project to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateProject {
    /// 1 to 200 characters.
    #[schema(schema_with = one_line::<200>)]
    #[serde(deserialize_with = "trimmed")]
    name: String,
    /// Empty by default.
    #[schema(required = false, schema_with = prose_or_null::<20_000>)]
    description: Option<String>,
}

impl Input for CreateProject {}

/// What to change of a project; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeProject {
    /// 1 to 200 characters.
    #[schema(required = false, schema_with = one_line_or_null::<200>)]
    #[serde(default, deserialize_with = "trimmed_or_null")]
    name: Option<String>,
    #[schema(required = false, schema_with = prose_or_null::<20_000>)]
    description: Option<String>,
}

impl Input for ChangeProject {}

/// Creates a project; the caller is its owner.
#[utoipa::path(post, path = "/api/v1/projects", tag = "projects", operation_id = "create_project", params(
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same project"),
), request_body = CreateProject, responses(
    (status = 201, body = ProjectView),
    (status = 403, description = "An API key without the scope `manage`"),
    (status = 404, description = "The same request created a project that the caller may not see any more"),
    (status = 409, description = "The key was used for another request, or for a project that was deleted"),
))]
pub(crate) async fn create(
    projects: web::Data<ProjectControl>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (body, once) = body.input_once::<CreateProject>(&request).await?;
    let CreateProject { name, description } = body;
    let create = control::CreateProject { name, description: description.unwrap_or_default(), once };
    let project = projects.create(&caller, create).await?;
    let location = format!("/api/v1/projects/{}", project.id);
    Ok(HttpResponse::Created().insert_header(("location", location)).json(ProjectView::from(project)))
}

/// The projects that the caller may see, the newest first: those that they are a member of; to an admin all.
#[utoipa::path(get, path = "/api/v1/projects", tag = "projects", operation_id = "list_projects", params(PageQuery), responses(
    (status = 200, body = Page<ProjectView>),
))]
pub(crate) async fn list(
    projects: web::Data<ProjectControl>,
    caller: Authenticated,
    query: Query<NoFilter>,
) -> Result<HttpResponse, ProblemDetails> {
    let (_, page) = query.read_page(lists::PROJECTS)?;
    let found = projects.list(&caller.0, page.after(), page.n_rows()).await?;
    let key = |found: &Found<Project>| found.thing.id.as_uuid();
    let view = |found: Found<Project>| ProjectView::of(found.thing, found.membership);
    Ok(HttpResponse::Ok().json(page.of(found, key, view)))
}

/// One project.
#[utoipa::path(get, path = "/api/v1/projects/{id}", tag = "projects", operation_id = "get_project", params(("id" = Uuid, Path)), responses(
    (status = 200, body = ProjectView),
))]
pub(crate) async fn show(
    projects: web::Data<ProjectControl>,
    caller: Authenticated,
    id: web::Path<ProjectId>,
) -> Result<HttpResponse, ProblemDetails> {
    let project = projects.load(&caller.0, *id).await?;
    Ok(HttpResponse::Ok().json(ProjectView::from(project)))
}

/// Changes a project's name or description.
#[utoipa::path(patch, path = "/api/v1/projects/{id}", tag = "projects", operation_id = "change_project", params(("id" = Uuid, Path)), request_body = ChangeProject, responses(
    (status = 200, body = ProjectView),
    (status = 403, description = "For owners only"),
))]
pub(crate) async fn change(
    projects: web::Data<ProjectControl>,
    id: web::Path<ProjectId>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let ChangeProject { name, description } = body.input().await?;
    let project = projects.change(&caller, *id, &control::ChangeProject { name, description }).await?;
    Ok(HttpResponse::Ok().json(ProjectView::from(project)))
}

/// Deletes a project with everything in it, its files too.
#[utoipa::path(delete, path = "/api/v1/projects/{id}", tag = "projects", operation_id = "delete_project", params(("id" = Uuid, Path)), responses(
    (status = 204),
    (status = 403, description = "For owners only"),
    (status = 409, description = "It is somebody's default project, or has runs that have not ended"),
))]
pub(crate) async fn delete(
    projects: web::Data<ProjectControl>,
    workspaces: web::Data<Workspaces>,
    caller: Authenticated,
    id: web::Path<ProjectId>,
) -> Result<HttpResponse, ProblemDetails> {
    let id = id.into_inner();
    projects.delete(&caller.0, id).await?;
    // The project is gone for good, so that nobody reaches its files; what is left of them is the operator's.
    if let Err(error) = workspaces.remove(id).await {
        let causes = with_causes(&error);
        tracing::error!(project.id = %id, error = %causes, "files of the deleted project {id} are left over: {causes}");
    }
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use gathering_edge::input::read;
    use serde_json::{Value, json};

    use super::*;

    fn pointers<T: Input + std::fmt::Debug>(body: Value) -> Vec<String> {
        let problem = read::<T>(body).unwrap_err();
        assert_eq!(problem.status(), 422);
        problem.errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn a_project_needs_a_name_on_one_line_and_no_description() {
        for body in [json!({"name": " a "}), json!({"name": "a", "description": null})] {
            let new: CreateProject = read(body).unwrap();
            assert_eq!((new.name.as_str(), new.description), ("a", None));
        }
        let new: CreateProject = read(json!({"name": "x".repeat(200), "description": "a\nb"})).unwrap();
        assert_eq!((new.name.len(), new.description.as_deref()), (200, Some("a\nb")));
        for wrong in
            [json!({}), json!({"name": "a\nb"}), json!({"name": "x".repeat(201)}), json!({"name": null})]
        {
            assert_eq!(pointers::<CreateProject>(wrong.clone()), ["/name"], "{wrong}");
        }
        for description in [json!("a\u{0}b"), json!("x".repeat(20_001)), json!(1)] {
            let wrong = json!({"name": 1, "description": description, "owner": "me"});
            assert_eq!(
                pointers::<CreateProject>(wrong),
                ["/description", "/name", "/owner"],
                "{description}"
            );
        }
    }

    #[test]
    fn a_description_can_be_emptied_and_is_kept_when_absent() {
        let read_change = |body| read::<ChangeProject>(body).unwrap();
        let change = read_change(json!({"description": ""}));
        assert_eq!((change.name, change.description.as_deref()), (None, Some("")));
        let change = read_change(json!({"name": " b ", "description": null}));
        assert_eq!((change.name.as_deref(), change.description), (Some("b"), None));
        assert_eq!(read_change(json!({"name": null})).name, None);
        for (wrong, place) in [
            (json!({"description": 1}), "/description"),
            (json!({"name": ""}), "/name"),
            (json!({"x": 1}), "/x"),
        ] {
            assert_eq!(pointers::<ChangeProject>(wrong), [place]);
        }
    }
}

//! Projects: created, listed, shown, changed, deleted with everything in them.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::{Action, Caller, ProjectRole};
use gathering_control::right::{self, Right};
use gathering_control::{authorize_credential, visible_to};
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{ProjectId, with_causes};
use gathering_persistence::{Project, ProjectSeen, Viewer};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::state::AppState;
use gathering_edge::body::{Body, FromFields, line, prose};
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{self, Page};
use gathering_edge::problem::{ProblemDetails, ProblemView};
use gathering_edge::query::Query;

const MAX_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 20_000;

/// What owns pipelines, runs and files, and what membership is of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Project)]
pub(crate) struct ProjectView {
    id: Uuid,
    name: String,
    description: String,
    /// What the caller is there: `owner`, `editor` or `viewer`; absent for an admin who is no member.
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

/// A project to be created.
#[derive(Debug, ToSchema)]
pub(crate) struct CreateProject {
    /// 1 to 200 characters.
    name: String,
    #[schema(required = false, default = "")]
    description: String,
}

impl FromFields for CreateProject {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name =
            fields.required("name", Shape::Text).and_then(|value| line(fields, "name", value, MAX_NAME));
        let description = description(fields);
        Some(Self { name: name?, description: description.unwrap_or_default() })
    }
}

/// What to change of a project; what is absent stays.
#[derive(Debug, ToSchema)]
pub(crate) struct ChangeProject {
    /// 1 to 200 characters.
    #[schema(required = false)]
    name: Option<String>,
    #[schema(required = false)]
    description: Option<String>,
}

impl FromFields for ChangeProject {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name =
            fields.optional("name", Shape::Text).and_then(|value| line(fields, "name", value, MAX_NAME));
        Some(Self { name, description: description(fields) })
    }
}

fn description(fields: &mut Fields<'_>) -> Option<String> {
    let value = fields.optional("description", Shape::Any).filter(|value| !value.is_null())?;
    prose(fields, "description", value, MAX_DESCRIPTION)
}

/// Which projects to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListProjects {
    /// The length of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[expect(dead_code, reason = "`Query::read_page` reads it")]
    cursor: Option<String>,
}

/// Creates a project; the caller is its owner.
#[utoipa::path(post, path = "/api/v1/projects", tag = "projects", operation_id = "create_project", request_body = CreateProject, responses(
    (status = 201, body = ProjectView),
    (status = 403, description = "An API key without the scope `manage`", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn create(state: web::Data<AppState>, body: Body) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    authorize_credential(&caller, Action::Manage)?;
    let new: CreateProject = body.read().await?;
    let Caller { user, origin, .. } = caller;
    let project = state.projects.create(ProjectId::new(), &new.name, &new.description, user, origin).await?;
    let location = format!("/api/v1/projects/{}", project.id);
    let view = ProjectView::of(project, Some(ProjectRole::Owner));
    Ok(HttpResponse::Created().insert_header(("location", location)).json(view))
}

/// The projects that the caller may see, the newest first: those that they are a member of; to an admin all.
#[utoipa::path(get, path = "/api/v1/projects", tag = "projects", operation_id = "list_projects", params(ListProjects), responses(
    (status = 200, body = Page<ProjectView>),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    state: web::Data<AppState>,
    caller: Authenticated,
    query: Query<ListProjects>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, before) = query.read_page(lists::PROJECTS)?;
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let viewer = visible_to(&caller.0)?.map_or(Viewer::Admin(caller.0.user), Viewer::Member);
    let rows = state.projects.list(viewer, before.map(Into::into), limit + 1).await?;
    let key = |seen: &ProjectSeen| seen.project.id.as_uuid();
    let page = Page::of(lists::PROJECTS, rows, limit, key, |seen| ProjectView::of(seen.project, seen.role));
    Ok(HttpResponse::Ok().json(page))
}

/// One project.
#[utoipa::path(get, path = "/api/v1/projects/{id}", tag = "projects", operation_id = "get_project", params(("id" = Uuid, Path)), responses(
    (status = 200, body = ProjectView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn show(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
) -> Result<HttpResponse, ProblemDetails> {
    let id = state.project::<right::Read>(&caller.0, &id).await?;
    let seen = state.projects.find_for(id, caller.0.user).await?.ok_or_else(ProblemDetails::not_found)?;
    Ok(HttpResponse::Ok().json(ProjectView::of(seen.project, seen.role)))
}

/// Changes a project's name or description.
#[utoipa::path(patch, path = "/api/v1/projects/{id}", tag = "projects", operation_id = "change_project", params(("id" = Uuid, Path)), request_body = ChangeProject, responses(
    (status = 200, body = ProjectView),
    (status = 403, description = "For owners only", body = ProblemView, content_type = "application/problem+json"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn change(
    state: web::Data<AppState>,
    id: web::Path<String>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let id = state.project::<right::Manage>(&caller, &id).await?;
    let change: ChangeProject = body.read().await?;
    let (name, description) = (change.name.as_deref(), change.description.as_deref());
    let project = state.projects.update(id, name, description).await?;
    let role = state.projects.find_role(id, caller.user).await?;
    Ok(HttpResponse::Ok().json(ProjectView::of(project, role)))
}

/// Deletes a project with everything in it, its files too.
#[utoipa::path(delete, path = "/api/v1/projects/{id}", tag = "projects", operation_id = "delete_project", params(("id" = Uuid, Path)), responses(
    (status = 204),
    (status = 403, description = "For owners only", body = ProblemView, content_type = "application/problem+json"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "It is somebody's default project, or has runs that have not ended", body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
) -> Result<HttpResponse, ProblemDetails> {
    let id = state.project::<right::Manage>(&caller.0, &id).await?;
    if !state.projects.delete(id, caller.0.user, caller.0.origin).await? {
        return Err(ProblemDetails::not_found());
    }
    tracing::info!(project.id = %id, "project {id} is deleted");
    // The project is gone for good, so that nobody reaches its files; what is left of them is the operator's.
    if let Err(error) = state.workspaces.remove(id).await {
        let causes = with_causes(&error);
        tracing::error!(project.id = %id, error = %causes, "files of the deleted project {id} are left over: {causes}");
    }
    Ok(HttpResponse::NoContent().finish())
}

impl AppState {
    /// The project that this text names, if the caller may do `R` in it.
    ///
    /// # Errors
    /// 404 for what is absent, invisible or no id at all; 403 for what the caller's role does not allow.
    pub(crate) async fn project<R: Right>(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<ProjectId, ProblemDetails> {
        let id: ProjectId = id.parse().map_err(|_| ProblemDetails::not_found())?;
        Ok(self.control.projects.find::<R>(caller, id).await?.into_thing())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use gathering_edge::body::read_object;

    #[test]
    fn a_project_needs_a_name_on_one_line_and_no_description() {
        let new: CreateProject = read_object(&json!({"name": " a "})).unwrap();
        assert_eq!((new.name.as_str(), new.description.as_str()), ("a", ""));
        for wrong in
            [json!({}), json!({"name": "a\nb"}), json!({"name": "x".repeat(201)}), json!({"name": 1})]
        {
            assert_eq!(read_object::<CreateProject>(&wrong).unwrap_err().status(), 422, "{wrong}");
        }
    }

    #[test]
    fn a_description_can_be_emptied_and_is_kept_when_absent() {
        let read: ChangeProject = read_object(&json!({"description": ""})).unwrap();
        assert_eq!((read.name, read.description.as_deref()), (None, Some("")));
        let read: ChangeProject = read_object(&json!({"name": "b"})).unwrap();
        assert_eq!((read.name.as_deref(), read.description), (Some("b"), None));
        assert_eq!(read_object::<ChangeProject>(&json!({"description": 1})).unwrap_err().status(), 422);
    }
}

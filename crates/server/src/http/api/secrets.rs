//! The secrets of a project: set, deleted, and listed without their values.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{ProjectSecret, SecretControl};
use gathering_domain::{ProjectId, Secret, SecretName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::api::lists;
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::input::Input;
use gathering_edge::page::{NoFilter, Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;

/// A secret of a project. No answer shows its value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub(crate) struct SecretView {
    /// In definitions `${{ secrets.NAME }}`.
    name: String,
    /// The key that its value is encrypted with.
    key_id: String,
    created_at: DateTime<Utc>,
    /// When its value was last set.
    updated_at: DateTime<Utc>,
    /// When a run last began to use it.
    last_used_at: Option<DateTime<Utc>>,
}

impl From<ProjectSecret> for SecretView {
    fn from(secret: ProjectSecret) -> Self {
        let ProjectSecret { id: _, name, key_id, created_at, updated_at, last_used_at } = secret;
        Self { name: name.into(), key_id, created_at, updated_at, last_used_at }
    }
}

/// The value of a secret from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutSecret {
    /// 4 to 65536 bytes of UTF-8. A shorter one would be taken out of texts that have nothing to do with it.
    #[schema(value_type = String, min_length = 4, max_length = 65_536)]
    value: Secret,
}

impl Input for PutSecret {}

/// The secrets of a project without their values, in the order in which they were created.
#[utoipa::path(get, path = "/api/v1/projects/{id}/secrets", tag = "projects", operation_id = "list_secrets", params(("id" = Uuid, Path), PageQuery), responses(
    (status = 200, body = Page<SecretView>),
))]
pub(crate) async fn list(
    secrets: web::Data<SecretControl>,
    caller: Authenticated,
    id: web::Path<ProjectId>,
    query: Query<NoFilter>,
) -> Result<HttpResponse, ProblemDetails> {
    let (_, page) = query.read_page(lists::SECRETS)?;
    let listed = secrets.list(&caller.0, *id, page.after(), page.n_rows()).await?;
    let key = |secret: &ProjectSecret| secret.id.as_uuid();
    Ok(HttpResponse::Ok().json(page.of(listed, key, SecretView::from)))
}

/// Sets a secret. Nodes that start from the answer on get this value; no answer ever shows it.
#[utoipa::path(put, path = "/api/v1/projects/{id}/secrets/{name}", tag = "projects", operation_id = "put_secret", params(
    ("id" = Uuid, Path, description = "The project"),
    ("name" = String, Path, description = "A letter or `_`, then letters, digits and `_`; at most 64 in all"),
), request_body = PutSecret, responses(
    (status = 201, description = "The secret is new"),
    (status = 204, description = "The secret has another value"),
    (status = 404, description = "No such project"),
    (status = 409, description = "The project has as many secrets as it may, or they are as large as they may be"),
))]
pub(crate) async fn put(
    secrets: web::Data<SecretControl>,
    path: web::Path<(ProjectId, String)>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (project, name) = path.into_inner();
    let name: SecretName =
        name.parse().map_err(|error| ProblemDetails::invalid_field("name", format!("{error}")))?;
    let PutSecret { value } = body.input().await?;
    let is_new = secrets.set(&caller, project, name, &value).await?;
    Ok(if is_new { HttpResponse::Created().finish() } else { HttpResponse::NoContent().finish() })
}

/// Deletes a secret. Nodes that use it fail from the answer on.
#[utoipa::path(delete, path = "/api/v1/projects/{id}/secrets/{name}", tag = "projects", operation_id = "delete_secret", params(
    ("id" = Uuid, Path, description = "The project"),
    ("name" = String, Path),
), responses(
    (status = 204),
    (status = 404, description = "No such project or secret"),
))]
pub(crate) async fn delete(
    secrets: web::Data<SecretControl>,
    caller: Authenticated,
    path: web::Path<(ProjectId, String)>,
) -> Result<HttpResponse, ProblemDetails> {
    let (project, name) = path.into_inner();
    let name: SecretName = name.parse().map_err(|_| ProblemDetails::not_found())?;
    secrets.delete(&caller.0, project, &name).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use gathering_domain::ExposeSecret as _;
    use gathering_edge::input::read;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_a_text_that_no_message_repeats() {
        let put: PutSecret = read(json!({"value": " hunter2\n"})).unwrap();
        assert_eq!(put.value.expose_secret(), " hunter2\n", "white space is part of it");
        assert!(!format!("{put:?}").contains("hunter2"));
        for wrong in [json!({}), json!({"value": ["hunter2"]}), json!({"value": "x", "hunter2": 1})] {
            let problem = read::<PutSecret>(wrong.clone()).unwrap_err();
            assert_eq!(problem.status().as_u16(), 422, "{wrong}");
        }
    }
}

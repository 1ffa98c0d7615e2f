//! API keys: long-lived secrets of programs, created, listed and revoked by their owner.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::{ApiKey, ApiKeyRequest, Scope};
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{ApiKeyId, Problems};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::edge::body::{Body, FromFields, line};
use crate::http::edge::caller::Authenticated;
use crate::http::edge::page::{self, List, Page};
use crate::http::edge::problem::{Problem, ProblemView};
use crate::http::edge::query::Query;
use crate::http::state::AppState;

const MAX_NAME: usize = 100;

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct ApiKeyView {
    id: Uuid,
    name: String,
    /// Of `read`, `write`, `run`, `manage` and `admin`: what the key may do where its owner may.
    scopes: Vec<&'static str>,
    created_at: DateTime<Utc>,
    /// From when on it is worth nothing.
    expires_at: Option<DateTime<Utc>>,
    /// Roughly.
    last_used_at: Option<DateTime<Utc>>,
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.as_uuid(),
            name: key.name,
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
        }
    }
}

/// An API key that was just created.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
pub(crate) struct CreatedApiKeyView {
    #[serde(flatten)]
    key: ApiKeyView,
    /// To be sent as `Authorization: Bearer`. It is shown this once.
    secret: String,
}

/// An API key to be created.
#[derive(Debug, ToSchema)]
pub(crate) struct CreateApiKey {
    /// What the owner calls it; 1 to 100 characters.
    name: String,
    /// At least one of `read`, `write`, `run`, `manage` and `admin`, none of them twice. Each implies `read`; `admin`
    /// implies all, and only an admin may give it.
    #[schema(value_type = Vec<String>, example = json!(["run"]))]
    scopes: Vec<Scope>,
    /// From when on it is worth nothing; never if absent.
    #[schema(required = false)]
    expires_at: Option<DateTime<Utc>>,
}

impl FromFields for CreateApiKey {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name =
            fields.required("name", Shape::Text).and_then(|value| line(fields, "name", value, MAX_NAME));
        let scopes = fields.required("scopes", Shape::Array).and_then(Value::as_array);
        let scopes = scopes.and_then(|items| read_scopes(fields, items));
        let text = fields.optional("expires_at", Shape::Text).and_then(Value::as_str);
        let expires_at = page::time("expires_at", text, fields.problems());
        // Looked at here too, so that another problem does not hide it.
        if expires_at.is_some_and(|expires_at| expires_at <= Utc::now()) {
            fields.problem("expires_at", "must be in the future");
        }
        Some(Self { name: name?, scopes: scopes?, expires_at })
    }
}

fn read_scopes(fields: &mut Fields<'_>, items: &[Value]) -> Option<Vec<Scope>> {
    if !(1..=Scope::ALL.len()).contains(&items.len()) {
        fields.problem("scopes", format!("must name 1 to {} scopes", Scope::ALL.len()));
        return None;
    }
    let at = fields.place("scopes");
    let mut scopes = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match item.as_str().map(str::parse::<Scope>) {
            Some(Ok(scope)) if scopes.contains(&scope) => {
                fields.problems().add(at.join(index), "is named already");
            }
            Some(Ok(scope)) => scopes.push(scope),
            Some(Err(error)) => fields.problems().add(at.join(index), error.to_string()),
            None => fields.problems().add(at.join(index), "must be a string"),
        }
    }
    (scopes.len() == items.len()).then_some(scopes)
}

/// Which API keys to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListApiKeys {
    /// 1 to 200; 50 by default.
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Creates an API key. Its secret is shown in this answer and never again.
#[utoipa::path(post, path = "/api/v1/auth/api-keys", tag = "auth", operation_id = "create_api_key", request_body = CreateApiKey, responses(
    (status = 201, body = CreatedApiKeyView),
    (status = 403, description = "An API key is not enough for this", body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "The account has as many as it may", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn create(state: web::Data<AppState>, body: Body) -> Result<HttpResponse, Problem> {
    let (caller, body) = body.receive().await?;
    let CreateApiKey { name, scopes, expires_at } = body.read().await?;
    let request = ApiKeyRequest { name, scopes, expires_at };
    let (key, secret) = state.auth.create_api_key(&caller, request).await?;
    let view = CreatedApiKeyView { key: key.into(), secret: secret.expose().to_owned() };
    Ok(HttpResponse::Created().json(view))
}

/// The caller's API keys that are not revoked, expired ones too, the newest first.
#[utoipa::path(get, path = "/api/v1/auth/api-keys", tag = "auth", operation_id = "list_api_keys", params(ListApiKeys), responses(
    (status = 200, body = Page<ApiKeyView>),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    state: web::Data<AppState>,
    caller: Authenticated,
    query: Query<ListApiKeys>,
) -> Result<HttpResponse, Problem> {
    let query = query.read()?;
    let mut problems = Problems::new();
    let limit = page::limit(query.limit.as_deref(), &mut problems);
    let before = page::cursor(List::ApiKeys, query.cursor.as_deref(), &mut problems);
    problems.into_result().map_err(Problem::invalid)?;
    // So few that they come all at once, and are made pages of here.
    let mut keys = state.auth.list_api_keys(&caller.0).await?;
    keys.retain(|key| before.is_none_or(|before| key.id.as_uuid() < before));
    let page = Page::of(List::ApiKeys, keys, limit, |key| key.id.as_uuid(), ApiKeyView::from);
    Ok(HttpResponse::Ok().json(page))
}

/// Revokes one of the caller's API keys, on every instance, from the answer on.
#[utoipa::path(delete, path = "/api/v1/auth/api-keys/{id}", tag = "auth", operation_id = "revoke_api_key", params(("id" = Uuid, Path)), responses(
    (status = 204),
    (status = 403, description = "An API key is not enough for this", body = ProblemView, content_type = "application/problem+json"),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn revoke(
    state: web::Data<AppState>,
    caller: Authenticated,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let id: ApiKeyId = id.parse().map_err(|_| Problem::not_found())?;
    state.auth.revoke_api_key(&caller.0, id).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::body::to_bytes;
    use serde_json::json;

    use super::*;
    use crate::http::edge::body::read_object;

    async fn pointers(body: &Value) -> Vec<String> {
        let response = read_object::<CreateApiKey>(body).unwrap_err().error_response();
        assert_eq!(response.status(), 422);
        let view: Value = serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
        let errors = view["errors"].as_array().unwrap();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }

    #[actix_web::test]
    async fn everything_wrong_with_a_key_is_named_at_once() {
        let body = json!({"name": " ", "scopes": ["read", "fly", 3, "read"], "expires_at": "soon", "x": 1});
        assert_eq!(
            pointers(&body).await,
            ["/name", "/scopes/1", "/scopes/2", "/scopes/3", "/expires_at", "/x"]
        );
        assert_eq!(pointers(&json!({"name": "a", "scopes": []})).await, ["/scopes"]);
        assert_eq!(pointers(&json!({})).await, ["/name", "/scopes"]);
    }

    #[test]
    fn a_key_without_an_end_is_one() {
        let key: CreateApiKey = read_object(&json!({"name": "ci", "scopes": ["run"]})).unwrap();
        assert_eq!((key.scopes, key.expires_at), (vec![Scope::Run], None));
    }
}

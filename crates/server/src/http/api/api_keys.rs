//! API keys: long-lived credentials for programs; their owner creates, lists and revokes them.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::{ApiKey, ApiKeyRequest, Auth, Scope};
use gathering_domain::{ApiKeyId, Pointer, Problems};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::words::ScopeSchema;
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::input::Input;
use gathering_edge::page::{self, NoFilter, Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use gathering_edge::values::{Word, one_line, trimmed};

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct ApiKeyView {
    id: Uuid,
    name: String,
    #[schema(value_type = Vec<ScopeSchema>)]
    scopes: Vec<&'static str>,
    created_at: DateTime<Utc>,
    /// The key is refused from this time on; never if null.
    expires_at: Option<DateTime<Utc>>,
    /// Accurate to about a minute.
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
    /// To be sent as `Authorization: Bearer`. Only this answer shows it.
    secret: String,
}

/// An API key to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateApiKey {
    /// 1 to 100 characters.
    #[schema(schema_with = one_line::<100>)]
    #[serde(deserialize_with = "trimmed")]
    name: String,
    /// At least one, none of them twice. Only an admin may give `admin`.
    #[schema(value_type = Vec<ScopeSchema>, min_items = 1, max_items = 5, example = json!(["run"]))]
    scopes: Vec<Word<Scope>>,
    /// The key is refused from this time on; never if absent.
    #[schema(required = false)]
    expires_at: Option<DateTime<Utc>>,
}

impl Input for CreateApiKey {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        let expires_at = object.get("expires_at").and_then(Value::as_str).and_then(page::parse_time);
        if expires_at.is_some_and(|expires_at| expires_at <= Utc::now()) {
            problems.add(Pointer::root().join("expires_at"), "must be in the future");
        }
        let scopes = object.get("scopes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let repeated = scopes.iter().enumerate().filter(|(index, scope)| scopes[..*index].contains(scope));
        for (index, _) in repeated {
            problems.add(Pointer::root().join("scopes").join(index), "is listed twice");
        }
    }
}

/// Creates an API key. Only this answer shows its secret.
#[utoipa::path(post, path = "/api/v1/auth/api-keys", tag = "auth", operation_id = "create_api_key", params(
    ("Idempotency-Key" = Option<String>, Header, description = "For 24 hours the same key creates one API key: a repeated request is refused, as its secret cannot be shown again"),
), request_body = CreateApiKey, responses(
    (status = 201, body = CreatedApiKeyView),
    (status = 403, description = "The operation requires a login session"),
    (status = 409, description = "The account has the maximum number of keys, or the idempotency key was used before"),
))]
pub(crate) async fn create(
    auth: web::Data<Auth>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (CreateApiKey { name, scopes, expires_at }, once) = body.input_once(&request).await?;
    let scopes = scopes.into_iter().map(|Word(scope)| scope).collect();
    let request = ApiKeyRequest { name, scopes, expires_at, once };
    let (key, secret) = auth.create_api_key(&caller, request).await?;
    let view = CreatedApiKeyView { key: key.into(), secret: secret.expose().to_owned() };
    Ok(HttpResponse::Created().json(view))
}

/// The caller's API keys that are not revoked, expired ones too, the newest first.
#[utoipa::path(get, path = "/api/v1/auth/api-keys", tag = "auth", operation_id = "list_api_keys", params(PageQuery), responses(
    (status = 200, body = Page<ApiKeyView>),
))]
pub(crate) async fn list(
    auth: web::Data<Auth>,
    caller: Authenticated,
    query: Query<NoFilter>,
) -> Result<HttpResponse, ProblemDetails> {
    let (_, page) = query.read_page(lists::API_KEYS)?;
    // An account has few keys: the store gives all, and the pages are made here.
    let mut keys = auth.list_api_keys(&caller.0).await?;
    keys.retain(|key| page.after().is_none_or(|before| key.id < before));
    Ok(HttpResponse::Ok().json(page.of(keys, |key| key.id.as_uuid(), ApiKeyView::from)))
}

/// Revokes one of the caller's API keys. From the answer on it is refused on every instance.
#[utoipa::path(delete, path = "/api/v1/auth/api-keys/{id}", tag = "auth", operation_id = "revoke_api_key", params(("id" = Uuid, Path)), responses(
    (status = 204),
    (status = 403, description = "The operation requires a login session"),
))]
pub(crate) async fn revoke(
    auth: web::Data<Auth>,
    caller: Authenticated,
    id: web::Path<ApiKeyId>,
) -> Result<HttpResponse, ProblemDetails> {
    auth.revoke_api_key(&caller.0, *id).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::body::to_bytes;
    use serde_json::json;

    use super::*;
    use gathering_edge::input::read;

    async fn pointers(body: &Value) -> Vec<String> {
        let response = read::<CreateApiKey>(body.clone()).unwrap_err().error_response();
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
            ["/expires_at", "/name", "/scopes/1", "/scopes/2", "/scopes/3", "/x"]
        );
        assert_eq!(pointers(&json!({"name": "a", "scopes": []})).await, ["/scopes"]);
        assert_eq!(pointers(&json!({})).await, ["/name", "/scopes"]);
    }

    #[test]
    fn a_key_needs_no_expiry() {
        let key: CreateApiKey = read(json!({"name": "ci", "scopes": ["run"]})).unwrap();
        assert_eq!((key.scopes, key.expires_at), (vec![Word(Scope::Run)], None));
    }
}

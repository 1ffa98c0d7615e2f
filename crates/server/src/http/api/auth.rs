//! Accounts and sessions: register, log in, refresh, log out, change the password, show the own account.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::{Account, Auth, Passwords, RegistrationRequest, TokenPair};
use gathering_domain::{Email, ExposeSecret, Pointer, Problems, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::words::RoleSchema;
use gathering_edge::body::{Body, OpenBody};
use gathering_edge::caller::{Authenticated, ClientOrigin};
use gathering_edge::input::Input;
use gathering_edge::problem::ProblemDetails;
use gathering_edge::values::{one_line, trimmed};

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserView {
    id: Uuid,
    /// In lower case.
    email: String,
    name: String,
    #[schema(value_type = RoleSchema)]
    role: &'static str,
    is_active: bool,
    created_at: DateTime<Utc>,
}

impl From<Account> for UserView {
    fn from(account: Account) -> Self {
        Self {
            id: account.id.as_uuid(),
            email: account.email.to_string(),
            name: account.name,
            role: account.role.as_str(),
            is_active: account.is_active,
            created_at: account.created_at,
        }
    }
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub(crate) struct TokensView {
    /// To be sent as `Authorization: Bearer`.
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// The lifetime of the access token, in seconds.
    expires_in: u64,
    /// Can be exchanged once for the next tokens.
    refresh_token: String,
}

impl From<TokenPair> for TokensView {
    fn from(pair: TokenPair) -> Self {
        Self {
            access_token: pair.access_token.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: pair.expires_in.as_secs(),
            refresh_token: pair.refresh_token.expose().to_owned(),
        }
    }
}

/// An account to be created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    #[schema(example = "ada@example.org")]
    email: String,
    /// The display name; 1 to 100 characters.
    #[schema(schema_with = one_line::<100>)]
    #[serde(deserialize_with = "trimmed")]
    name: String,
    /// At most 72 bytes.
    #[schema(value_type = String, format = Password)]
    password: Secret,
}

impl Input for Register {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        if let Some(Err(error)) = object.get("email").and_then(Value::as_str).map(str::parse::<Email>) {
            problems.add(Pointer::root().join("email"), error.to_string());
        }
        judge_password(object, "password", problems);
    }
}

/// The credentials of an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    email: String,
    #[schema(value_type = String, format = Password)]
    password: Secret,
}

impl Input for Login {}

/// A refresh token to be exchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    refresh_token: String,
}

impl Input for Refresh {}

/// What a logout ends beside the caller's own session.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logout {
    /// A refresh token of the same account.
    #[schema(required = false, min_length = 1)]
    refresh_token: Option<String>,
}

impl Input for Logout {}

/// A password to be replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePassword {
    #[schema(value_type = String, format = Password)]
    current_password: Secret,
    /// At most 72 bytes.
    #[schema(value_type = String, format = Password)]
    new_password: Secret,
}

impl Input for ChangePassword {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        judge_password(object, "new_password", problems);
    }
}

/// Adds what makes a new password unusable.
fn judge_password(object: &Map<String, Value>, name: &str, problems: &mut Problems) {
    if let Some(password) = object.get(name).and_then(Value::as_str) {
        problems.extend(Passwords::problems(&Secret::from(password), &Pointer::root().join(name)));
    }
}

/// Creates an account with a default project. The first account is admin.
#[utoipa::path(post, path = "/api/v1/auth/register", tag = "auth", operation_id = "register", request_body = Register, responses(
    (status = 201, body = UserView),
    (status = 403, description = "Registration is closed"),
    (status = 409, description = "The e-mail address already has an account"),
))]
pub(crate) async fn register(
    auth: web::Data<Auth>,
    origin: ClientOrigin,
    body: OpenBody,
) -> Result<HttpResponse, ProblemDetails> {
    let Register { email, name, password } = body.input().await?;
    let account = auth.register(RegistrationRequest { email, name, password }, origin.0).await?;
    Ok(HttpResponse::Created().json(UserView::from(account)))
}

/// Starts a session.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", operation_id = "login", request_body = Login, responses(
    (status = 200, body = TokensView),
    (status = 401, description = "The same for every cause"),
    (status = 429, description = "Too many attempts"),
))]
pub(crate) async fn login(
    auth: web::Data<Auth>,
    origin: ClientOrigin,
    body: OpenBody,
) -> Result<HttpResponse, ProblemDetails> {
    let Login { email, password } = body.input().await?;
    let pair = auth.login(&email, password, origin.0).await?;
    Ok(HttpResponse::Ok().json(TokensView::from(pair)))
}

/// Exchanges a refresh token for new tokens. A token that is sent twice revokes its session.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", operation_id = "refresh", request_body = Refresh, responses(
    (status = 200, body = TokensView),
))]
pub(crate) async fn refresh(
    auth: web::Data<Auth>,
    origin: ClientOrigin,
    body: OpenBody,
) -> Result<HttpResponse, ProblemDetails> {
    let Refresh { refresh_token } = body.input().await?;
    let pair = auth.refresh(&refresh_token, origin.0).await?;
    Ok(HttpResponse::Ok().json(TokensView::from(pair)))
}

/// Ends the session. From the answer on it is refused on every instance.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", operation_id = "logout", request_body = Logout, responses(
    (status = 204),
    (status = 403, description = "The operation requires a login session"),
))]
pub(crate) async fn logout(auth: web::Data<Auth>, body: Body) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let Logout { refresh_token } = body.input().await?;
    auth.logout(&caller, refresh_token.as_deref()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The caller's account.
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "auth", operation_id = "me", responses(
    (status = 200, body = UserView),
))]
pub(crate) async fn me(auth: web::Data<Auth>, caller: Authenticated) -> Result<HttpResponse, ProblemDetails> {
    Ok(HttpResponse::Ok().json(UserView::from(auth.me(&caller.0).await?)))
}

/// Replaces the password of the caller's account. Its other sessions end; the caller's own stays.
#[utoipa::path(put, path = "/api/v1/auth/password", tag = "auth", operation_id = "change_password", request_body = ChangePassword, responses(
    (status = 204),
    (status = 403, description = "The current password is incorrect, or the credential is an API key"),
    (status = 429, description = "Too many attempts"),
))]
pub(crate) async fn change_password(
    auth: web::Data<Auth>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let ChangePassword { current_password, new_password } = body.input().await?;
    auth.change_password(&caller, current_password, new_password).await?;
    Ok(HttpResponse::NoContent().finish())
}

//! Registering, logging in, refreshing, logging out, changing the password, and who one is.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::{Account, Passwords, RegistrationRequest, TokenPair};
use gathering_dag_engine::{Fields, Shape};
use gathering_domain::{Email, ExposeSecret, Secret};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::edge::body::{Body, FromFields, OpenBody, line};
use crate::http::edge::caller::{Authenticated, ClientOrigin};
use crate::http::edge::problem::{Problem, ProblemView};
use crate::http::state::AppState;

/// As `gathering_auth` has it.
const MAX_NAME: usize = 100;

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserView {
    id: Uuid,
    /// In lower case.
    email: String,
    name: String,
    /// `admin` or `member`.
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

/// What a login or a refresh gives.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub(crate) struct TokensView {
    /// To be sent as `Authorization: Bearer`.
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// How long the access token lives, in seconds.
    expires_in: u64,
    /// To be spent, once, for the next tokens.
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

/// Who wants an account.
#[derive(ToSchema)]
pub(crate) struct Register {
    #[schema(example = "ada@example.org")]
    email: String,
    /// What people shall call them; 1 to 100 characters.
    name: String,
    /// At most 72 bytes.
    #[schema(value_type = String, format = Password)]
    password: Secret,
}

impl FromFields for Register {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let email = text(fields, "email");
        let name = text(fields, "name");
        let password = text(fields, "password").map(Secret::from);
        // Looked at here too, so that a missing field does not hide what is wrong with the others.
        if let Some(Err(error)) = email.as_deref().map(str::parse::<Email>) {
            fields.problem("email", error.to_string());
        }
        if let Some(name) = name.as_deref().map(Value::from) {
            line(fields, "name", &name, MAX_NAME);
        }
        if let Some(password) = &password {
            let problems = Passwords::problems(password, &fields.place("password"));
            fields.problems().extend(problems);
        }
        Some(Self { email: email?, name: name?, password: password? })
    }
}

/// Who wants to log in.
#[derive(ToSchema)]
pub(crate) struct Login {
    email: String,
    #[schema(value_type = String, format = Password)]
    password: Secret,
}

impl FromFields for Login {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let email = text(fields, "email");
        let password = text(fields, "password");
        Some(Self { email: email?, password: Secret::from(password?) })
    }
}

/// A refresh token to be spent.
#[derive(ToSchema)]
pub(crate) struct Refresh {
    refresh_token: String,
}

impl FromFields for Refresh {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { refresh_token: text(fields, "refresh_token")? })
    }
}

/// What a logout ends beside the caller's own session.
#[derive(ToSchema)]
pub(crate) struct Logout {
    /// A refresh token of the same account.
    #[schema(required = false)]
    refresh_token: Option<String>,
}

impl FromFields for Logout {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let token = fields.optional("refresh_token", Shape::Text);
        Some(Self { refresh_token: token.and_then(|value| value.as_str()).map(str::to_owned) })
    }
}

/// A password to be replaced.
#[derive(ToSchema)]
pub(crate) struct ChangePassword {
    #[schema(value_type = String, format = Password)]
    current_password: Secret,
    /// At most 72 bytes.
    #[schema(value_type = String, format = Password)]
    new_password: Secret,
}

impl FromFields for ChangePassword {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let current = text(fields, "current_password").map(Secret::from);
        let new = text(fields, "new_password").map(Secret::from);
        // Looked at here too, so that a missing field does not hide what is wrong with the other.
        if let Some(new) = &new {
            let problems = Passwords::problems(new, &fields.place("new_password"));
            fields.problems().extend(problems);
        }
        Some(Self { current_password: current?, new_password: new? })
    }
}

/// A string, whatever is in it: what it may be is decided elsewhere.
fn text(fields: &mut Fields<'_>, name: &'static str) -> Option<String> {
    let value = fields.required(name, Shape::Any)?;
    if !value.is_string() {
        fields.problem(name, "must be a string");
    }
    value.as_str().map(str::to_owned)
}

/// Creates an account with a default project; the first account of all is admin.
#[utoipa::path(post, path = "/api/v1/auth/register", tag = "auth", operation_id = "register", request_body = Register, responses(
    (status = 201, body = UserView),
    (status = 403, description = "Registration is closed", body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "The e-mail address has an account", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn register(
    state: web::Data<AppState>,
    origin: ClientOrigin,
    body: OpenBody,
) -> Result<HttpResponse, Problem> {
    let Register { email, name, password } = body.read().await?;
    let account = state.auth.register(RegistrationRequest { email, name, password }, origin.0).await?;
    Ok(HttpResponse::Created().json(UserView::from(account)))
}

/// Begins a session.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", operation_id = "login", request_body = Login, responses(
    (status = 200, body = TokensView),
    (status = 401, description = "The same for every cause", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
    (status = 429, description = "Too many attempts", body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn login(
    state: web::Data<AppState>,
    origin: ClientOrigin,
    body: OpenBody,
) -> Result<HttpResponse, Problem> {
    let Login { email, password } = body.read().await?;
    let pair = state.auth.login(&email, password, origin.0).await?;
    Ok(HttpResponse::Ok().json(TokensView::from(pair)))
}

/// Spends a refresh token for new tokens. Spent twice, it revokes its session.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", operation_id = "refresh", request_body = Refresh, responses(
    (status = 200, body = TokensView),
    (status = 401, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn refresh(
    state: web::Data<AppState>,
    origin: ClientOrigin,
    body: OpenBody,
) -> Result<HttpResponse, Problem> {
    let Refresh { refresh_token } = body.read().await?;
    let pair = state.auth.refresh(&refresh_token, origin.0).await?;
    Ok(HttpResponse::Ok().json(TokensView::from(pair)))
}

/// Ends the session, on every instance, from the answer on.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", operation_id = "logout", request_body = Logout, responses(
    (status = 204),
    (status = 401, body = ProblemView, content_type = "application/problem+json"),
    (status = 403, description = "An API key is not enough for this", body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn logout(state: web::Data<AppState>, body: Body) -> Result<HttpResponse, Problem> {
    let (caller, body) = body.receive().await?;
    let Logout { refresh_token } = body.read().await?;
    state.auth.logout(&caller, refresh_token.as_deref()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The caller's account.
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "auth", operation_id = "me", responses(
    (status = 200, body = UserView),
    (status = 401, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn me(state: web::Data<AppState>, caller: Authenticated) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(UserView::from(state.auth.me(&caller.0).await?)))
}

/// Replaces the password of the caller's account. Its other sessions end; the caller's own goes on.
#[utoipa::path(put, path = "/api/v1/auth/password", tag = "auth", operation_id = "change_password", request_body = ChangePassword, responses(
    (status = 204),
    (status = 403, description = "The current password is another one, or an API key was shown", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
    (status = 429, description = "Too many attempts", body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn change_password(state: web::Data<AppState>, body: Body) -> Result<HttpResponse, Problem> {
    let (caller, body) = body.receive().await?;
    let ChangePassword { current_password, new_password } = body.read().await?;
    state.auth.change_password(&caller, current_password, new_password).await?;
    Ok(HttpResponse::NoContent().finish())
}

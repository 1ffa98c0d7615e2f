//! A small web service with accounts: actix-web outside, this crate inside, everything in memory.
//!
//! `cargo run -p gathering-auth --example service` listens on 127.0.0.1:8085, or on the address given as the first
//! argument. The README has requests to try. The service keeps a shared list of notes. Everybody with an account may
//! read it and add to it (an editor's permissions); only admins may clear it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::web::{Data, Json, ServiceConfig};
use actix_web::{
    App, FromRequest, HttpRequest, HttpResponse, HttpServer, ResponseError, delete, dev, get, post, put,
};
use gathering_auth::testing::MemoryAccounts;
use gathering_auth::{
    Action, ApiKeyRequest, Auth, AuthError, AuthSettings, Caller, KeyRing, Origin, ProjectRole,
    RegistrationRequest, Scope, TokenPair, authorize, authorize_admin,
};
use gathering_domain::{ExposeSecret, RequestId, Secret};
use serde::Deserialize;
use serde_json::{Value, json};

/// The maximum number of notes: a demonstration has bounds too.
const MAX_NOTES: usize = 100;

/// The state that every request uses.
struct Service {
    auth: Auth,
    notes: Mutex<Vec<String>>,
}

/// The extractor. A handler that takes one is reached only with a valid credential.
struct LoggedIn(Caller);

impl FromRequest for LoggedIn {
    type Error = Refusal;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Refusal>>>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let service = request.app_data::<Data<Service>>().ok_or(Refusal::Unauthorized)?;
            let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
            let credential =
                header.and_then(|header| header.strip_prefix("Bearer ")).ok_or(Refusal::Unauthorized)?;
            Ok(Self(service.auth.authenticate(credential, origin_of(&request)).await?))
        })
    }
}

/// A caller with the body of the request. A slow sender can be logged out, or lose their role, while the body arrives.
/// So this reads the body first and authenticates afterwards.
struct Sent<T>(Caller, T);

impl<T: FromRequest + 'static> FromRequest for Sent<T> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Self::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let (request, body) = (request.clone(), T::from_request(request, payload));
        Box::pin(async move {
            let body = body.await.map_err(Into::into)?;
            let LoggedIn(caller) = LoggedIn::extract(&request).await?;
            Ok(Self(caller, body))
        })
    }
}

/// The origin of a request. Behind a proxy this is the proxy's address, and all clients would share one login budget.
/// In that case take the address from the proxy's header, and only if the peer is that proxy.
fn origin_of(request: &HttpRequest) -> Origin {
    let address = request.peer_addr().map(|peer| peer.ip());
    Origin { address, request_id: Some(RequestId::new()) }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("send an access token or API key: `Authorization: Bearer …`")]
    Unauthorized,
    #[error("too many notes")]
    TooManyNotes,
    #[error(transparent)]
    Auth(#[from] AuthError),
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        let Refusal::Auth(error) = self else {
            return match self {
                Refusal::TooManyNotes => StatusCode::CONFLICT,
                _ => StatusCode::UNAUTHORIZED,
            };
        };
        match error {
            AuthError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            AuthError::LoginRefused
            | AuthError::RefreshRefused
            | AuthError::NotAuthenticated(_)
            | AuthError::Revoked => StatusCode::UNAUTHORIZED,
            AuthError::RegistrationClosed
            | AuthError::WrongPassword
            | AuthError::Denied(_)
            | AuthError::SessionNeeded => StatusCode::FORBIDDEN,
            AuthError::NoAccount | AuthError::NoApiKey => StatusCode::NOT_FOUND,
            AuthError::AccountExists
            | AuthError::LastAdmin
            | AuthError::TooManyKeys
            | AuthError::KeyCreatedBefore(_)
            | AuthError::IdempotencyKeyReused => StatusCode::CONFLICT,
            AuthError::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            AuthError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            AuthError::Store(_) | AuthError::Password(_) | AuthError::NoRandomness => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        if self.status_code() == StatusCode::UNAUTHORIZED {
            answer.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        if let Refusal::Auth(AuthError::Throttled { retry_after }) = self {
            // Whole seconds, rounded up, so that a retry after that time succeeds.
            answer.insert_header((RETRY_AFTER, retry_after.as_secs() + 1));
        }
        let problems: Vec<String> = match self {
            Refusal::Auth(AuthError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        answer.json(json!({ "error": self.to_string(), "problems": problems }))
    }
}

type Answer = Result<Json<Value>, Refusal>;

#[derive(Deserialize)]
struct Registering {
    email: String,
    name: String,
    password: Secret,
}

#[derive(Deserialize)]
struct LoggingIn {
    email: String,
    password: Secret,
}

#[derive(Deserialize)]
struct Refreshing {
    refresh_token: String,
}

#[derive(Deserialize)]
struct ChangingPassword {
    current_password: Secret,
    new_password: Secret,
}

fn tokens(pair: &TokenPair) -> Json<Value> {
    Json(json!({
        "access_token": pair.access_token.expose_secret(),
        "expires_in": pair.expires_in.as_secs(),
        "refresh_token": pair.refresh_token.expose(),
    }))
}

#[post("/register")]
async fn register(service: Data<Service>, body: Json<Registering>, request: HttpRequest) -> Answer {
    let Registering { email, name, password } = body.into_inner();
    let asked_for = RegistrationRequest { email, name, password };
    let account = service.auth.register(asked_for, origin_of(&request)).await?;
    Ok(Json(json!({ "id": account.id, "email": account.email.as_str(), "role": account.role.as_str() })))
}

#[post("/login")]
async fn login(service: Data<Service>, body: Json<LoggingIn>, request: HttpRequest) -> Answer {
    let LoggingIn { email, password } = body.into_inner();
    Ok(tokens(&service.auth.login(&email, password, origin_of(&request)).await?))
}

#[post("/refresh")]
async fn refresh(service: Data<Service>, body: Json<Refreshing>, request: HttpRequest) -> Answer {
    Ok(tokens(&service.auth.refresh(&body.refresh_token, origin_of(&request)).await?))
}

#[post("/logout")]
async fn logout(service: Data<Service>, LoggedIn(caller): LoggedIn) -> Answer {
    service.auth.logout(&caller, None).await?;
    Ok(Json(json!({ "logged_out": true })))
}

#[get("/me")]
async fn me(service: Data<Service>, LoggedIn(caller): LoggedIn) -> Answer {
    let account = service.auth.me(&caller).await?;
    Ok(Json(
        json!({ "name": account.name, "email": account.email.as_str(), "acts_as": caller.role.as_str() }),
    ))
}

#[put("/password")]
async fn change_password(
    service: Data<Service>,
    Sent(caller, Json(change)): Sent<Json<ChangingPassword>>,
) -> Answer {
    let ChangingPassword { current_password, new_password } = change;
    service.auth.change_password(&caller, current_password, new_password).await?;
    Ok(Json(json!({ "changed": true })))
}

/// Creates a key for a program that only reads the notes.
#[post("/api-keys")]
async fn create_key(service: Data<Service>, LoggedIn(caller): LoggedIn) -> Answer {
    let asked_for =
        ApiKeyRequest { name: "reader".to_owned(), scopes: vec![Scope::Read], expires_at: None, once: None };
    let (key, secret) = service.auth.create_api_key(&caller, asked_for).await?;
    Ok(Json(json!({ "id": key.id, "secret": secret.expose() })))
}

#[get("/notes")]
async fn read_notes(service: Data<Service>, LoggedIn(caller): LoggedIn) -> Answer {
    authorize(&caller, Some(ProjectRole::Editor), Action::Read).map_err(AuthError::from)?;
    let notes = service.notes.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Json(json!({ "notes": *notes })))
}

#[post("/notes")]
async fn add_note(service: Data<Service>, Sent(caller, note): Sent<String>) -> Answer {
    authorize(&caller, Some(ProjectRole::Editor), Action::Write).map_err(AuthError::from)?;
    let mut notes = service.notes.lock().unwrap_or_else(PoisonError::into_inner);
    if notes.len() == MAX_NOTES {
        return Err(Refusal::TooManyNotes);
    }
    notes.push(note);
    Ok(Json(json!({ "n_notes": notes.len() })))
}

#[delete("/notes")]
async fn clear_notes(service: Data<Service>, LoggedIn(caller): LoggedIn) -> Answer {
    authorize_admin(&caller).map_err(AuthError::from)?;
    service.notes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    Ok(Json(json!({ "n_notes": 0 })))
}

fn routes(config: &mut ServiceConfig) {
    config
        .service(register)
        .service(login)
        .service(refresh)
        .service(logout)
        .service(me)
        .service(change_password)
        .service(create_key)
        .service(read_notes)
        .service(add_note)
        .service(clear_notes);
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8085".to_owned());
    // A real service reads its keys from a file or a secret, so that tokens survive a restart.
    let auth = Auth::new(Arc::new(MemoryAccounts::new()), KeyRing::generate()?, AuthSettings::default())?;
    let service = Data::new(Service { auth, notes: Mutex::default() });
    let server = HttpServer::new(move || App::new().app_data(service.clone()).configure(routes));
    say(&format!("listening on http://{address}"));
    Ok(server.bind(address)?.run().await?)
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn say(line: &str) {
    println!("{line}");
}

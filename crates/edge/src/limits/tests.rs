//! The limits on an application with a few routes.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::body::to_bytes;
use actix_web::dev::Service;
use actix_web::test::{TestRequest, init_service};
use actix_web::web;
use gathering_auth::testing::MemoryAccounts;
use gathering_auth::{
    ApiKeyRequest, Auth, AuthSettings, KeyRing, Origin, PasswordSettings, RegistrationRequest, Scope,
};
use gathering_domain::{ExposeSecret, Secret};
use serde_json::Value;

use super::*;
use crate::gate::Gate;
use crate::server::application;
use crate::tests::{ROUTES, document};

const LOGIN: &str = "/api/v1/auth/login";
const READ: &str = "/api/openapi.json";

/// Each tier with a limit of its own, so that the headers tell which one it was.
fn small() -> RateLimits {
    let quota = |text: &str| text.parse::<Quota>().ok();
    RateLimits { auth: quota("2/h"), write: quota("3/h"), read: quota("4/h"), health: quota("5/h") }
}

/// An account that logged in, with an access token and an API key.
struct Person {
    access_token: String,
    api_key: String,
}

fn auth() -> Arc<Auth> {
    let settings = AuthSettings {
        passwords: PasswordSettings { cost: 4, ..PasswordSettings::default() },
        ..AuthSettings::default()
    };
    Arc::new(Auth::new(Arc::new(MemoryAccounts::new()), KeyRing::generate().unwrap(), settings).unwrap())
}

impl Person {
    async fn registered(auth: &Auth, email: &str) -> Self {
        let password = || Secret::from("correct horse");
        let (email, name) = (email.to_owned(), "Somebody".to_owned());
        let request = RegistrationRequest { email: email.clone(), name, password: password() };
        auth.register(request, Origin::default()).await.unwrap();
        let tokens = auth.login(&email, password(), Origin::default()).await.unwrap();
        let access_token = tokens.access_token.expose_secret().to_owned();
        let caller = auth.authenticate(&access_token, Origin::default()).await.unwrap();
        let request = ApiKeyRequest {
            name: "key".to_owned(),
            scopes: [Scope::Read].into_iter().collect(),
            expires_at: None,
            once: None,
        };
        let (_, secret) = auth.create_api_key(&caller, request).await.unwrap();
        let api_key = secret.expose().to_owned();
        // Its owner is known from its first use on.
        auth.authenticate(&api_key, Origin::default()).await.unwrap();
        Self { access_token, api_key }
    }
}

/// One request, as far as the limits look at it.
struct Ask {
    request: TestRequest,
}

fn ask(method: Method, uri: &str, address: &str) -> Ask {
    let peer = SocketAddr::new(address.parse().unwrap(), 1234);
    Ask { request: TestRequest::with_uri(uri).method(method).peer_addr(peer) }
}

impl Ask {
    fn with(self, name: &'static str, value: &str) -> Self {
        Self { request: self.request.insert_header((name, value)) }
    }

    fn bearing(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }
}

/// The application with these limits; answers each request with its status and its headers about limits.
async fn application_with(
    limits: RateLimits,
    auth: &Arc<Auth>,
    trusted: &[&str],
) -> impl AsyncFn(Ask) -> (u16, Option<String>, Option<String>) + use<> {
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    let gate = web::Data::new(Gate::new(Arc::clone(auth), limits, 100, trusted));
    let document = web::Data::new(document());
    let app = init_service(application(&ROUTES).app_data(gate).app_data(document)).await;
    async move |ask: Ask| {
        let answered = app.call(ask.request.to_request()).await.unwrap();
        let header =
            |name| answered.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
        (answered.status().as_u16(), header(RATE_LIMIT_POLICY), header(RATE_LIMIT))
    }
}

/// How many requests of a kind are admitted, one after the other.
async fn n_admitted(
    answer: &impl AsyncFn(Ask) -> (u16, Option<String>, Option<String>),
    make: impl Fn() -> Ask,
) -> usize {
    for n_admitted in 0..10 {
        if answer(make()).await.0 == 429 {
            return n_admitted;
        }
    }
    panic!("there is no limit");
}

#[actix_web::test]
async fn each_tier_has_its_own_limit_and_every_answer_tells_it() {
    let answer = application_with(small(), &auth(), &[]).await;
    for (method, uri, name, n_requests) in [
        (Method::POST, LOGIN, "auth", 2),
        (Method::POST, "/api/v1/things", "write", 3),
        (Method::GET, READ, "read", 4),
        (Method::GET, "/health/live", "health", 5),
    ] {
        for n_left in (0..n_requests).rev() {
            let (status, policy, left) = answer(ask(method.clone(), uri, "192.0.2.1")).await;
            assert_ne!(status, 429, "{uri}");
            assert_eq!(policy.unwrap(), format!("\"{name}\";q={n_requests};w=3600"));
            let full_after = (n_requests - n_left) * 3600 / n_requests;
            assert_eq!(left.unwrap(), format!("\"{name}\";r={n_left};t={full_after}"));
        }
        let (status, policy, left) = answer(ask(method, uri, "192.0.2.1")).await;
        assert_eq!(status, 429, "{uri}");
        assert_eq!(policy.unwrap(), format!("\"{name}\";q={n_requests};w=3600"));
        assert!(left.unwrap().starts_with(&format!("\"{name}\";r=0;t=")));
    }
}

#[actix_web::test]
async fn a_refusal_is_a_problem_that_says_when_to_come_back() {
    let gate = web::Data::new(Gate::new(auth(), small(), 100, Vec::new()));
    let app = init_service(application(&ROUTES).app_data(gate)).await;
    let request =
        || ask(Method::POST, LOGIN, "192.0.2.1").with("x-request-id", "mine-1").request.to_request();
    for _ in 0..2 {
        app.call(request()).await.unwrap();
    }
    let refused = app.call(request()).await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers().get("content-type").unwrap(), "application/problem+json");
    assert_eq!(refused.headers().get("x-content-type-options").unwrap(), "nosniff");
    let retry_after: u64 = refused.headers().get("retry-after").unwrap().to_str().unwrap().parse().unwrap();
    assert!((1790..=1800).contains(&retry_after), "{retry_after}");
    let body: Value = serde_json::from_slice(&to_bytes(refused.into_body()).await.unwrap()).unwrap();
    assert_eq!((&body["type"], &body["instance"]), (&"/problems/rate-limited".into(), &"mine-1".into()));
    assert_eq!(body["detail"], "more than 2/h: wait before the next request");
}

#[actix_web::test]
async fn what_is_off_is_neither_limited_nor_told() {
    let answer = application_with(RateLimits { read: None, ..small() }, &auth(), &[]).await;
    for _ in 0..50 {
        assert_eq!(answer(ask(Method::GET, READ, "192.0.2.1")).await, (200, None, None));
    }
    assert_eq!(n_admitted(&answer, || ask(Method::POST, LOGIN, "192.0.2.1")).await, 2);
}

#[actix_web::test]
async fn an_account_has_one_limit_wherever_it_asks_from_and_with_whatever_it_shows() {
    let auth = auth();
    let (ada, eve) = (
        Person::registered(&auth, "ada@example.org").await,
        Person::registered(&auth, "eve@example.org").await,
    );
    let answer = application_with(small(), &auth, &[]).await;
    let get = |address| ask(Method::GET, READ, address);
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(answer(get(address).bearing(&ada.access_token)).await.0, 200);
        assert_eq!(answer(get(address).bearing(&ada.api_key)).await.0, 200);
    }
    assert_eq!(answer(get("192.0.2.3").bearing(&ada.access_token)).await.0, 429);
    assert_eq!(answer(get("192.0.2.3").bearing(&ada.api_key)).await.0, 429);
    assert_eq!(answer(get("192.0.2.1").bearing(&eve.access_token)).await.0, 200, "another account");
    assert_eq!(n_admitted(&answer, || get("192.0.2.1")).await, 4, "the address has its own");
}

#[actix_web::test]
async fn a_token_that_is_not_ours_gives_no_limit_of_its_own() {
    let auth = auth();
    let stranger = Person::registered(&self::auth(), "eve@example.org").await;
    let answer = application_with(small(), &auth, &[]).await;
    let get = |token: &str| ask(Method::GET, READ, "192.0.2.1").bearing(token);
    for token in [&stranger.access_token, &stranger.api_key, "v4.local.AAAA", "nonsense"] {
        assert_eq!(answer(get(token)).await.0, 200);
    }
    assert_eq!(answer(ask(Method::GET, READ, "192.0.2.1")).await.0, 429);
}

#[actix_web::test]
async fn logins_are_limited_by_network_and_password_changes_by_account() {
    let auth = auth();
    let (ada, eve) = (
        Person::registered(&auth, "ada@example.org").await,
        Person::registered(&auth, "eve@example.org").await,
    );
    let answer = application_with(small(), &auth, &[]).await;
    for token in [&ada.access_token, &eve.access_token] {
        assert_ne!(answer(ask(Method::POST, LOGIN, "192.0.2.1").bearing(token)).await.0, 429);
    }
    assert_eq!(answer(ask(Method::POST, "/api/v1/auth/refresh", "192.0.2.1").bearing("x")).await.0, 429);
    let change = |address| ask(Method::PUT, "/api/v1/auth/password", address).bearing(&ada.access_token);
    assert_ne!(answer(change("192.0.2.1")).await.0, 429);
    assert_ne!(answer(change("192.0.2.2")).await.0, 429);
    assert_eq!(answer(change("192.0.2.3")).await.0, 429);
}

#[actix_web::test]
async fn another_spelling_of_a_path_is_no_way_around_a_limit() {
    let answer = application_with(small(), &auth(), &[]).await;
    for uri in [LOGIN, "/api/v1/auth/%6Cogin"] {
        let (_, policy, _) = answer(ask(Method::POST, uri, "192.0.2.1")).await;
        assert!(policy.unwrap().starts_with("\"auth\";"), "{uri}");
    }
    assert_eq!(answer(ask(Method::POST, "/api/v1/%61uth/login", "192.0.2.1")).await.0, 429);
    // What no route takes is limited as well.
    assert_eq!(n_admitted(&answer, || ask(Method::GET, "/nowhere", "192.0.2.1")).await, 4);
    assert_eq!(n_admitted(&answer, || ask(Method::POST, "/api/v1/auth//login", "192.0.2.1")).await, 3);
}

#[actix_web::test]
async fn an_address_is_believed_from_trusted_proxies_only() {
    let auth = auth();
    let from = |client: u8| {
        ask(Method::POST, LOGIN, "10.0.0.1").with("x-forwarded-for", &format!("192.0.2.{client}"))
    };
    let answer = application_with(small(), &auth, &["10.0.0.0/8"]).await;
    for client in 1..20 {
        assert_ne!(answer(from(client)).await.0, 429, "each client has its own");
    }
    let answer = application_with(small(), &auth, &[]).await;
    assert_ne!(answer(from(1)).await.0, 429);
    assert_ne!(answer(from(2)).await.0, 429);
    assert_eq!(answer(from(3)).await.0, 429, "an untrusted peer cannot make up addresses");
}

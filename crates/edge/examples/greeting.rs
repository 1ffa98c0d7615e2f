//! A server with one endpoint, for everyone who has an account: limited, authenticated, documented.
//!
//! Run it with `cargo run -p gathering-edge --example greeting`. It asks itself twice, without and with a token.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::web::ServiceConfig;
use gathering_auth::testing::MemoryAccounts;
use gathering_auth::{Auth, AuthSettings, KeyRing, Origin, PasswordSettings, RegistrationRequest};
use gathering_domain::{ExposeSecret, Secret};
use gathering_edge::caller::Authenticated;
use gathering_edge::gate::Gate;
use gathering_edge::limits::{RateLimits, Tier};
use gathering_edge::metrics::Metrics;
use gathering_edge::openapi::Document;
use gathering_edge::readiness::Readiness;
use gathering_edge::route::{Access, BodyLimit, Description, Route};
use gathering_edge::server::{EdgeServices, Server, ServerSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Greets a person who has an account.
#[utoipa::path(get, path = "/greeting", tag = "greetings", responses((status = 200, body = String)))]
async fn greet(caller: Authenticated) -> String {
    format!("hello, {}", caller.0.user)
}

static ROUTES: &[Route] = &[Route {
    method: Method::GET,
    path: "/greeting",
    access: Access::Account,
    tier: Tier::Read,
    body: BodyLimit::None,
    handler: |resource| resource.to(greet),
    describe: Description::of::<__path_greet>,
}];

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The least cost that bcrypt allows, as this is an example.
    let settings = AuthSettings {
        passwords: PasswordSettings { cost: 4, ..PasswordSettings::default() },
        ..AuthSettings::default()
    };
    let auth = Arc::new(Auth::new(Arc::new(MemoryAccounts::new()), KeyRing::generate()?, settings)?);
    let edge = EdgeServices {
        gate: Gate::new(Arc::clone(&auth), RateLimits::default(), 1000, Vec::new()),
        document: Document::of(utoipa::openapi::OpenApi::default(), ROUTES)?,
        readiness: Readiness::default(),
        metrics: Metrics::install()?,
    };
    let settings = ServerSettings { bind: "127.0.0.1:0".parse()?, grace: Duration::from_secs(5) };
    let services = actix_web::web::Data::from(Arc::clone(&auth));
    let services = move |app: &mut ServiceConfig| {
        app.app_data(services.clone());
    };
    let server = Server::start(ROUTES, services, edge, settings)?;

    let password = || Secret::from("correct horse");
    let (email, name) = ("ada@example.org".to_owned(), "Ada".to_owned());
    let request = RegistrationRequest { email: email.clone(), name, password: password() };
    auth.register(request, Origin::default()).await?;
    let tokens = auth.login(&email, password(), Origin::default()).await?;

    for token in ["nonsense", tokens.access_token.expose_secret()] {
        let mut socket = TcpStream::connect(server.address()).await?;
        let request = format!(
            "GET /greeting HTTP/1.1\r\nhost: example\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        println!("{}", answer.lines().next().unwrap_or_default());
        println!("{}", answer.lines().last().unwrap_or_default());
    }
    server.stop().await?;
    Ok(())
}

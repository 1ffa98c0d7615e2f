//! The application and the server: routes, limits, listening and stopping.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse, fn_service};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use utoipa_actix_web::AppExt as _;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::http::api::{
    api_keys, audit, auth, budgets, files, health, members, metrics, pipelines, projects, runs, stream,
    system, users,
};
use crate::http::edge::connections::Connections;
use crate::http::edge::envelope::envelope;
use crate::http::edge::limits::{Limits, limit};
use crate::http::edge::openapi;
use crate::http::edge::problem::Problem;
use crate::http::state::AppState;

/// A client must have sent a request's head within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection is kept for longer than common load balancers keep theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a connection may be without a request, whatever arrives on it: what the two above leave open for every request
/// but the first.
const PAUSE: Duration = KEEP_ALIVE.saturating_add(HEAD_TIMEOUT);
/// A client that does not close its half of a connection is cut off after this.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most connections of one worker.
const MAX_CONNECTIONS: usize = 10_000;

/// Every route. The OpenAPI document is made of the same list.
pub(crate) fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(health::live)
        .service(health::ready)
        .service(health::health)
        .service(metrics::metrics_text)
        .service(openapi::openapi_json);
    let api = utoipa_actix_web::scope("/api/v1")
        .service(auth::register)
        .service(auth::login)
        .service(auth::refresh)
        .service(auth::logout)
        .service(auth::me)
        .service(auth::change_password)
        .service(api_keys::create)
        .service(api_keys::list)
        .service(api_keys::revoke)
        .service(users::list)
        .service(users::change)
        .service(audit::list)
        .service(projects::create)
        .service(projects::list)
        .service(projects::show)
        .service(projects::change)
        .service(projects::delete)
        .service(members::list)
        .service(members::put)
        .service(members::remove)
        .service(budgets::show)
        .service(budgets::put)
        .service(files::list)
        .service(files::show)
        .service(files::put)
        .service(files::delete)
        .service(pipelines::validate)
        .service(pipelines::create)
        .service(pipelines::list)
        .service(pipelines::show)
        .service(pipelines::change::change)
        .service(pipelines::change::delete)
        .service(pipelines::versions::list)
        .service(runs::start::start)
        .service(runs::list)
        .service(runs::show)
        .service(runs::cancel)
        .service(runs::journal)
        .service(runs::rerun::rerun)
        .service(runs::decide::decide)
        .service(runs::top_up::top_up)
        .service(stream::stream)
        .service(system::instances);
    config.service(api);
}

/// The application, but for its state and [`Limits`].
pub(crate) fn application() -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(web::PathConfig::default().error_handler(|_, _| Problem::not_found().into()))
        .wrap(from_fn(limit))
        .wrap(from_fn(envelope))
        .into_utoipa_app()
        .configure(routes)
        .default_service(fn_service(openapi::nothing_here))
        .into_app()
}

/// What a server is told once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerSettings {
    /// Where to listen; port 0 takes a free one.
    pub(crate) bind: SocketAddr,
    /// How long requests may take to finish once it stops.
    pub(crate) grace: Duration,
}

/// A server that listens.
pub(crate) struct Server {
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
    /// Watches the connections until the guard is dropped.
    watching: (DropGuard, JoinHandle<()>),
    address: SocketAddr,
}

impl Server {
    /// Binds and begins to answer.
    ///
    /// # Errors
    /// If the address cannot be bound; nothing is left running.
    pub(crate) fn start(
        state: web::Data<AppState>,
        limits: web::Data<Limits>,
        settings: ServerSettings,
    ) -> std::io::Result<Self> {
        let connections = Connections::new(PAUSE);
        let registering = connections.clone();
        let http = HttpServer::new(move || application().app_data(state.clone()).app_data(limits.clone()))
            .on_connect(move |connection, data| registering.register(connection, data))
            .disable_signals()
            .shutdown_timeout(settings.grace.as_secs())
            .client_request_timeout(HEAD_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .keep_alive(KEEP_ALIVE)
            // An answer goes out at once, and an event of a stream too.
            .tcp_nodelay(true)
            .max_connections(MAX_CONNECTIONS)
            .bind(settings.bind)?;
        let address = http.addrs().first().copied().unwrap_or(settings.bind);
        let server = http.run();
        let handle = server.handle();
        let stop = CancellationToken::new();
        let watching = tokio::spawn(connections.run(stop.clone()));
        Ok(Self { handle, task: tokio::spawn(server), watching: (stop.drop_guard(), watching), address })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its handle, to stop it at once while [`Server::stop`] waits.
    pub(crate) fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Ends when the server does, which it only does by itself when it cannot go on.
    ///
    /// # Errors
    /// Why it ended.
    pub(crate) async fn ended(&mut self) -> std::io::Result<()> {
        (&mut self.task).await.map_err(std::io::Error::other)?
    }

    /// Accepts nothing more, and waits for the requests in flight until the grace period is over.
    ///
    /// # Errors
    /// If the server ended badly.
    pub(crate) async fn stop(self) -> std::io::Result<()> {
        self.handle.stop(true).await;
        let ended = self.task.await.map_err(std::io::Error::other).flatten();
        let (stop, watching) = self.watching;
        drop(stop);
        watching.await.map_err(std::io::Error::other)?;
        ended
    }
}

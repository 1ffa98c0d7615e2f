//! The application and the server: routes, limits, listening and stopping.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse, fn_service};
use actix_web::middleware::from_fn;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer, guard, web};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connections::Connections;
use crate::envelope::envelope;
use crate::gate::{Gate, gate};
use crate::metrics::Metrics;
use crate::openapi::Document;
use crate::problem::ProblemDetails;
use crate::readiness::Readiness;
use crate::route::{Route, RouteIndex};

/// A client must send the head of a request within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections stay open for longer than those of common load balancers.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// The longest time of a connection without a request, whatever arrives on it. The two limits above leave this open for
/// every request but the first.
const PAUSE: Duration = KEEP_ALIVE.saturating_add(HEAD_TIMEOUT);
/// A client that does not close its half of a connection is disconnected after this time.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of connections of one worker.
const MAX_CONNECTIONS: usize = 10_000;

/// The application with these routes, but without the services that the handlers use and without the [`Gate`].
pub fn application(
    routes: &'static [Route],
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    let app = App::new()
        .app_data(web::PathConfig::default().error_handler(|_, _| ProblemDetails::not_found().into()))
        .app_data(web::Data::new(RouteIndex::of(routes)))
        .wrap(from_fn(gate))
        .wrap(from_fn(envelope))
        .default_service(fn_service(unmatched));
    routes.iter().fold(app, |app, route| {
        let resource = web::resource(route.path).guard(guard::Method(route.method.clone()));
        app.service((route.handler)(resource))
    })
}

/// Answers a request that matches no route: 405 where the path has other methods, else 404.
async fn unmatched(request: ServiceRequest) -> Result<ServiceResponse, actix_web::Error> {
    let index = request.app_data::<web::Data<RouteIndex>>();
    let methods = index.map(|index| index.methods(&request)).unwrap_or_default();
    let problem = match methods.as_slice() {
        [] => ProblemDetails::not_found(),
        methods => ProblemDetails::method_not_allowed(&methods.join(", ")),
    };
    Ok(request.error_response(problem))
}

/// The settings of the server.
#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// The address to listen on; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The time that requests in flight have to finish after a stop.
    pub grace: Duration,
}

/// What the layers in front of the handlers use; the handlers may ask for it too.
pub struct EdgeServices {
    /// Limits and authenticates.
    pub gate: Gate,
    /// Describes the routes.
    pub document: Document,
    /// Says when to send requests elsewhere.
    pub readiness: Readiness,
    /// Counts the answers.
    pub metrics: Metrics,
}

/// A running server.
pub struct Server {
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
    /// Watches the connections until the guard is dropped.
    watching: (DropGuard, JoinHandle<()>),
    address: SocketAddr,
}

impl Server {
    /// Binds the address and starts to answer requests to `routes`. `services` adds what their handlers use; it is called
    /// by each worker.
    ///
    /// # Errors
    /// If the address cannot be bound; nothing is left running.
    pub fn start(
        routes: &'static [Route],
        services: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
        edge: EdgeServices,
        settings: ServerSettings,
    ) -> std::io::Result<Self> {
        let connections = Connections::new(PAUSE);
        let registering = connections.clone();
        let gate = web::Data::new(edge.gate);
        let document = web::Data::new(edge.document);
        let readiness = web::Data::new(edge.readiness);
        let metrics = web::Data::new(edge.metrics);
        let services = move || {
            application(routes)
                .app_data(gate.clone())
                .app_data(document.clone())
                .app_data(readiness.clone())
                .app_data(metrics.clone())
                .configure(services.clone())
        };
        let http = HttpServer::new(services)
            .on_connect(move |connection, data| registering.register(connection, data))
            .disable_signals()
            .shutdown_timeout(settings.grace.as_secs())
            .client_request_timeout(HEAD_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .keep_alive(KEEP_ALIVE)
            // Answers and events of streams go out at once.
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

    /// The address that it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle to stop the server at once while [`Server::stop`] waits.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Ends when the server does; by itself the server ends only when it cannot continue.
    ///
    /// # Errors
    /// The reason.
    pub async fn ended(&mut self) -> std::io::Result<()> {
        (&mut self.task).await.map_err(std::io::Error::other)?
    }

    /// Stops to accept requests, and waits for those in flight until the grace period is over.
    ///
    /// # Errors
    /// If the server failed.
    pub async fn stop(self) -> std::io::Result<()> {
        self.handle.stop(true).await;
        let ended = self.task.await.map_err(std::io::Error::other).flatten();
        let (stop, watching) = self.watching;
        drop(stop);
        watching.await.map_err(std::io::Error::other)?;
        ended
    }
}

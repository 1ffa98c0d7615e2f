//! Health: whether the process is alive, whether it accepts requests, and the state of its parts.

use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use gathering_control::ControlError;
use gathering_persistence::Pool;
use gathering_scheduler::{ZoneData, ZoneSource};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::services::Identities;
use gathering_edge::problem::ProblemDetails;
use gathering_edge::readiness::Readiness;

/// A database that takes longer than this to answer a ping counts as unavailable.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The process is alive.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LiveView {
    /// Always `live`.
    status: &'static str,
}

/// The state of the server and its parts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthView {
    /// `ready`, `draining` or `unavailable`.
    status: &'static str,
    /// The version of the program.
    version: &'static str,
    /// The instance id of this process.
    instance_id: Uuid,
    /// The parts of the server.
    components: ComponentsView,
}

/// The parts of a server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComponentsView {
    /// The database, as this process sees it.
    database: DatabaseView,
    /// The runs of this instance.
    runs: RunsView,
    /// The rules of the time zones, by which this instance fires schedules.
    time_zones: TimeZonesView,
}

/// The rules of the time zones.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TimeZonesView {
    /// The version of the IANA database, such as `2026f`.
    version: &'static str,
    /// `system` or `bundled`, whichever is newer.
    source: &'static str,
}

/// The runs of this instance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunsView {
    /// The number of runs that this instance drives now.
    driven: usize,
    /// `false` while the instance has no liveness lock and so executes nothing.
    is_alive: bool,
}

/// The database, as this process sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatabaseView {
    /// `up` or `down`.
    status: &'static str,
    /// The time that the ping took, in milliseconds.
    duration_ms: u64,
    /// The number of open connections.
    open_connections: usize,
    /// The size of the connection pool.
    max_connections: usize,
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/health/live", tag = "health", operation_id = "health_live", responses((status = 200, body = LiveView)))]
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(LiveView { status: "live" })
}

/// Whether this instance accepts requests.
#[utoipa::path(get, path = "/health/ready", tag = "health", operation_id = "health_ready", responses(
    (status = 200, body = HealthView),
    (status = 503, description = "The server is shutting down, or the database is unavailable"),
))]
pub(crate) async fn ready(
    readiness: web::Data<Readiness>,
    pool: web::Data<Pool>,
    identities: web::Data<Identities>,
) -> Result<HttpResponse, ProblemDetails> {
    // Without a query: a load balancer must learn it at once.
    readiness.check()?;
    let (database, outcome) = database(&pool).await;
    outcome?;
    Ok(HttpResponse::Ok().json(view(&identities, "ready", database)))
}

/// The state of the server and its parts.
#[utoipa::path(get, path = "/health", tag = "health", operation_id = "health", responses(
    (status = 200, body = HealthView),
    (status = 503, description = "The server is shutting down, or the database is unavailable", body = HealthView),
))]
pub(crate) async fn health(
    readiness: web::Data<Readiness>,
    pool: web::Data<Pool>,
    identities: web::Data<Identities>,
) -> HttpResponse {
    let (database, outcome) = database(&pool).await;
    let status = match (&outcome, readiness.is_draining()) {
        (_, true) => "draining",
        (Ok(()), false) => "ready",
        (Err(_), false) => "unavailable",
    };
    let mut answer = if status == "ready" { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(view(&identities, status, database))
}

fn view(identities: &Identities, status: &'static str, database: DatabaseView) -> HealthView {
    let identity = identities.borrow().clone();
    let is_alive = !identity.fence.is_cancelled();
    HealthView {
        status,
        version: env!("CARGO_PKG_VERSION"),
        instance_id: identity.id.as_uuid(),
        components: ComponentsView {
            database,
            runs: RunsView { driven: identity.runner.n_driven(), is_alive },
            time_zones: time_zones(),
        },
    }
}

fn time_zones() -> TimeZonesView {
    let zones = ZoneData::current();
    let source = match zones.source() {
        ZoneSource::Bundled => "bundled",
        ZoneSource::Directory(_) => "system",
    };
    TimeZonesView { version: zones.version(), source }
}

async fn database(pool: &Pool) -> (DatabaseView, Result<(), ControlError>) {
    let begun = Instant::now();
    let outcome = match tokio::time::timeout(PING_TIMEOUT, pool.ping()).await {
        Ok(pinged) => pinged.map_err(ControlError::from),
        Err(elapsed) => Err(ControlError::Unavailable(elapsed.into())),
    };
    let status = pool.status();
    let view = DatabaseView {
        status: if outcome.is_ok() { "up" } else { "down" },
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        open_connections: status.n_open,
        max_connections: status.max_size,
    };
    (view, outcome)
}

//! Whether the process lives, whether requests should be sent to it, and how its parts are.

use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::edge::problem::{Kind, Problem, ProblemView};
use crate::http::state::AppState;

/// A database that takes longer for a sign of life is no use to a request either.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// A sign of life.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LiveView {
    /// `live`.
    status: &'static str,
}

/// How the server and its parts are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthView {
    /// `ready`, `draining` or `unavailable`.
    status: &'static str,
    /// Of this program.
    version: &'static str,
    /// This process among all.
    instance_id: Uuid,
    /// The parts.
    components: ComponentsView,
}

/// The parts of a server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComponentsView {
    /// The database, seen from here.
    database: DatabaseView,
    /// What is executed here.
    runs: RunsView,
}

/// What is executed here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunsView {
    /// Runs that this instance drives now.
    driven: usize,
    /// `false` while it has no proof of life, and so executes nothing.
    is_alive: bool,
}

/// The database, seen from here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatabaseView {
    /// `up` or `down`.
    status: &'static str,
    /// How long the sign of life took, in milliseconds.
    duration_ms: u64,
    /// Connections that are open.
    open_connections: usize,
    /// The most that may be.
    max_connections: usize,
}

/// Whether the process lives.
#[utoipa::path(get, path = "/health/live", tag = "health", operation_id = "health_live", responses((status = 200, body = LiveView)))]
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(LiveView { status: "live" })
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/health/ready", tag = "health", operation_id = "health_ready", responses(
    (status = 200, body = HealthView),
    (status = 503, description = "Draining, or the database is away", body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn ready(state: web::Data<AppState>) -> Result<HttpResponse, Problem> {
    // Said without asking anybody: a load balancer must learn it at once.
    if state.readiness.is_draining() {
        let draining =
            Problem::new(Kind::Draining, "this instance is shutting down; another one will answer");
        return Err(draining.retry_after(1));
    }
    let (database, outcome) = database(&state).await;
    outcome?;
    Ok(HttpResponse::Ok().json(view(&state, "ready", database)))
}

/// How the server and its parts are.
#[utoipa::path(get, path = "/health", tag = "health", operation_id = "health", responses(
    (status = 200, body = HealthView),
    (status = 503, description = "Draining, or the database is away", body = HealthView),
))]
pub(crate) async fn health(state: web::Data<AppState>) -> HttpResponse {
    let (database, outcome) = database(&state).await;
    let status = match (&outcome, state.readiness.is_draining()) {
        (_, true) => "draining",
        (Ok(()), false) => "ready",
        (Err(_), false) => "unavailable",
    };
    let mut answer = if status == "ready" { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(view(&state, status, database))
}

fn view(state: &AppState, status: &'static str, database: DatabaseView) -> HealthView {
    let identity = state.identities.borrow().clone();
    let is_alive = !identity.fence.is_cancelled();
    HealthView {
        status,
        version: env!("CARGO_PKG_VERSION"),
        instance_id: identity.id.as_uuid(),
        components: ComponentsView {
            database,
            runs: RunsView { driven: identity.runner.n_driven(), is_alive },
        },
    }
}

async fn database(state: &AppState) -> (DatabaseView, Result<(), Problem>) {
    let begun = Instant::now();
    let outcome = match tokio::time::timeout(PING_TIMEOUT, state.pool.ping()).await {
        Ok(pinged) => pinged.map_err(Problem::from),
        Err(elapsed) => Err(Problem::unavailable(elapsed)),
    };
    let status = state.pool.status();
    let view = DatabaseView {
        status: if outcome.is_ok() { "up" } else { "down" },
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        open_connections: status.n_open,
        max_connections: status.max_size,
    };
    (view, outcome)
}

//! The metrics page, and what is measured when it is asked for.

use actix_web::{HttpResponse, web};
use gathering_auth::Auth;
use gathering_edge::metrics::Metrics;
use gathering_persistence::Pool;

use crate::http::services::Identities;

const PASSWORDS: &str = "gathering_passwords_computed_total";
const CONNECTIONS: &str = "gathering_db_connections";
const WAITING: &str = "gathering_db_waiting";
const RUNS_DRIVEN: &str = "gathering_runs_driven";

/// The metrics of this instance, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", operation_id = "metrics", responses(
    (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"),
))]
pub async fn metrics_text(
    metrics: web::Data<Metrics>,
    pool: web::Data<Pool>,
    auth: web::Data<Auth>,
    identities: web::Data<Identities>,
) -> HttpResponse {
    measure_state(&pool, &auth, &identities);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics.render())
}

/// Sets the gauges.
#[expect(clippy::cast_precision_loss, reason = "connections and runs are few")]
fn measure_state(pool: &Pool, auth: &Auth, identities: &Identities) {
    let pool = pool.status();
    let n_used = pool.n_open.saturating_sub(pool.n_free);
    let n_unopened = pool.max_size.saturating_sub(pool.n_open);
    for (label, n_connections) in [("used", n_used), ("free", pool.n_free), ("unopened", n_unopened)] {
        metrics::gauge!(CONNECTIONS, "state" => label).set(n_connections as f64);
    }
    metrics::gauge!(WAITING).set(pool.n_waiting as f64);
    metrics::counter!(PASSWORDS).absolute(auth.passwords().n_computed());
    metrics::gauge!(RUNS_DRIVEN).set(identities.borrow().runner.n_driven() as f64);
}

/// Describes these metrics to the recorder of the process.
pub(crate) fn describe() {
    metrics::describe_counter!(PASSWORDS, "Passwords that were hashed or verified.");
    metrics::describe_gauge!(
        CONNECTIONS,
        "Database connections of the pool: used, free, and not opened yet."
    );
    metrics::describe_gauge!(WAITING, "Requests and services that wait for a database connection.");
    metrics::describe_gauge!(RUNS_DRIVEN, "Runs that this instance drives.");
}

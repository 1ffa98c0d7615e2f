//! The instances of this installation, for admins.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::authorize_admin;
use gathering_domain::RunId;
use gathering_persistence::{InstanceRow, list_instances};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::edge::caller::Authenticated;
use crate::http::edge::page::Page;
use crate::http::edge::problem::{Problem, ProblemView};
use crate::http::state::AppState;

/// A process that executes runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub(crate) struct InstanceView {
    id: Uuid,
    /// The host that it runs on.
    hostname: String,
    /// Its process number there.
    pid: i32,
    /// Of its program.
    version: String,
    /// `active` or `draining`.
    state: String,
    started_at: DateTime<Utc>,
    /// Its last sign of life, of which there is one every ten seconds while it drives runs, else every thirty.
    heartbeat_at: DateTime<Utc>,
    /// Runs that it drives now.
    n_runs: i64,
    /// The first hundred of them by id.
    run_ids: Vec<Uuid>,
}

impl From<InstanceRow> for InstanceView {
    fn from(row: InstanceRow) -> Self {
        let InstanceRow { id, hostname, pid, version, state, started_at, heartbeat_at, n_runs, runs } = row;
        let run_ids = runs.into_iter().map(RunId::as_uuid).collect();
        Self { id: id.as_uuid(), hostname, pid, version, state, started_at, heartbeat_at, n_runs, run_ids }
    }
}

/// The instances that are alive, or died and are not yet recovered, the oldest first. For admins only.
#[utoipa::path(get, path = "/api/v1/system/instances", tag = "system", operation_id = "list_instances", responses(
    (status = 200, body = Page<InstanceView>),
    (status = 403, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn instances(
    state: web::Data<AppState>,
    caller: Authenticated,
) -> Result<HttpResponse, Problem> {
    authorize_admin(&caller.0)?;
    let rows = list_instances(&state.pool).await?;
    let items: Vec<InstanceView> = rows.into_iter().map(InstanceView::from).collect();
    Ok(HttpResponse::Ok().json(Page { items, next_cursor: None }))
}

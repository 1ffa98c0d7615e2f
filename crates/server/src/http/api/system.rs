//! The instances of this installation, for admins.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::ControlError;
use gathering_domain::RunId;
use gathering_persistence::{InstanceRow, Pool, list_instances};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::words::InstanceStateSchema;
use gathering_edge::page::Page;
use gathering_edge::problem::ProblemDetails;

/// A process that executes runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub(crate) struct InstanceView {
    id: Uuid,
    /// The host of the process.
    hostname: String,
    /// The process id on that host.
    pid: i32,
    /// The version of the program.
    version: String,
    #[schema(value_type = InstanceStateSchema)]
    state: String,
    started_at: DateTime<Utc>,
    /// The last heartbeat: every ten seconds while the instance drives runs, else every thirty.
    heartbeat_at: DateTime<Utc>,
    /// The number of runs that it drives now.
    n_runs: i64,
    /// Up to a hundred of these runs, by id.
    run_ids: Vec<Uuid>,
}

impl From<InstanceRow> for InstanceView {
    fn from(row: InstanceRow) -> Self {
        let InstanceRow { id, hostname, pid, version, state, started_at, heartbeat_at, n_runs, runs } = row;
        let run_ids = runs.into_iter().map(RunId::as_uuid).collect();
        Self { id: id.as_uuid(), hostname, pid, version, state, started_at, heartbeat_at, n_runs, run_ids }
    }
}

/// The live instances and the dead ones whose runs are not yet recovered, the oldest first. For admins only.
#[utoipa::path(get, path = "/api/v1/system/instances", tag = "system", operation_id = "list_instances", responses(
    (status = 200, body = Page<InstanceView>),
))]
pub(crate) async fn instances(pool: web::Data<Pool>) -> Result<HttpResponse, ProblemDetails> {
    let rows = list_instances(&pool).await.map_err(ControlError::from)?;
    let items: Vec<InstanceView> = rows.into_iter().map(InstanceView::from).collect();
    Ok(HttpResponse::Ok().json(Page { items, next_cursor: None }))
}

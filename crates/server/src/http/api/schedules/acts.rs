//! What a person does to a schedule: pause, resume, trigger, backfill.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{BackfillRange, RunControl, ScheduleControl, right};
use gathering_domain::ScheduleId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::view::ScheduleView;
use crate::http::api::run_view::RunView;
use crate::http::api::runs::accepted;
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::input::{self, Input};
use gathering_edge::problem::ProblemDetails;

/// A range of due times.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backfill {
    /// The first moment.
    from: DateTime<Utc>,
    /// The last moment; not in the future.
    to: DateTime<Utc>,
}

impl Input for Backfill {}

/// What a backfill has done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backfilled)]
pub(crate) struct BackfilledView {
    /// How many runs it has started. Due times that had fired before are not among them.
    started: usize,
}

/// Pauses a schedule: it fires no more until it is resumed. Its runs go on.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/pause", tag = "schedules", operation_id = "pause_schedule", params(("id" = Uuid, Path)), responses(
    (status = 200, body = ScheduleView),
))]
pub(crate) async fn pause(
    schedules: web::Data<ScheduleControl>,
    caller: Authenticated,
    id: web::Path<ScheduleId>,
) -> Result<HttpResponse, ProblemDetails> {
    let schedule = schedules.pause(&caller.0, *id).await?;
    Ok(HttpResponse::Ok().json(ScheduleView::whole(schedule)))
}

/// Resumes a schedule. What has become due meanwhile is entered in its ledger as skipped.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/resume", tag = "schedules", operation_id = "resume_schedule", params(("id" = Uuid, Path)), responses(
    (status = 200, body = ScheduleView),
))]
pub(crate) async fn resume(
    schedules: web::Data<ScheduleControl>,
    caller: Authenticated,
    id: web::Path<ScheduleId>,
) -> Result<HttpResponse, ProblemDetails> {
    let schedule = schedules.resume(&caller.0, *id).await?;
    Ok(HttpResponse::Ok().json(ScheduleView::whole(schedule)))
}

/// Fires a schedule now, also while it is paused and while earlier runs go on. Its due times stay as they are.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/trigger", tag = "schedules", operation_id = "trigger_schedule", params(("id" = Uuid, Path)), responses(
    (status = 202, body = RunView),
    (status = 409, description = "Its pipeline is disabled, or gone"),
))]
pub(crate) async fn trigger(
    schedules: web::Data<ScheduleControl>,
    runs: web::Data<RunControl>,
    caller: Authenticated,
    id: web::Path<ScheduleId>,
) -> Result<HttpResponse, ProblemDetails> {
    let run = schedules.trigger(&caller.0, *id).await?;
    let run = runs.find::<right::Read>(&caller.0, run).await?.into_thing();
    Ok(accepted(RunView::of(run)))
}

/// Fires every due time of a range that has not fired: at most 1,000. Each fires once, however often it is asked for.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/backfill", tag = "schedules", operation_id = "backfill_schedule", params(("id" = Uuid, Path)), request_body = Backfill, responses(
    (status = 202, body = BackfilledView),
    (status = 409, description = "Its pipeline is disabled, or gone"),
))]
pub(crate) async fn backfill(
    schedules: web::Data<ScheduleControl>,
    id: web::Path<ScheduleId>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let started = source.placing(async {
        let Backfill { from, to } = input::read(value)?;
        Ok(schedules.backfill(&caller, *id, BackfillRange { from, to }).await?)
    });
    Ok(HttpResponse::Accepted().json(BackfilledView { started: started.await? }))
}

//! Schedules: created, listed, shown, changed, deleted.

pub(crate) mod acts;
pub(crate) mod agenda;
mod days;
pub(crate) mod fires;
pub(crate) mod preview;
mod view;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{DefineSchedule, Schedule, ScheduleControl, SubmittedSchedule, right};
use gathering_domain::{ProjectId, ScheduleId};
use gathering_scheduler::{CatchUp, Overlap};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::words::{CatchUpSchema, OverlapSchema};
use days::{ScheduleDays, days_of};
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::idempotency::keyed_body;
use gathering_edge::input::{self, Input};
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use gathering_edge::values::{AnyObject, Word, one_line, one_line_or_null, trimmed, trimmed_or_null};
use view::ScheduleView;

const MAX_NAME: usize = 200;

/// What happens when runs of a schedule fail or time out.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnFailure {
    /// The fields of the action `send_notification`, which is done for each failure. Its input has `schedule`, `run` and
    /// `due_at`.
    #[schema(value_type = Option<AnyObject>, required = false)]
    notify: Option<Value>,
    /// The schedule pauses after so many failures in a row.
    #[schema(required = false, minimum = 1, maximum = 1_000_000)]
    pause_after: Option<u32>,
}

/// A schedule to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateSchedule {
    /// Absent: the caller's default project.
    #[schema(required = false)]
    project_id: Option<Uuid>,
    /// 1 to 200 characters.
    #[schema(schema_with = one_line::<MAX_NAME>)]
    #[serde(deserialize_with = "trimmed")]
    name: String,
    /// When it fires: `{type: "cron", expression, timezone?, dst?}`, `{type: "interval", seconds}`,
    /// `{type: "rrule", rule, start, timezone?}` or `{type: "once", at}`; or for which events:
    /// `{type: "event", event_type, when?}`.
    #[schema(value_type = AnyObject)]
    trigger: Value,
    /// What it starts: `{action: "execute_pipeline", pipeline_id, version?, input?}`, or `call_api` or `send_notification`
    /// with the fields of that action, and `retry` and `timeout_seconds`.
    #[schema(value_type = AnyObject)]
    action: Value,
    /// Days on which it does not fire, on the clocks of the trigger's time zone.
    #[schema(value_type = Option<ScheduleDays>, required = false)]
    except: Option<Value>,
    /// The only days on which it fires.
    #[schema(value_type = Option<ScheduleDays>, required = false)]
    only: Option<Value>,
    /// What happens to due times that passed while nothing fired: `latest` by default, and `all` for events.
    #[schema(value_type = Option<CatchUpSchema>, required = false)]
    catch_up: Option<Word<CatchUp>>,
    /// What happens at a due time while an earlier run has not ended: `skip` by default, and `allow` for events.
    #[schema(value_type = Option<OverlapSchema>, required = false)]
    overlap: Option<Word<Overlap>>,
    /// Each fire is delayed by a part of so many seconds, always the same for one due time.
    #[schema(required = false, minimum = 0, maximum = 86_400, default = 0)]
    jitter_seconds: Option<u32>,
    /// No due time is before. An interval counts from here.
    #[schema(required = false)]
    start_at: Option<DateTime<Utc>>,
    /// No due time is after.
    #[schema(required = false)]
    end_at: Option<DateTime<Utc>>,
    /// It ends after so many fires.
    #[schema(required = false, minimum = 1, maximum = 2_147_483_647)]
    max_fires: Option<u32>,
    /// What happens when its runs fail.
    #[schema(required = false)]
    on_failure: Option<OnFailure>,
    /// Whether it fires.
    #[schema(required = false, default = true)]
    enabled: Option<bool>,
}

impl Input for CreateSchedule {}

/// What to change of a schedule; what is absent stays, and null takes a bound away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeSchedule {
    /// 1 to 200 characters.
    #[schema(schema_with = one_line_or_null::<MAX_NAME>, required = false)]
    #[serde(default, deserialize_with = "trimmed_or_null")]
    name: Option<String>,
    /// Another trigger counts due times anew from now, or events. From due times to events, and back, the policies become
    /// those of the default.
    #[schema(value_type = Option<AnyObject>, required = false)]
    trigger: Option<Value>,
    /// What it starts.
    #[schema(value_type = Option<AnyObject>, required = false)]
    action: Option<Value>,
    /// Days on which it does not fire.
    #[schema(value_type = Option<ScheduleDays>, required = false)]
    except: Option<Value>,
    /// The only days on which it fires.
    #[schema(value_type = Option<ScheduleDays>, required = false)]
    only: Option<Value>,
    /// What happens to due times that passed while nothing fired.
    #[schema(value_type = Option<CatchUpSchema>, required = false)]
    catch_up: Option<Word<CatchUp>>,
    /// What happens at a due time while an earlier run has not ended.
    #[schema(value_type = Option<OverlapSchema>, required = false)]
    overlap: Option<Word<Overlap>>,
    /// Each fire is delayed by a part of so many seconds.
    #[schema(required = false, minimum = 0, maximum = 86_400)]
    jitter_seconds: Option<u32>,
    /// No due time is before.
    #[schema(required = false)]
    start_at: Option<DateTime<Utc>>,
    /// No due time is after.
    #[schema(required = false)]
    end_at: Option<DateTime<Utc>>,
    /// It ends after so many fires.
    #[schema(required = false, minimum = 1, maximum = 2_147_483_647)]
    max_fires: Option<u32>,
    /// What happens when its runs fail.
    #[schema(required = false)]
    on_failure: Option<OnFailure>,
    /// False pauses it.
    #[schema(required = false)]
    enabled: Option<bool>,
}

impl Input for ChangeSchedule {}

impl ChangeSchedule {
    /// The schedule as the change makes it. `sent` tells null from absent.
    fn of(&self, schedule: &Schedule, sent: &Map<String, Value>) -> SubmittedSchedule {
        let mut changed = SubmittedSchedule::of(schedule);
        changed.name = self.name.clone().unwrap_or(changed.name);
        if let Some(trigger) = &self.trigger {
            changed.set_trigger(trigger.clone());
        }
        changed.action = self.action.clone().unwrap_or(changed.action);
        changed.catch_up = self.catch_up.map(|Word(word)| word).or(changed.catch_up);
        changed.overlap = self.overlap.map(|Word(word)| word).or(changed.overlap);
        changed.jitter_seconds = self.jitter_seconds.unwrap_or(changed.jitter_seconds);
        changed.enabled = self.enabled.unwrap_or(changed.enabled);
        for (field, days) in [("except", &self.except), ("only", &self.only)] {
            match days {
                Some(days) => drop(changed.days.insert(field.to_owned(), days.clone())),
                None if sent.contains_key(field) => drop(changed.days.shift_remove(field)),
                None => {}
            }
        }
        if sent.contains_key("start_at") {
            changed.start_at = self.start_at;
        }
        if sent.contains_key("end_at") {
            changed.end_at = self.end_at;
        }
        if sent.contains_key("max_fires") {
            changed.max_fires = self.max_fires;
        }
        if sent.contains_key("on_failure") {
            let OnFailure { notify, pause_after } = self.on_failure.clone().unwrap_or_default();
            (changed.notify, changed.pause_after) = (notify, pause_after);
        }
        changed
    }
}

/// Which schedules to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListSchedules {
    /// Only of this project.
    project_id: Option<Uuid>,
}

/// Creates a schedule. A wrong one is refused with everything that is wrong with it, and nothing is stored.
#[utoipa::path(post, path = "/api/v1/schedules", tag = "schedules", operation_id = "create_schedule", params(
    ("Idempotency-Key" = Option<String>, Header, description = "For 24 hours the same key and body answer the same schedule"),
), request_body = CreateSchedule, responses(
    (status = 201, body = ScheduleView),
    (status = 404, description = "No such project"),
    (status = 409, description = "The key was used for another request, or what it created was deleted"),
))]
pub(crate) async fn create(
    schedules: web::Data<ScheduleControl>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let schedule = source.placing(async {
        let create: CreateSchedule = input::read(value)?;
        let OnFailure { notify, pause_after } = create.on_failure.unwrap_or_default();
        let defaults = SubmittedSchedule::new(create.name, create.trigger, create.action);
        let schedule = SubmittedSchedule {
            days: days_of([("except", create.except), ("only", create.only)]),
            catch_up: create.catch_up.map(|Word(word)| word),
            overlap: create.overlap.map(|Word(word)| word),
            jitter_seconds: create.jitter_seconds.unwrap_or_default(),
            start_at: create.start_at,
            end_at: create.end_at,
            max_fires: create.max_fires,
            notify,
            pause_after,
            enabled: create.enabled.unwrap_or(true),
            ..defaults
        };
        let project = create.project_id.map(ProjectId::from);
        Ok(schedules.define(&caller, DefineSchedule { project, schedule, once }).await?)
    });
    let schedule = schedule.await?;
    let location = format!("/api/v1/schedules/{}", schedule.id);
    Ok(HttpResponse::Created().insert_header(("location", location)).json(ScheduleView::whole(schedule)))
}

/// The schedules that the caller may see, the newest first.
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules", operation_id = "list_schedules", params(ListSchedules, PageQuery), responses(
    (status = 200, body = Page<ScheduleView>),
))]
pub(crate) async fn list(
    schedules: web::Data<ScheduleControl>,
    caller: Authenticated,
    query: Query<ListSchedules>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::SCHEDULES)?;
    let project = query.project_id.map(ProjectId::from);
    let rows = schedules.list(&caller.0, project, page.after(), page.n_rows()).await?;
    Ok(HttpResponse::Ok().json(page.of(rows, |schedule| schedule.id.as_uuid(), ScheduleView::in_list)))
}

/// One schedule, with its next due times.
#[utoipa::path(get, path = "/api/v1/schedules/{id}", tag = "schedules", operation_id = "get_schedule", params(("id" = Uuid, Path)), responses(
    (status = 200, body = ScheduleView),
))]
pub(crate) async fn show(
    schedules: web::Data<ScheduleControl>,
    caller: Authenticated,
    id: web::Path<ScheduleId>,
) -> Result<HttpResponse, ProblemDetails> {
    let schedule = schedules.find::<right::Read>(&caller.0, *id).await?.into_thing();
    Ok(HttpResponse::Ok().json(ScheduleView::whole(schedule)))
}

/// Changes a schedule. What has been entered in its ledger stays.
#[utoipa::path(patch, path = "/api/v1/schedules/{id}", tag = "schedules", operation_id = "change_schedule", params(("id" = Uuid, Path)), request_body = ChangeSchedule, responses(
    (status = 200, body = ScheduleView),
))]
pub(crate) async fn change(
    schedules: web::Data<ScheduleControl>,
    id: web::Path<ScheduleId>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let sent = value.as_object().cloned().unwrap_or_default();
    let schedule = source.placing(async {
        let change: ChangeSchedule = input::read(value)?;
        Ok(schedules.change(&caller, *id, |schedule| change.of(schedule, &sent)).await?)
    });
    Ok(HttpResponse::Ok().json(ScheduleView::whole(schedule.await?)))
}

/// Deletes a schedule with its ledger. Its runs stay.
#[utoipa::path(delete, path = "/api/v1/schedules/{id}", tag = "schedules", operation_id = "delete_schedule", params(("id" = Uuid, Path)), responses(
    (status = 204, description = "It is gone"),
))]
pub(crate) async fn delete(
    schedules: web::Data<ScheduleControl>,
    caller: Authenticated,
    id: web::Path<ScheduleId>,
) -> Result<HttpResponse, ProblemDetails> {
    schedules.delete(&caller.0, *id).await?;
    Ok(HttpResponse::NoContent().finish())
}

//! The due times of a trigger, without a schedule.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, FixedOffset, Utc};
use gathering_auth::Caller;
use gathering_control::ScheduleControl;
use gathering_domain::{Pointer, Problems, ProjectId};
use gathering_scheduler::{Timetable, Trigger, ZoneData};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::days::{ScheduleDays, days_of};
use super::view::notes;
use gathering_edge::body::Body;
use gathering_edge::input::{self, Input};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::values::AnyObject;

/// How many due times are shown if nobody says.
const N_DEFAULT: usize = 5;

/// A trigger whose due times are asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviewSchedule {
    /// The trigger, as that of a schedule.
    #[schema(value_type = AnyObject)]
    trigger: Value,
    /// How many due times to show.
    #[schema(required = false, minimum = 1, maximum = 100, default = 5)]
    count: Option<usize>,
    /// The first is after this time; now by default.
    #[schema(required = false)]
    after: Option<DateTime<Utc>>,
    /// The IANA time zone of the local times; that of the trigger by default.
    #[schema(required = false)]
    timezone: Option<String>,
    /// Days on which it does not fire.
    #[schema(value_type = Option<ScheduleDays>, required = false)]
    except: Option<Value>,
    /// The only days on which it fires.
    #[schema(value_type = Option<ScheduleDays>, required = false)]
    only: Option<Value>,
    /// The project whose files are meant; the caller's default project by default.
    #[schema(required = false)]
    project_id: Option<Uuid>,
}

impl Input for PreviewSchedule {}

/// What a trigger means.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SchedulePreview)]
pub(crate) struct PreviewView {
    /// The trigger in English.
    description: String,
    /// What a reader may take wrongly about it.
    notes: Vec<String>,
    /// The time zone of the local times.
    timezone: String,
    /// The next due times, earliest first; fewer than asked for if there are no more.
    times: Vec<DueView>,
}

/// A due time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DueTime)]
pub(crate) struct DueView {
    /// In UTC.
    at: DateTime<Utc>,
    /// On the clocks of the time zone.
    local: DateTime<FixedOffset>,
}

/// Shows the next due times of a trigger, in any time zone, with what it means in English. Nothing is stored.
#[utoipa::path(post, path = "/api/v1/schedules/preview", tag = "schedules", operation_id = "preview_schedule", request_body = PreviewSchedule, responses(
    (status = 200, body = PreviewView),
))]
pub(crate) async fn preview(
    schedules: web::Data<ScheduleControl>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let view = source.placing(async { preview_of(&schedules, &caller, input::read(value)?).await });
    Ok(HttpResponse::Ok().json(view.await?))
}

async fn preview_of(
    schedules: &ScheduleControl,
    caller: &Caller,
    preview: PreviewSchedule,
) -> Result<PreviewView, ProblemDetails> {
    let root = Pointer::root();
    let mut problems = Problems::new();
    let trigger = Trigger::parse(&preview.trigger, &root.join("trigger"));
    let trigger = trigger.map_err(|wrong| problems.extend(wrong)).ok();
    let zone = match preview.timezone.as_deref().map(|name| ZoneData::current().zone(name)) {
        Some(Ok(zone)) => Some(zone),
        Some(Err(unknown)) => {
            problems.add(root.join("timezone"), unknown.to_string());
            None
        }
        None => trigger.as_ref().map(|trigger| trigger.timezone().clone()),
    };
    let (Some(trigger), Some(zone)) = (trigger, zone) else {
        return Err(ProblemDetails::invalid(problems));
    };
    let days = days_of([("except", preview.except), ("only", preview.only)]);
    let project = preview.project_id.map(ProjectId::from);
    let days = schedules.preview_days(caller, project, &days, &trigger).await?;
    let timetable = Timetable { days, ..Timetable::new(trigger) };
    let due = |after: &DateTime<Utc>| timetable.next_due(0, *after).map(|next| next.due_at);
    let times = std::iter::successors(due(&preview.after.unwrap_or_else(Utc::now)), due);
    let times = times.take(preview.count.unwrap_or(N_DEFAULT));
    let trigger = &timetable.trigger;
    Ok(PreviewView {
        description: trigger.describe(),
        notes: notes(trigger),
        timezone: zone.name().to_owned(),
        times: times.map(|at| DueView { at, local: zone.local(at) }).collect(),
    })
}

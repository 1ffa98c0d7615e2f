//! The due times of a trigger, without a schedule.

use actix_web::HttpResponse;
use chrono::{DateTime, FixedOffset, Utc};
use gathering_domain::{Pointer, Problems};
use gathering_scheduler::{Trigger, ZoneData};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::view::notes;
use gathering_edge::body::Body;
use gathering_edge::input::{self, Input};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::values::AnyObject;

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
pub(crate) async fn preview(body: Body) -> Result<HttpResponse, ProblemDetails> {
    let (_, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let view = source.placing(async { preview_of(input::read(value)?) });
    Ok(HttpResponse::Ok().json(view.await?))
}

fn preview_of(preview: PreviewSchedule) -> Result<PreviewView, ProblemDetails> {
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
    let times = trigger.next_n(preview.after.unwrap_or_else(Utc::now), preview.count.unwrap_or(5));
    Ok(PreviewView {
        description: trigger.describe(),
        notes: notes(&trigger),
        timezone: zone.name().to_owned(),
        times: times.into_iter().map(|at| DueView { at, local: zone.local(at) }).collect(),
    })
}

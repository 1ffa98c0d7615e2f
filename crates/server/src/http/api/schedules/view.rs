//! A schedule as the API shows it.

use chrono::{DateTime, Utc};
use gathering_control::{Calendars, PauseReason, Schedule};
use gathering_scheduler::Trigger;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::days::ScheduleDays;
use crate::http::api::words::{CatchUpSchema, OverlapSchema, PauseReasonSchema, ScheduleStateSchema};
use gathering_edge::values::AnyObject;

/// How many of the next due times are shown.
const N_NEXT: usize = 5;

/// What starts runs at due times.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(crate) struct ScheduleView {
    id: Uuid,
    project_id: Uuid,
    name: String,
    #[schema(value_type = AnyObject)]
    trigger: Value,
    #[schema(value_type = AnyObject)]
    action: Value,
    /// Days on which it does not fire.
    #[schema(value_type = ScheduleDays)]
    except: Value,
    /// The only days on which it fires; null for all.
    #[schema(value_type = Option<ScheduleDays>)]
    only: Option<Value>,
    /// The state of the iCalendar files in `except` and `only`; null without one.
    calendar: Option<CalendarView>,
    #[schema(value_type = CatchUpSchema)]
    catch_up: &'static str,
    #[schema(value_type = OverlapSchema)]
    overlap: &'static str,
    jitter_seconds: u32,
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
    max_fires: Option<u32>,
    on_failure: OnFailureView,
    /// Whether it fires.
    enabled: bool,
    #[schema(value_type = ScheduleStateSchema)]
    state: &'static str,
    /// Why it is paused.
    #[schema(value_type = Option<PauseReasonSchema>)]
    paused_because: Option<&'static str>,
    /// When it fires next; null while it is paused, when it has ended, and if it fires for events.
    next_fire_at: Option<DateTime<Utc>>,
    /// When it fired last.
    last_fire_at: Option<DateTime<Utc>>,
    /// How many due times have fired, without those that were triggered or backfilled by hand.
    fire_count: u32,
    /// How many of its last runs failed in a row.
    failures_in_a_row: u32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The trigger in English.
    description: String,
    /// What a reader may take wrongly about the trigger.
    notes: Vec<String>,
    /// The next due times; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    next_due: Option<Vec<DateTime<Utc>>>,
}

/// The state of the iCalendar files of a schedule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScheduleCalendar)]
pub(crate) struct CalendarView {
    /// When the days were read that it has. A file that has the same days is not read anew.
    read_at: DateTime<Utc>,
    /// Why a file cannot be read any more; the schedule keeps its last days.
    problem: Option<String>,
}

/// What happens when its runs fail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScheduleOnFailure)]
pub(crate) struct OnFailureView {
    /// The notification that is sent.
    #[schema(value_type = Option<AnyObject>)]
    notify: Option<Value>,
    /// After how many failures in a row it pauses.
    pause_after: Option<u32>,
}

impl ScheduleView {
    pub(super) fn in_list(schedule: Schedule) -> Self {
        let next = schedule.look_at();
        let is_open =
            schedule.next.is_some() || schedule.queued.is_some() || schedule.waits_for_events(Utc::now());
        let state = match (schedule.pause, is_open) {
            (Some(_), _) => "paused",
            (None, true) => "active",
            (None, false) => "ended",
        };
        let timetable = schedule.timetable;
        let mut days = schedule.calendars.written(&timetable.days);
        let Calendars { read_at, problem, .. } = schedule.calendars;
        Self {
            id: schedule.id.as_uuid(),
            project_id: schedule.project.as_uuid(),
            name: schedule.name,
            description: timetable.trigger.describe(),
            notes: notes(&timetable.trigger),
            trigger: timetable.trigger.to_json(),
            action: schedule.action.to_json(),
            except: days.shift_remove("except").unwrap_or_else(|| json!([])),
            only: days.shift_remove("only"),
            calendar: read_at.map(|read_at| CalendarView { read_at, problem }),
            catch_up: timetable.catch_up.as_str(),
            overlap: timetable.overlap.as_str(),
            jitter_seconds: timetable.jitter_seconds,
            start_at: timetable.start_at,
            end_at: timetable.end_at,
            max_fires: timetable.max_fires,
            on_failure: OnFailureView {
                notify: schedule.on_failure.notify.map(|(notify, _)| notify),
                pause_after: schedule.on_failure.pause_after,
            },
            enabled: schedule.pause.is_none(),
            state,
            paused_because: schedule.pause.map(PauseReason::as_str),
            next_fire_at: next,
            last_fire_at: schedule.last_fire_at,
            fire_count: schedule.n_fires,
            failures_in_a_row: schedule.n_failures,
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
            next_due: None,
        }
    }

    pub(super) fn whole(schedule: Schedule) -> Self {
        let due = |after: &DateTime<Utc>| schedule.timetable.next_due(0, *after).map(|next| next.due_at);
        let first = schedule.next.map(|next| next.due_at);
        let left = schedule.timetable.max_fires.map(|max| max.saturating_sub(schedule.n_fires));
        let n_next = left.map_or(N_NEXT, |left| N_NEXT.min(usize::try_from(left).unwrap_or(N_NEXT)));
        let next_due = Some(std::iter::successors(first, due).take(n_next).collect());
        Self { next_due, ..Self::in_list(schedule) }
    }
}

/// What a reader may take wrongly.
pub(super) fn notes(trigger: &Trigger) -> Vec<String> {
    match trigger {
        Trigger::Cron(cron) => cron.ambiguity().into_iter().collect(),
        Trigger::Interval(_) | Trigger::Rrule(_) | Trigger::Once(_) | Trigger::Event(_) => Vec::new(),
    }
}

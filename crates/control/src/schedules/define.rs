//! Defining a schedule: what it fires, when, and what is refused.

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_domain::{Digest, KeyedBody, Once, Pointer, Problems, ProjectId, ScheduleId};
use gathering_scheduler::{CatchUp, MAX_JITTER_SECONDS, Overlap, Timetable, Trigger, ZoneData};
use serde_json::{Map, Value, json};

use super::{Calendars, PauseReason, Schedule, ScheduleControl, ScheduledAction, event};
use crate::access::right;
use crate::events::EventSeq;
use crate::{ControlError, Creation};

/// What happens when runs of a schedule fail or time out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OnFailure {
    /// The notification that is sent for each: as it is written, and its graph.
    pub notify: Option<(Value, Digest)>,
    /// The schedule pauses after so many in a row.
    pub pause_after: Option<u32>,
}

/// A schedule in a request, not checked yet.
#[derive(Debug, Clone, PartialEq)]
pub struct SubmittedSchedule {
    /// What people call it.
    pub name: String,
    /// The trigger, as [`Trigger::parse`] reads it.
    pub trigger: Value,
    /// The action: `execute_pipeline`, `call_api` or `send_notification`.
    pub action: Value,
    /// The fields `except` and `only`: each a list as [`Days::parse`](gathering_scheduler::Days::parse) reads it, or a
    /// calendar of the project's workspace, `{file}`.
    pub days: Map<String, Value>,
    /// For due times that passed while nothing fired; if absent, the default of the trigger ([`Timetable::new`]).
    pub catch_up: Option<CatchUp>,
    /// For due times at which an earlier run has not ended; if absent, the default of the trigger.
    pub overlap: Option<Overlap>,
    /// Each fire is delayed by a part of so many seconds.
    pub jitter_seconds: u32,
    /// No due time is before, in UTC.
    pub start_at: Option<DateTime<Utc>>,
    /// No due time is after, in UTC.
    pub end_at: Option<DateTime<Utc>>,
    /// It ends after so many fires.
    pub max_fires: Option<u32>,
    /// The action that is done when a run fails.
    pub notify: Option<Value>,
    /// It pauses after so many failures in a row.
    pub pause_after: Option<u32>,
    /// Whether it fires.
    pub enabled: bool,
}

impl SubmittedSchedule {
    /// An enabled schedule with the default policies.
    pub fn new(name: impl Into<String>, trigger: Value, action: Value) -> Self {
        Self {
            name: name.into(),
            trigger,
            action,
            days: Map::new(),
            catch_up: None,
            overlap: None,
            jitter_seconds: 0,
            start_at: None,
            end_at: None,
            max_fires: None,
            notify: None,
            pause_after: None,
            enabled: true,
        }
    }

    /// Takes another trigger. Policies of due times are not kept for events, nor the other way around.
    pub fn set_trigger(&mut self, trigger: Value) {
        let is_of_events = |trigger: &Value| trigger.get("type").is_some_and(|word| word == "event");
        if is_of_events(&trigger) != is_of_events(&self.trigger) {
            (self.catch_up, self.overlap) = (None, None);
        }
        self.trigger = trigger;
    }

    /// What people wrote of a schedule that exists.
    pub fn of(schedule: &Schedule) -> Self {
        let Schedule { name, timetable, calendars, action, on_failure, .. } = schedule;
        Self {
            name: name.clone(),
            trigger: timetable.trigger.to_json(),
            action: action.to_json(),
            days: calendars.written(&timetable.days),
            catch_up: Some(timetable.catch_up),
            overlap: Some(timetable.overlap),
            jitter_seconds: timetable.jitter_seconds,
            start_at: timetable.start_at,
            end_at: timetable.end_at,
            max_fires: timetable.max_fires,
            notify: on_failure.notify.as_ref().map(|(notify, _)| notify.clone()),
            pause_after: on_failure.pause_after,
            enabled: schedule.pause.is_none(),
        }
    }
}

/// What a schedule is created with.
#[derive(Debug, Clone, PartialEq)]
pub struct DefineSchedule {
    /// The project that it belongs to; the caller's default project if absent.
    pub project: Option<ProjectId>,
    /// The rest.
    pub schedule: SubmittedSchedule,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

/// A schedule that is to be created. Only this crate makes one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NewSchedule {
    /// Its id.
    pub id: ScheduleId,
    /// What it is, without what only time tells.
    pub spec: ScheduleSpec,
    /// What makes a repeated request the same.
    pub once: Option<Once>,
}

/// What people write of a schedule, checked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScheduleSpec {
    /// What people call it.
    pub name: String,
    /// When it fires.
    pub timetable: Timetable,
    /// Where days of the timetable come from.
    pub calendars: Calendars,
    /// What it starts.
    pub action: ScheduledAction,
    /// What happens when its runs fail.
    pub on_failure: OnFailure,
    /// Whether it fires.
    pub enabled: bool,
}

impl NewSchedule {
    /// The schedule, as it stands when it is created `now` by the store's clock, with the log of events taken up to
    /// `log_end`.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] if it would never fire.
    pub fn of(
        &self,
        project: ProjectId,
        now: DateTime<Utc>,
        log_end: EventSeq,
    ) -> Result<Schedule, ControlError> {
        let ScheduleSpec { name, timetable, calendars, action, on_failure, enabled } = self.spec.clone();
        let mut schedule = Schedule {
            id: self.id,
            project,
            name,
            timetable,
            calendars: calendars.taken_at(now),
            action,
            on_failure,
            pause: (!enabled).then_some(PauseReason::Request),
            passed_at: now,
            queued: None,
            next: None,
            events_after: None,
            zone_data: String::new(),
            n_fires: 0,
            n_failures: 0,
            last_fire_at: None,
            created_at: now,
            updated_at: now,
        };
        schedule.begin(now, log_end)?;
        Ok(schedule)
    }
}

impl Schedule {
    /// Counts its due times anew from `now`, or the events after `log_end`.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] if it would never fire.
    pub(super) fn begin(&mut self, now: DateTime<Utc>, log_end: EventSeq) -> Result<(), ControlError> {
        if self.timetable.max_fires.is_some_and(|max| self.n_fires >= max) {
            let message = format!("must be more than {}, as often as the schedule has fired", self.n_fires);
            return Err(ControlError::Invalid(Problems::one(Pointer::root().join("max_fires"), message)));
        }
        self.passed_at = self.timetable.begin(now);
        self.next = self.timetable.next_due(self.seed(), self.passed_at);
        ZoneData::current().version().clone_into(&mut self.zone_data);
        let is_of_events = self.timetable.trigger.events().is_some();
        let has_ended = self.timetable.end_at.is_some_and(|end| end <= now);
        self.events_after = is_of_events.then_some(log_end);
        if self.next.is_some() || is_of_events && !has_ended {
            return Ok(());
        }
        let (place, message) = match self.timetable.end_at {
            Some(end) if end <= now => ("end_at", "has passed, so that the schedule never fires"),
            Some(end)
                if self.timetable.trigger.next_after(self.passed_at).is_some_and(|first| first > end) =>
            {
                ("end_at", "is before the first due time, so that the schedule never fires")
            }
            _ if self.timetable.next_occurrence(self.passed_at).is_some() => {
                ("only", "leaves no due time, so that the schedule never fires")
            }
            _ => ("trigger", "never fires: all its times have passed"),
        };
        Err(ControlError::Invalid(Problems::one(Pointer::root().join(place), message)))
    }
}

impl ScheduleControl {
    /// Creates a schedule.
    ///
    /// Repeats: the same idempotency key and body answer the same schedule, as it stands then.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`] for the project; [`ControlError::Invalid`] with
    /// everything that is wrong; [`Conflict::KeyReused`] or [`Conflict::CreatedAndDeleted`]. After
    /// [`ControlError::Unavailable`] it is unknown whether the schedule was created.
    ///
    /// [`Conflict::KeyReused`]: crate::Conflict::KeyReused
    /// [`Conflict::CreatedAndDeleted`]: crate::Conflict::CreatedAndDeleted
    pub async fn define(&self, caller: &Caller, define: DefineSchedule) -> Result<Schedule, ControlError> {
        let project = self.projects.find_or_default::<right::Write>(caller, define.project).await?;
        let spec = self.check(caller, *project.thing(), define.schedule, None).await?;
        let id = ScheduleId::new();
        let new = NewSchedule { id, spec, once: define.once.map(|body| body.about(&json!("schedule"))) };
        let created = self.store.create_schedule(&project, &new).await?;
        if let Creation::Created(schedule) = &created {
            tracing::info!(schedule.id = %schedule.id, project.id = %schedule.project, "schedule {id} created");
        }
        created.into_result()
    }

    /// Checks a schedule, and stores the graphs that it needs. `before` is the schedule that it changes.
    pub(super) async fn check(
        &self,
        caller: &Caller,
        project: ProjectId,
        submitted: SubmittedSchedule,
        before: Option<&Schedule>,
    ) -> Result<ScheduleSpec, ControlError> {
        let root = Pointer::root();
        let mut problems = bounds_problems(&submitted);
        let trigger = Trigger::parse(&submitted.trigger, &root.join("trigger"));
        let trigger = trigger.map_err(|wrong| problems.extend(wrong)).ok();
        if let Some(events) = trigger.as_ref().and_then(Trigger::events) {
            problems.extend(event::problems_of(events, &submitted));
        }
        let zone = trigger.as_ref().map(Trigger::timezone);
        let days = self.check_days(project, &submitted.days, zone, before, &mut problems).await?;
        let of_events = trigger.as_ref().is_some_and(|trigger| trigger.events().is_some());
        let action = self.check_action(caller, project, submitted.action, of_events, &mut problems).await?;
        let notify = match submitted.notify {
            Some(notify) => self.check_notification(notify, &mut problems).await?,
            None => None,
        };
        let (Some(trigger), Some(action), true) = (trigger, action, problems.is_empty()) else {
            return Err(ControlError::Invalid(problems));
        };
        let (days, calendars) = days;
        let defaults = Timetable::new(trigger);
        let timetable = Timetable {
            days,
            catch_up: submitted.catch_up.unwrap_or(defaults.catch_up),
            overlap: submitted.overlap.unwrap_or(defaults.overlap),
            jitter_seconds: submitted.jitter_seconds,
            start_at: submitted.start_at,
            end_at: submitted.end_at,
            max_fires: submitted.max_fires,
            ..defaults
        };
        let on_failure = OnFailure { notify, pause_after: submitted.pause_after };
        let SubmittedSchedule { name, enabled, .. } = submitted;
        Ok(ScheduleSpec { name, timetable, calendars, action, on_failure, enabled })
    }
}

fn bounds_problems(submitted: &SubmittedSchedule) -> Problems {
    let root = Pointer::root();
    let mut problems = Problems::new();
    if submitted.jitter_seconds > MAX_JITTER_SECONDS {
        problems.add(root.join("jitter_seconds"), format!("must be at most {MAX_JITTER_SECONDS}"));
    }
    if let (Some(start), Some(end)) = (submitted.start_at, submitted.end_at)
        && end < start
    {
        problems.add(root.join("end_at"), "must not be before start_at");
    }
    if submitted.max_fires == Some(0) {
        problems.add(root.join("max_fires"), "must be at least 1");
    }
    if submitted.pause_after == Some(0) {
        problems.add(root.join("on_failure").join("pause_after"), "must be at least 1");
    }
    problems
}

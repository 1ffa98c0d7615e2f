//! Firing for events: which schedules an event concerns, what it starts, and where a chain of causes ends.
//!
//! One loop of all instances goes through the log ([`EventMatching`]). How far it came, the entries of the ledgers and the
//! runs are written in one transaction, so each event fires a schedule once (I6), also one that was written while no instance
//! ran.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_domain::{Pointer, Problems, ScheduleId};
use gathering_scheduler::{
    CatchUp, Due, DueEntry, EventPattern, FireOutcome, Overlap, SkipReason, Timetable, plan_events,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fire::{progress, settle, take};
use super::{LedgerEntry, LockedSchedule, Schedule, ScheduleStep, SubmittedSchedule};
use crate::ControlStore;
use crate::events::{EventFilter, LoggedEvent};

/// How many events a round reads.
const EVENTS_AT_ONCE: usize = 500;

/// About how many pairs of an event and a schedule a round takes: many schedules may fire for one event.
pub const MAX_CAUSES: usize = 2000;

/// A chain of schedules ends here: the run of each was started by an event of a run of the one before.
const MAX_CHAIN: usize = 8;

/// Rounds are at least this far apart: a busy log is read in larger parts.
const APART: Duration = Duration::from_millis(3);

/// How often the log is read though no wake-up came: wake-ups may be lost, and the start of a run sends none.
const SAFETY_NET: Duration = Duration::from_secs(1);

/// How often schedules that fire for events are looked for, if there was none.
const WITHOUT_SCHEDULES: Duration = Duration::from_secs(60);

/// The pauses while another instance reads the log, or an open transaction holds events back.
const HELD_BACK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// The pauses after failures grow from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// An event that a schedule may fire for.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// The event.
    pub event: LoggedEvent,
    /// The schedules through whose runs it came about, the first one first; empty if it has another cause.
    pub caused_by: Vec<ScheduleId>,
}

impl Cause {
    /// The chain of a run that this schedule starts for the event.
    pub(crate) fn chain_with(cause: Option<&Self>, schedule: ScheduleId) -> Vec<ScheduleId> {
        let before = cause.map(|cause| cause.caused_by.as_slice()).unwrap_or_default();
        before.iter().copied().chain([schedule]).collect()
    }

    const fn due(&self) -> Due {
        Due { at: self.event.at, event: Some(self.event.seq) }
    }
}

/// A rule that makes a step of a schedule for the [events](LockedSchedule::causes) that it was locked for, at a moment of the
/// store's clock, in UTC.
pub type EventRule<'a> = dyn Fn(LockedSchedule, DateTime<Utc>) -> ScheduleStep + Send + Sync + 'a;

/// What a round through the log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchRound {
    /// No schedule fires for events.
    NoSchedules,
    /// Another caller goes through the log.
    Locked,
    /// Some of the log is done, and there may be more.
    Part,
    /// Everything is done that can be read yet: an open transaction may still write an earlier event.
    HeldBack,
    /// Everything is done.
    ToTheEnd,
}

impl Schedule {
    /// Whether an event that is written `now`, in UTC, may fire it.
    pub fn waits_for_events(&self, now: DateTime<Utc>) -> bool {
        self.events_after.is_some() && self.timetable.end_at.is_none_or(|end| now <= end)
    }

    /// What of these events it fires for. An event that came before the schedule is none of them.
    pub fn fires_for<'a>(&self, events: impl Iterator<Item = &'a LoggedEvent>) -> Vec<&'a LoggedEvent> {
        let Some((filter, after)) = self.filter().zip(self.events_after) else { return Vec::new() };
        let is_own = |event: &&LoggedEvent| event.project == Some(self.project) && event.seq > after;
        events.filter(is_own).filter(|event| filter.fits(event)).collect()
    }

    /// The filter of its trigger. One that was accepted by an earlier version and is none today fits nothing.
    fn filter(&self) -> Option<EventFilter> {
        EventFilter::of_trigger(self.timetable.trigger.events()?, &Pointer::root()).ok()
    }
}

/// What is wrong with a schedule that is to fire for these events.
pub(super) fn problems_of(events: &EventPattern, submitted: &SubmittedSchedule) -> Problems {
    let root = Pointer::root();
    let mut problems = Problems::new();
    if let Err(wrong) = EventFilter::of_trigger(events, &root.join("trigger")) {
        problems.extend(wrong);
    }
    if submitted.catch_up == Some(CatchUp::Latest) {
        problems.add(root.join("catch_up"), "must be all or skip, as the trigger is events");
    }
    if submitted.jitter_seconds > 0 {
        problems.add(root.join("jitter_seconds"), "must be 0, as the trigger is events, which fire at once");
    }
    let input = submitted.action.get("input").filter(|input| !input.is_null());
    if input.is_some_and(|input| input.as_object().is_none_or(|fields| fields.contains_key("event"))) {
        let message = "must be an object without `event`, which is the event in each run";
        problems.add(root.join("action").join("input"), message);
    }
    problems
}

/// What a schedule does for the events that it was locked for. It may have been changed since they were chosen.
pub(super) fn react(locked: &LockedSchedule, now: DateTime<Utc>) -> ScheduleStep {
    let mut step = ScheduleStep::of(locked.schedule.clone());
    let open = settle(locked, &mut step);
    let schedule = &locked.schedule;
    let events = schedule.fires_for(locked.causes.iter().map(|cause| &cause.event));
    let due = locked.causes.iter().filter(|cause| events.iter().any(|event| event.seq == cause.event.seq));
    let mut fitting = Vec::new();
    for cause in due {
        let is_loop = cause.caused_by.contains(&schedule.id) || cause.caused_by.len() >= MAX_CHAIN;
        match (is_loop, step.schedule.pause) {
            _ if !schedule.timetable.is_within_bounds(cause.event.at) => {}
            (true, _) => step.entries.push(skipped(cause, SkipReason::Loop)),
            (false, Some(_)) => step.entries.push(skipped(cause, SkipReason::Paused)),
            (false, None) => fitting.push(cause.due()),
        }
    }
    if fitting.is_empty() {
        return step;
    }
    let progress = progress(&step, &open);
    let planned = if locked.is_startable() {
        plan_events(&schedule.timetable, &progress, &fitting, now)
    } else {
        let timetable = Timetable { overlap: Overlap::Allow, ..schedule.timetable.clone() };
        plan_events(&timetable, &progress, &fitting, now)
    };
    take(locked, &mut step, &planned, now);
    if planned.cancels_open {
        step.cancelled = open.iter().map(|open| open.run).collect();
    }
    let n_promised = step.schedule.n_fires + u32::from(step.schedule.queued.is_some());
    if step.schedule.timetable.max_fires.is_some_and(|max| n_promised >= max) {
        step.schedule.events_after = None;
    }
    step
}

fn skipped(cause: &Cause, reason: SkipReason) -> LedgerEntry {
    let entry = DueEntry { due: cause.due(), until: None, outcome: FireOutcome::Skipped(reason) };
    LedgerEntry { entry, run: None }
}

/// Fires schedules for the events of a store's log. It sleeps until there may be events, and asks the store nothing while no
/// schedule fires for events.
pub struct EventMatching {
    store: Arc<dyn ControlStore>,
    wakes: [watch::Receiver<u64>; 2],
    changes: watch::Receiver<u64>,
}

impl EventMatching {
    /// The loop over `store`. Whenever one of `wakes` changes, there may be events; whenever `changes` does, schedules.
    pub const fn new(
        store: Arc<dyn ControlStore>,
        wakes: [watch::Receiver<u64>; 2],
        changes: watch::Receiver<u64>,
    ) -> Self {
        Self { store, wakes, changes }
    }

    /// Goes once through a part of the log.
    ///
    /// # Errors
    /// The store's; the next call goes on from there.
    pub async fn match_events(store: &dyn ControlStore) -> Result<MatchRound, crate::ControlError> {
        store.match_events(EVENTS_AT_ONCE, &|locked, now| react(&locked, now)).await
    }

    /// Fires until `stop`. A round in progress is completed first. Logs failures and tries again.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut retry, mut held_back) = (RETRY.0, HELD_BACK.0);
        while !stop.is_cancelled() {
            // What changes from here on may be missed by the round.
            self.wakes.iter_mut().chain([&mut self.changes]).for_each(watch::Receiver::mark_unchanged);
            let round = Self::match_events(&*self.store).await;
            let pause = match &round {
                Ok(MatchRound::Part) => continue,
                Ok(MatchRound::ToTheEnd) => SAFETY_NET,
                Ok(MatchRound::NoSchedules) => WITHOUT_SCHEDULES,
                Ok(MatchRound::Locked | MatchRound::HeldBack) => held_back,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot fire schedules for events: {error}; retrying");
                    retry
                }
            };
            let is_held_back = matches!(round, Ok(MatchRound::Locked | MatchRound::HeldBack));
            held_back = if is_held_back { (held_back * 2).min(HELD_BACK.1) } else { HELD_BACK.0 };
            retry = if round.is_err() { (retry * 2).min(RETRY.1) } else { RETRY.0 };
            let is_idle = matches!(round, Ok(MatchRound::NoSchedules));
            if !self.sleep(pause, is_idle, &stop).await {
                return;
            }
        }
    }

    /// Sleeps until `pause` is over or there may be something to do; `false` if the loop is to end.
    async fn sleep(&mut self, pause: Duration, is_idle: bool, stop: &CancellationToken) -> bool {
        tokio::time::sleep(APART).await;
        let [ends, others] = &mut self.wakes;
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
            changed = ends.changed(), if !is_idle => changed.is_ok(),
            changed = others.changed(), if !is_idle => changed.is_ok(),
            // Without a sender nothing wakes the loop any more: the owner is going down.
            changed = self.changes.changed() => changed.is_ok(),
        }
    }
}

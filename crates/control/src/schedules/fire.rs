//! Firing: the step of a schedule that is due, and the store as the loop of `gathering-scheduler` knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::RunState;
use gathering_scheduler::{
    DueEntry, FireError, FireOutcome, FireStore, Overlap, Plan, Progress, Round, SkipReason, Timetable,
    ZoneData, plan,
};
use serde_json::json;

use super::step::{LockedSchedule, ScheduleStep};
use super::{LedgerEntry, OpenFire, PauseReason, Schedule, ScheduleNews};
use crate::ControlStore;
use crate::runs::{PlannedRun, StartRun, StartedBy};

/// How many schedules a round takes.
const SCHEDULES_AT_ONCE: usize = 1000;

/// How many entries a round writes, about: a schedule that caught up much leaves others for the next round.
const ENTRIES_AT_ONCE: usize = 5000;

/// A rule that makes a step of a schedule that is due; `None` leaves it for another round.
pub type FireRule<'a> = dyn Fn(LockedSchedule, DateTime<Utc>) -> Option<ScheduleStep> + Send + Sync + 'a;

/// Fires the schedules of a store.
pub struct ScheduleFiring {
    store: Arc<dyn ControlStore>,
    /// Whether the due times that were computed by other rules of the time zones have been looked for.
    knows_zones: AtomicBool,
}

impl ScheduleFiring {
    /// The schedules of this store.
    pub const fn new(store: Arc<dyn ControlStore>) -> Self {
        Self { store, knows_zones: AtomicBool::new(false) }
    }
}

#[async_trait]
impl FireStore for ScheduleFiring {
    async fn fire_due(&self) -> Result<Round, FireError> {
        if !self.knows_zones.load(Ordering::Relaxed) {
            let renewed = self.store.renew_zone_data(ZoneData::current().version()).await;
            let n_renewed = renewed.map_err(|error| FireError(error.into()))?;
            if n_renewed > 0 {
                tracing::info!(
                    "the time zones have changed to {}: the due times of {n_renewed} schedules are computed anew",
                    ZoneData::current()
                );
            }
            self.knows_zones.store(true, Ordering::Relaxed);
        }
        let n_entries = AtomicUsize::new(0);
        let rule = |locked: LockedSchedule, now| {
            if n_entries.load(Ordering::Relaxed) >= ENTRIES_AT_ONCE {
                return None;
            }
            let step = fire(&locked, now);
            n_entries.fetch_add(step.entries.len(), Ordering::Relaxed);
            Some(step)
        };
        self.store.fire_schedules(SCHEDULES_AT_ONCE, &rule).await.map_err(|error| FireError(error.into()))
    }
}

/// What a schedule does that is due, or of which a run has ended.
pub(super) fn fire(locked: &LockedSchedule, now: DateTime<Utc>) -> ScheduleStep {
    let mut step = ScheduleStep::of(locked.schedule.clone());
    let open = settle(locked, &mut step);
    if step.schedule.pause.is_some() {
        return step;
    }
    let progress = progress(&step, &open);
    let planned = if locked.is_startable() {
        plan(&step.schedule.timetable, &progress, now)
    } else {
        // Nothing starts, so no due time is in the way of another.
        let timetable = Timetable { overlap: Overlap::Allow, ..step.schedule.timetable.clone() };
        plan(&timetable, &progress, now)
    };
    step.entries.extend(replanned(&step.schedule, &planned, now));
    take(locked, &mut step, &planned, now);
    step.tell_skipped();
    if planned.cancels_open {
        step.cancelled = open.iter().map(|open| open.run).collect();
    }
    step
}

pub(super) fn progress(step: &ScheduleStep, open: &[&OpenFire]) -> Progress {
    let schedule = &step.schedule;
    Progress {
        seed: schedule.seed(),
        passed: schedule.passed_at,
        n_fires: schedule.n_fires,
        n_open: u32::try_from(open.len()).unwrap_or(u32::MAX),
        queued: schedule.queued,
    }
}

/// Takes over what was planned.
pub(super) fn take(locked: &LockedSchedule, step: &mut ScheduleStep, planned: &Plan, now: DateTime<Utc>) {
    let mut n_fires = planned.n_fires;
    for entry in &planned.entries {
        if !entry.outcome.starts() {
            step.entries.push(LedgerEntry { entry: *entry, run: None });
            continue;
        }
        let started = locked.start(entry.due, entry.outcome, None);
        match started.run {
            Some(_) => step.schedule.last_fire_at = Some(now),
            None => n_fires = n_fires.saturating_sub(1),
        }
        step.entries.push(started);
    }
    let schedule = &mut step.schedule;
    schedule.passed_at = planned.passed;
    schedule.n_fires = n_fires;
    // A due time that started nothing is no fire, so the last one is still to come.
    let is_open = n_fires < planned.n_fires && planned.next.is_none();
    schedule.queued = planned.queued;
    schedule.next =
        if is_open { schedule.timetable.next_due(schedule.seed(), planned.passed) } else { planned.next };
    ZoneData::current().version().clone_into(&mut schedule.zone_data);
}

/// The entry for the due time that was next by old rules of its time zone, and is no due time by the new ones.
fn replanned(schedule: &Schedule, planned: &Plan, now: DateTime<Utc>) -> Option<LedgerEntry> {
    let old = schedule.next.filter(|_| schedule.zone_data != ZoneData::current().version())?;
    let is_due = planned.next.is_some_and(|next| next.due_at == old.due_at)
        || planned.entries.iter().any(|entry| entry.due == old.due_at.into());
    if is_due || old.due_at <= now {
        return None;
    }
    let outcome = FireOutcome::Skipped(SkipReason::ZoneData);
    Some(LedgerEntry { entry: DueEntry { due: old.due_at.into(), until: None, outcome }, run: None })
}

/// Enters how the runs have ended that did, and does what `on_failure` says. Answers with the fires that are open.
pub(super) fn settle<'a>(locked: &'a LockedSchedule, step: &mut ScheduleStep) -> Vec<&'a OpenFire> {
    let mut open = Vec::new();
    for fire in &locked.open {
        match fire.state {
            Some(state) if !state.is_terminal() => open.push(fire),
            // Nobody knows how a run ended that was deleted; at least it has.
            None => step.settled.push((fire.due, RunState::Cancelled)),
            Some(state) => {
                step.settled.push((fire.due, state));
                count_end(step, fire, state);
            }
        }
    }
    open
}

fn count_end(step: &mut ScheduleStep, fire: &OpenFire, state: RunState) {
    let schedule = &mut step.schedule;
    match state {
        RunState::Succeeded => schedule.n_failures = 0,
        RunState::Failed | RunState::TimedOut => {
            schedule.n_failures = schedule.n_failures.saturating_add(1);
            let limit = schedule.on_failure.pause_after;
            if schedule.pause.is_none() && limit.is_some_and(|limit| schedule.n_failures >= limit) {
                schedule.pause = Some(PauseReason::Failures);
                step.news.push(ScheduleNews::Paused(PauseReason::Failures));
                tracing::warn!(
                    schedule.id = %schedule.id,
                    "schedule {} is paused after {} failures in a row", schedule.id, schedule.n_failures
                );
            }
            if let Some((_, graph)) = &schedule.on_failure.notify {
                let input = json!({
                    "schedule": { "id": schedule.id, "name": schedule.name, "failures": schedule.n_failures,
                                  "paused": schedule.pause.is_some() },
                    "run": { "id": fire.run, "state": state.as_str() },
                    "due_at": fire.due.at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
                });
                let start = StartRun { input, ..StartRun::default() };
                let by = StartedBy::ScheduleFailure { schedule: schedule.id, run: fire.run };
                step.extra_runs.push(PlannedRun::new(by, *graph, None, start));
            }
        }
        _ => {}
    }
}

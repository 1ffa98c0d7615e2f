//! Schedules and their ledgers in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_dag_engine::RunStore as _;
use gathering_domain::{ProjectId, RunId, RunState, ScheduleId, UserId};
use gathering_scheduler::{Due, DueEntry, FireOutcome, Round};

use super::MemoryControl;
use super::idempotency::Claim;
use super::state::State;
use crate::{
    Agenda, AgendaFire, AgendaRange, Cause, ControlError, Creation, EventRule, EventSeq, Fire, FireRule,
    Found, LockedSchedule, LoggedEvent, MatchRound, NewSchedule, OpenFire, PlannedRun, Schedule,
    ScheduleNews, ScheduleStep, ScheduleStore, ScheduledAction, Scoped, StepRule, right,
};

pub(super) struct StoredSchedule {
    schedule: Schedule,
    ledger: BTreeMap<Due, StoredFire>,
}

struct StoredFire {
    entry: DueEntry,
    run: Option<RunId>,
    run_state: Option<RunState>,
    fired_at: Option<DateTime<Utc>>,
}

impl State {
    fn create_schedule(
        &mut self,
        project: ProjectId,
        by: Option<UserId>,
        new: &NewSchedule,
    ) -> Result<Creation<Schedule>, ControlError> {
        if !self.has_project(project) {
            return Err(ControlError::NotFound);
        }
        let schedule = new.of(project, Utc::now(), self.last_seq())?;
        if let Some((user, once)) = by.zip(new.once.as_ref()) {
            match self.schedule_keys.claim(user, once, new.id) {
                Claim::Granted => {}
                Claim::CreatedBefore(id) => {
                    let earlier = self.schedules.get(&id).map(|stored| stored.schedule.clone());
                    return Ok(earlier.map_or(Creation::Deleted, Creation::Repeated));
                }
                Claim::OtherRequest => return Ok(Creation::OtherRequest),
            }
        }
        let stored = StoredSchedule { schedule: schedule.clone(), ledger: BTreeMap::new() };
        self.schedules.insert(schedule.id, stored);
        self.tell(&schedule, ScheduleNews::Created);
        Ok(Creation::Created(schedule))
    }

    /// The event; of what is in memory no run is the cause.
    fn cause(&self, seq: EventSeq) -> Option<Cause> {
        let event = self.events.iter().find(|event| event.seq == seq)?.clone();
        Some(Cause { event, caused_by: Vec::new() })
    }

    fn is_on(&self, agenda: &Agenda, schedule: &Schedule) -> bool {
        let Some(owning) = self.projects.get(&schedule.project) else { return false };
        agenda.visible_to.is_none_or(|user| owning.role(user).is_some())
            && agenda.range.project.is_none_or(|project| schedule.project == project)
    }
}

impl MemoryControl {
    fn shown(&self, fire: &StoredFire) -> Fire {
        Fire {
            due_at: fire.entry.due.at,
            event: fire.entry.due.event,
            until: fire.entry.until,
            outcome: fire.entry.outcome.as_str().to_owned(),
            reason: fire.entry.outcome.reason().map(|reason| reason.as_str().to_owned()),
            run: fire.run,
            run_state: fire.run.and_then(|run| self.runs.run(run)).map(|run| run.state).or(fire.run_state),
            fired_at: fire.fired_at,
        }
    }

    /// The schedule with what a step depends on.
    fn locked(
        &self,
        id: ScheduleId,
        fired: Option<(DateTime<Utc>, DateTime<Utc>)>,
    ) -> Result<LockedSchedule, ControlError> {
        let state = self.lock();
        let stored = state.schedules.get(&id).ok_or(ControlError::NotFound)?;
        let unsettled = stored.ledger.iter().filter(|(_, fire)| fire.run_state.is_none());
        let open = unsettled.filter_map(|(due, fire)| {
            let run = fire.run?;
            Some(OpenFire { due: *due, run, state: self.runs.run(run).map(|run| run.state) })
        });
        let asked =
            || fired.into_iter().flat_map(|(from, to)| stored.ledger.range(Due::from(from)..=Due::from(to)));
        let has_fired = |fire: &StoredFire| !matches!(fire.entry.outcome, FireOutcome::Skipped(_));
        let fired = asked().filter(|(_, fire)| has_fired(fire)).map(|(due, _)| due.at).collect();
        let ranges = asked().filter_map(|(first, fire)| Some((first.at, fire.entry.until?))).collect();
        Ok(LockedSchedule {
            open: open.collect(),
            pipeline: match &stored.schedule.action {
                ScheduledAction::Pipeline { pipeline, version, .. } => {
                    state.to_start(*pipeline, *version, &self.runs)
                }
                ScheduledAction::Node { .. } => None,
            },
            action_timeout: None,
            queued_cause: stored.schedule.queued.and_then(|due| state.cause(due.event?)),
            causes: Vec::new(),
            log_end: state.last_seq(),
            fired,
            ranges,
            schedule: stored.schedule.clone(),
        })
    }

    async fn write(&self, step: ScheduleStep, now: DateTime<Utc>) -> Result<Schedule, ControlError> {
        let schedule = step.schedule;
        let mut accepted: Vec<PlannedRun> = step.extra_runs;
        {
            let mut state = self.lock();
            let stored = state.schedules.get_mut(&schedule.id).ok_or(ControlError::NotFound)?;
            stored.schedule = schedule.clone();
            for (due, run_state) in step.settled {
                if let Some(fire) = stored.ledger.get_mut(&due) {
                    fire.run_state = Some(run_state);
                }
            }
            for new in step.entries {
                let due = new.entry.due;
                if stored.ledger.get(&due).is_some_and(|fire| fire.run.is_some()) {
                    continue;
                }
                let run = new.run.as_ref().map(|run| run.id);
                let fired_at = run.map(|_| now);
                stored.ledger.insert(due, StoredFire { entry: new.entry, run, run_state: None, fired_at });
                accepted.extend(new.run);
            }
            for run in &accepted {
                state.accept(schedule.project, run);
            }
            for news in step.news {
                state.tell(&schedule, news);
            }
        }
        for run in accepted {
            self.runs.enqueue(run.in_project(schedule.project)).await?;
            if let Some((pipeline, _)) = run.pipeline {
                self.runs.make_run_of(pipeline, run.id);
            }
        }
        for run in step.cancelled {
            self.runs.request_cancel(run);
        }
        Ok(schedule)
    }

    async fn step(
        &self,
        id: ScheduleId,
        fired: Option<(DateTime<Utc>, DateTime<Utc>)>,
        is_change: bool,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError> {
        let now = Utc::now();
        let mut step = rule(self.locked(id, fired)?, now)?;
        if is_change {
            step.schedule.updated_at = now;
        }
        self.write(step, now).await
    }

    fn is_due(&self, stored: &StoredSchedule, now: DateTime<Utc>) -> bool {
        let has_ended = |fire: &StoredFire| {
            let run = fire.run.filter(|_| fire.run_state.is_none());
            run.is_some_and(|run| self.runs.run(run).is_none_or(|run| run.state.is_terminal()))
        };
        stored.schedule.look_at().is_some_and(|at| at <= now) || stored.ledger.values().any(has_ended)
    }
}

#[async_trait]
impl ScheduleStore for MemoryControl {
    async fn create_schedule(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewSchedule,
    ) -> Result<Creation<Schedule>, ControlError> {
        self.lock().create_schedule(*project.thing(), project.user(), new)
    }

    async fn find_schedule(
        &self,
        by: &Caller,
        schedule: ScheduleId,
    ) -> Result<Option<Found<Schedule>>, ControlError> {
        let state = self.lock();
        let Some(stored) = state.schedules.get(&schedule) else { return Ok(None) };
        Ok(state.found(by, stored.schedule.project, stored.schedule.clone()))
    }

    async fn list_schedules(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, ControlError> {
        let state = self.lock();
        let visible = |schedule: &&Schedule| {
            let Some(owning) = state.projects.get(&schedule.project) else { return false };
            visible_to.is_none_or(|user| owning.role(user).is_some())
                && project.is_none_or(|project| schedule.project == project)
                && before.is_none_or(|before| schedule.id < before)
        };
        let newest_first = state.schedules.values().rev().map(|stored| &stored.schedule);
        Ok(newest_first.filter(visible).take(limit).cloned().collect())
    }

    async fn change_schedule(
        &self,
        schedule: &Scoped<Schedule, right::Write>,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError> {
        self.step(schedule.id, None, true, rule).await
    }

    async fn act_on_schedule(
        &self,
        schedule: &Scoped<Schedule, right::Run>,
        fired: Option<(DateTime<Utc>, DateTime<Utc>)>,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError> {
        self.step(schedule.id, fired, false, rule).await
    }

    async fn list_calendar_schedules(
        &self,
        project: Option<ProjectId>,
        after: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, ControlError> {
        let state = self.lock();
        let found = state.schedules.values().map(|stored| &stored.schedule).filter(|schedule| {
            !schedule.calendars.files.is_empty()
                && project.is_none_or(|project| schedule.project == project)
                && after.is_none_or(|after| schedule.id > after)
        });
        Ok(found.take(limit).cloned().collect())
    }

    async fn renew_schedule(
        &self,
        schedule: ScheduleId,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError> {
        self.step(schedule, None, false, rule).await
    }

    async fn delete_schedule(&self, schedule: &Scoped<Schedule, right::Write>) -> Result<(), ControlError> {
        let mut state = self.lock();
        if let Some(gone) = state.schedules.remove(&schedule.id) {
            state.tell(&gone.schedule, ScheduleNews::Deleted);
        }
        Ok(())
    }

    async fn list_fires(
        &self,
        schedule: &Scoped<Schedule, right::Read>,
        before: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Fire>, ControlError> {
        let state = self.lock();
        let Some(stored) = state.schedules.get(&schedule.id) else { return Ok(Vec::new()) };
        let latest_first = stored.ledger.values().rev();
        let before = latest_first.filter(|fire| before.is_none_or(|before| fire.entry.due < before));
        Ok(before.take(limit).map(|fire| self.shown(fire)).collect())
    }

    async fn list_all_fires(&self, agenda: &Agenda, limit: usize) -> Result<Vec<AgendaFire>, ControlError> {
        let AgendaRange { from, to, .. } = agenda.range;
        let state = self.lock();
        let mut items = Vec::new();
        for stored in state.schedules.values().filter(|stored| state.is_on(agenda, &stored.schedule)) {
            let is_in_range = |fire: &&StoredFire| (from..to).contains(&fire.entry.due.at);
            items.extend(stored.ledger.values().filter(is_in_range).map(|fire| AgendaFire {
                schedule: stored.schedule.id,
                name: stored.schedule.name.clone(),
                fire: self.shown(fire),
            }));
        }
        items.sort_by_key(|item| std::cmp::Reverse((item.fire.due_at, item.fire.event, item.schedule)));
        items.truncate(limit);
        Ok(items)
    }

    async fn list_due_before(&self, agenda: &Agenda, limit: usize) -> Result<Vec<Schedule>, ControlError> {
        let state = self.lock();
        let is_due = |schedule: &&Schedule| {
            state.is_on(agenda, schedule)
                && schedule.pause.is_none()
                && schedule.next.is_some_and(|next| next.due_at < agenda.range.to)
        };
        let mut due: Vec<Schedule> =
            state.schedules.values().map(|stored| &stored.schedule).filter(is_due).cloned().collect();
        due.sort_by_key(|schedule| schedule.next.map(|next| next.due_at));
        due.truncate(limit);
        Ok(due)
    }

    async fn renew_zone_data(&self, _version: &str) -> Result<usize, ControlError> {
        // All is of this process, which knows one version.
        Ok(0)
    }

    async fn fire_schedules(&self, limit: usize, rule: &FireRule<'_>) -> Result<Round, ControlError> {
        let now = Utc::now();
        let due: Vec<ScheduleId> = {
            let state = self.lock();
            let due = state.schedules.values().filter(|stored| self.is_due(stored, now));
            due.take(limit).map(|stored| stored.schedule.id).collect()
        };
        let mut n_schedules = 0;
        for id in &due {
            let Ok(locked) = self.locked(*id, None) else { continue };
            if let Some(step) = rule(locked, now) {
                self.write(step, now).await?;
                n_schedules += 1;
            }
        }
        let next = self.lock().schedules.values().filter_map(|stored| stored.schedule.look_at()).min();
        Ok(Round {
            n_schedules,
            is_full: due.len() == limit || n_schedules < due.len(),
            next_in: next.map(|at| (at - Utc::now()).to_std().unwrap_or(Duration::ZERO)),
        })
    }

    async fn match_events(&self, limit: usize, rule: &EventRule<'_>) -> Result<MatchRound, ControlError> {
        if std::mem::replace(&mut self.lock().is_matching, true) {
            return Ok(MatchRound::Locked);
        }
        let round = self.match_alone(limit, rule).await;
        self.lock().is_matching = false;
        round
    }
}

impl MemoryControl {
    async fn match_alone(&self, limit: usize, rule: &EventRule<'_>) -> Result<MatchRound, ControlError> {
        let now = Utc::now();
        let (events, schedules) = {
            let state = self.lock();
            let events: Vec<LoggedEvent> =
                state.events.iter().filter(|event| event.seq > state.matched).take(limit).cloned().collect();
            let of_events = state.schedules.values().filter(|stored| stored.schedule.events_after.is_some());
            (events, of_events.map(|stored| stored.schedule.clone()).collect::<Vec<_>>())
        };
        if schedules.is_empty() {
            return Ok(MatchRound::NoSchedules);
        }
        for schedule in schedules {
            let due = schedule.fires_for(events.iter());
            if due.is_empty() {
                continue;
            }
            let cause = |event: &LoggedEvent| Cause { event: event.clone(), caused_by: Vec::new() };
            let causes = due.into_iter().map(cause).collect();
            let locked = LockedSchedule { causes, ..self.locked(schedule.id, None)? };
            self.write(rule(locked, now), now).await?;
        }
        let mut state = self.lock();
        state.matched = events.last().map_or(state.matched, |event| event.seq.max(state.matched));
        Ok(if events.len() == limit { MatchRound::Part } else { MatchRound::ToTheEnd })
    }
}

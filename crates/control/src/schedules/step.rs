//! One step of a schedule under its lock: what is read, and what is to be written.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_domain::{RunId, RunState, UserId};
use gathering_scheduler::{Due, DueEntry, FireOutcome, SkipReason};
use serde_json::{Value, json};

use super::{Cause, Schedule, ScheduleNews, ScheduledAction};
use crate::events::EventSeq;
use crate::runs::{PipelineToStart, PlannedRun, StartRun, StartedBy};
use crate::{Conflict, ControlError};

/// A fire whose run was not known to have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFire {
    /// What it fired for.
    pub due: Due,
    /// Its run.
    pub run: RunId,
    /// The state of the run; `None` if it was deleted.
    pub state: Option<RunState>,
}

/// A schedule with what a step of it depends on, all of it locked.
#[derive(Debug, Clone, PartialEq)]
pub struct LockedSchedule {
    /// The schedule.
    pub schedule: Schedule,
    /// Its fires whose runs were not known to have ended.
    pub open: Vec<OpenFire>,
    /// The pipeline that it starts; `None` if it starts none, or the pipeline is gone.
    pub pipeline: Option<PipelineToStart>,
    /// How long a run of its action may take, if it is a graph of its own.
    pub action_timeout: Option<Duration>,
    /// The event that waits for the end of earlier runs; `None` if none does, or it was deleted.
    pub queued_cause: Option<Cause>,
    /// The events that the step is about, in order.
    pub causes: Vec<Cause>,
    /// The last place of the log that is taken.
    pub log_end: EventSeq,
    /// The due times that have fired, of those that the step asked for.
    pub fired: BTreeSet<DateTime<Utc>>,
    /// The entries that each stand for all due times between two, of those that begin where the step asked for.
    pub ranges: Vec<(DateTime<Utc>, DateTime<Utc>)>,
}

/// A new entry of the ledger, with the run that it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// The entry.
    pub entry: DueEntry,
    /// Its run.
    pub run: Option<PlannedRun>,
}

/// What a step writes, as one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleStep {
    /// The schedule afterwards.
    pub schedule: Schedule,
    /// New entries of the ledger. The entry of a due time that has not fired is replaced.
    pub entries: Vec<LedgerEntry>,
    /// The entries whose runs have ended, each with the run's state.
    pub settled: Vec<(Due, RunState)>,
    /// Runs to accept beside the ledger.
    pub extra_runs: Vec<PlannedRun>,
    /// Runs to cancel.
    pub cancelled: Vec<RunId>,
    /// What to tell in the log of events.
    pub news: Vec<ScheduleNews>,
}

/// A rule that makes a step of a locked schedule at a moment of the store's clock, in UTC.
pub type StepRule<'a> =
    dyn Fn(LockedSchedule, DateTime<Utc>) -> Result<ScheduleStep, ControlError> + Send + Sync + 'a;

impl ScheduleStep {
    /// A step that changes nothing yet.
    pub(super) const fn of(schedule: Schedule) -> Self {
        Self {
            schedule,
            entries: Vec::new(),
            settled: Vec::new(),
            extra_runs: Vec::new(),
            cancelled: Vec::new(),
            news: Vec::new(),
        }
    }
}

impl LockedSchedule {
    /// The entry for what fires now with this outcome. Where nothing can be started, it is skipped.
    pub(super) fn start(&self, due: Due, outcome: FireOutcome, by: Option<UserId>) -> LedgerEntry {
        let (outcome, run) = match self.plan_run(due, by) {
            Ok(run) => (outcome, Some(run)),
            Err(ControlError::Conflict(Conflict::InvalidInput(_))) => {
                (FireOutcome::Skipped(SkipReason::InvalidInput), None)
            }
            Err(_) => (FireOutcome::Skipped(SkipReason::NotStartable), None),
        };
        LedgerEntry { entry: DueEntry { due, until: None, outcome }, run }
    }

    /// The event at this place.
    fn cause(&self, seq: EventSeq) -> Option<&Cause> {
        self.causes.iter().chain(&self.queued_cause).find(|cause| cause.event.seq == seq)
    }

    /// The event as the run gets it: null if somebody fired the schedule by hand; only its place if it was deleted while it
    /// waited; `None` if the schedule fires for no events.
    fn event_input(&self, due: Due) -> Option<Value> {
        self.schedule.timetable.trigger.events()?;
        let Some(seq) = due.event else { return Some(Value::Null) };
        Some(self.cause(seq).map_or_else(|| json!({ "seq": seq }), |cause| cause.event.to_json()))
    }

    /// Whether a run can be started.
    pub(super) fn is_startable(&self) -> bool {
        match (&self.schedule.action, &self.pipeline) {
            (ScheduledAction::Node { .. }, _) => true,
            (ScheduledAction::Pipeline { version, .. }, Some(pipeline)) => {
                pipeline.startable(self.schedule.project, *version).is_ok()
            }
            (ScheduledAction::Pipeline { .. }, None) => false,
        }
    }

    /// The run of what is due.
    ///
    /// # Errors
    /// [`Conflict::PipelineDisabled`] or [`Conflict::InvalidInput`]; [`ControlError::NotFound`] if the pipeline, or its
    /// version, is gone.
    pub(super) fn plan_run(&self, due: Due, by: Option<UserId>) -> Result<PlannedRun, ControlError> {
        let schedule = &self.schedule;
        let cause = due.event.and_then(|seq| self.cause(seq));
        let started_by = |is_action| StartedBy::Schedule { schedule: schedule.id, due, cause, by, is_action };
        match &schedule.action {
            ScheduledAction::Pipeline { version, input, .. } => {
                let pipeline = self.pipeline.as_ref().ok_or(ControlError::NotFound)?;
                let mut input = input.clone();
                if let (Some(event), Some(fields)) = (self.event_input(due), input.as_object_mut()) {
                    fields.insert("event".to_owned(), event);
                }
                pipeline.plan_run(started_by(false), schedule.project, *version, input)
            }
            ScheduledAction::Node { graph, .. } => {
                let mut input = json!({
                    "schedule": { "id": schedule.id, "name": schedule.name },
                    "due_at": due.at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
                });
                if let (Some(event), Some(fields)) = (self.event_input(due), input.as_object_mut()) {
                    fields.insert("event".to_owned(), event);
                }
                let start = StartRun { input, ..StartRun::default() };
                Ok(PlannedRun::new(started_by(true), *graph, self.action_timeout, start))
            }
        }
    }
}

//! Schedules: what starts runs at due times, and the ledger of these.

mod action;
mod agenda;
mod calendars;
mod change;
mod checked_action;
mod define;
mod event;
mod fire;
mod manual;
mod news;
mod step;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_domain::{ProjectId, RunId, RunState, ScheduleId};
use gathering_scheduler::{Due, FireOutcome, Next, SkipReason, Timetable};
use tokio::sync::Semaphore;

use crate::access::right::Right;
use crate::access::{OfProject, Scoped, right, visible_to};
use crate::events::EventSeq;
use crate::graphs::Graphs;
use crate::projects::ProjectControl;
use crate::{ControlError, ControlStore, Workspaces};

pub use action::ScheduledAction;
pub use agenda::{Agenda, AgendaFire, AgendaRange, Cut, UpcomingDue};
pub use calendars::Calendars;
pub use define::ScheduleSpec;
pub use define::{DefineSchedule, NewSchedule, OnFailure, SubmittedSchedule};
pub use event::{Cause, EventMatching, EventRule, MAX_CAUSES, MatchRound};
pub use fire::{FireRule, ScheduleFiring};
pub use manual::BackfillRange;
pub use news::ScheduleNews;
pub use step::{LedgerEntry, LockedSchedule, OpenFire, ScheduleStep, StepRule};

/// How many calendars are read at once.
const CALENDARS_AT_ONCE: usize = 2;

/// Why a schedule does not fire at its due times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// Somebody paused it.
    Request,
    /// Its runs failed as often in a row as `on_failure` allows.
    Failures,
}

impl PauseReason {
    /// Every reason.
    pub const ALL: [PauseReason; 2] = [PauseReason::Request, PauseReason::Failures];

    /// The word for it in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            PauseReason::Request => "request",
            PauseReason::Failures => "failures",
        }
    }
}

/// A schedule as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its id.
    pub id: ScheduleId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// What people call it.
    pub name: String,
    /// When it fires.
    pub timetable: Timetable,
    /// Where the days of the timetable come from that are not written out.
    pub calendars: Calendars,
    /// What it starts.
    pub action: ScheduledAction,
    /// What happens when its runs fail.
    pub on_failure: OnFailure,
    /// Why it does not fire now, if it is paused.
    pub pause: Option<PauseReason>,
    /// All due times until here are in the ledger, in UTC.
    pub passed_at: DateTime<Utc>,
    /// What waits for the end of earlier runs.
    pub queued: Option<Due>,
    /// What fires next.
    pub next: Option<Next>,
    /// It fires for events after this place in the log; `None` if its trigger is another, or it has fired for the last.
    pub events_after: Option<EventSeq>,
    /// The version of the time zones by which that was computed.
    pub zone_data: String,
    /// How many due times have fired; not those that were triggered or backfilled by hand.
    pub n_fires: u32,
    /// How many of its last runs failed in a row.
    pub n_failures: u32,
    /// When it fired last, in UTC.
    pub last_fire_at: Option<DateTime<Utc>>,
    /// When it was created, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, in UTC.
    pub updated_at: DateTime<Utc>,
}

impl Schedule {
    /// When the loop that fires has to look at it next, in UTC: a paused schedule never, one with a waiting due time when its
    /// runs have ended, which they tell.
    pub fn look_at(&self) -> Option<DateTime<Utc>> {
        let next = self.next.map(|next| next.fire_at);
        if self.pause.is_some() { None } else { next }
    }

    /// The number that makes its jitter differ from that of others.
    pub(crate) const fn seed(&self) -> u128 {
        self.id.as_uuid().as_u128()
    }
}

impl OfProject for Schedule {
    fn project(&self) -> ProjectId {
        self.project
    }
}

/// An entry of the ledger, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fire {
    /// The due time, in UTC.
    pub due_at: DateTime<Utc>,
    /// The event that it fired for, which was written at `due_at`.
    pub event: Option<EventSeq>,
    /// The entry stands for all due times until here.
    pub until: Option<DateTime<Utc>>,
    /// What became of it: the words of [`FireOutcome`].
    pub outcome: String,
    /// Why it was skipped: the words of [`SkipReason`].
    pub reason: Option<String>,
    /// The run that it started.
    pub run: Option<RunId>,
    /// The state of that run; also after the run itself was deleted.
    pub run_state: Option<RunState>,
    /// When it fired, in UTC.
    pub fired_at: Option<DateTime<Utc>>,
}

impl Fire {
    /// The words of an outcome.
    pub const OUTCOMES: [&'static str; 4] = [
        FireOutcome::Started.as_str(),
        FireOutcome::CaughtUp.as_str(),
        FireOutcome::Queued.as_str(),
        FireOutcome::Skipped(SkipReason::Missed).as_str(),
    ];
}

/// What may be done with schedules. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct ScheduleControl {
    store: Arc<dyn ControlStore>,
    projects: ProjectControl,
    graphs: Graphs,
    /// Where calendars are; without them there are none.
    files: Option<Workspaces>,
    /// How many calendars are read at once: one that was made for that takes a processor for a second.
    reading: Arc<Semaphore>,
}

impl ScheduleControl {
    /// The schedules of this store, whose graphs are these.
    pub fn new(store: Arc<dyn ControlStore>, graphs: Graphs) -> Self {
        let projects = ProjectControl::new(Arc::clone(&store));
        Self { store, projects, graphs, files: None, reading: Arc::new(Semaphore::new(CALENDARS_AT_ONCE)) }
    }

    /// The same with calendars in these workspaces.
    #[must_use]
    pub fn with_files(self, files: Workspaces) -> Self {
        Self { files: Some(files), ..self }
    }

    /// The schedule, if the caller may do `R` with it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn find<R: Right>(
        &self,
        caller: &Caller,
        schedule: ScheduleId,
    ) -> Result<Scoped<Schedule, R>, ControlError> {
        Scoped::check(caller, self.store.find_schedule(caller, schedule).await?)
    }

    /// At most `limit` of the schedules that the caller may see, the newest first; those of one project if it is given.
    /// `before` is the last of the previous page.
    ///
    /// # Errors
    /// [`ControlError::Forbidden`] for an API key without the scope to read, or the store's.
    pub async fn list(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        before: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, ControlError> {
        self.store.list_schedules(visible_to(caller)?, project, before, limit).await
    }

    /// At most `limit` entries of the schedule's ledger, the latest first, before `before`.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn list_fires(
        &self,
        caller: &Caller,
        schedule: ScheduleId,
        before: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Fire>, ControlError> {
        let schedule = self.find::<right::Read>(caller, schedule).await?;
        self.store.list_fires(&schedule, before, limit).await
    }

    /// Deletes the schedule with its ledger. Its runs stay.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn delete(&self, caller: &Caller, schedule: ScheduleId) -> Result<(), ControlError> {
        let schedule = self.find::<right::Write>(caller, schedule).await?;
        self.store.delete_schedule(&schedule).await
    }
}

//! What is kept of schedules and their ledgers.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_domain::{ProjectId, ScheduleId, UserId};
use gathering_scheduler::{Due, Round};

use crate::access::{Found, Scoped, right};
use crate::schedules::{
    Agenda, AgendaFire, EventRule, Fire, FireRule, MatchRound, NewSchedule, Schedule, StepRule,
};
use crate::{ControlError, Creation};

/// Keeps schedules and their ledgers. What [`ControlStore`](crate::ControlStore) says of every method holds here. The
/// store's clock decides what time it is.
#[async_trait]
pub trait ScheduleStore: Send + Sync + 'static {
    /// Creates a schedule as [`NewSchedule::of`] makes it.
    ///
    /// With `new.once` and a caller it creates one schedule: a repeated request is answered with that one, for at least
    /// 24 hours. Of several such requests at once, one creates a schedule.
    ///
    /// # Errors
    /// Those of [`NewSchedule::of`]; [`ControlError::NotFound`] if the project is gone. Nothing was created.
    async fn create_schedule(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewSchedule,
    ) -> Result<Creation<Schedule>, ControlError>;

    /// The schedule, and the caller's role in its project; also if they are not a member.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn find_schedule(
        &self,
        by: &Caller,
        schedule: ScheduleId,
    ) -> Result<Option<Found<Schedule>>, ControlError>;

    /// At most `limit` schedules of accounts, the newest first: those in the projects of this member (absent: all), in
    /// this project (absent: in any), and older than `before`.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_schedules(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, ControlError>;

    /// Changes the schedule to what `rule` makes of it under a lock, and sets `updated_at` to the store's time.
    ///
    /// # Errors
    /// Those of `rule`; [`ControlError::NotFound`] if the schedule is gone. Nothing was changed.
    async fn change_schedule(
        &self,
        schedule: &Scoped<Schedule, right::Write>,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError>;

    /// As [`change_schedule`](Self::change_schedule), for what only starts runs or stops them. The rule gets the due times
    /// that have fired between these two moments, both included.
    ///
    /// # Errors
    /// As [`change_schedule`](Self::change_schedule).
    async fn act_on_schedule(
        &self,
        schedule: &Scoped<Schedule, right::Run>,
        fired: Option<(DateTime<Utc>, DateTime<Utc>)>,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError>;

    /// At most `limit` of the schedules whose days come from files, in the order of their ids, after this one: those of
    /// this project (absent: of any). For the server itself.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_calendar_schedules(
        &self,
        project: Option<ProjectId>,
        after: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, ControlError>;

    /// As [`change_schedule`](Self::change_schedule), for the server itself: `updated_at` stays.
    ///
    /// # Errors
    /// As [`change_schedule`](Self::change_schedule).
    async fn renew_schedule(
        &self,
        schedule: ScheduleId,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError>;

    /// Deletes the schedule with its ledger. Its runs stay. Repeats: safe.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn delete_schedule(&self, schedule: &Scoped<Schedule, right::Write>) -> Result<(), ControlError>;

    /// At most `limit` entries of the ledger, the latest first, before `before`.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_fires(
        &self,
        schedule: &Scoped<Schedule, right::Read>,
        before: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Fire>, ControlError>;

    /// At most `limit` entries of the ledgers of all schedules of the agenda, of due times in its range, the latest first.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_all_fires(&self, agenda: &Agenda, limit: usize) -> Result<Vec<AgendaFire>, ControlError>;

    /// At most `limit` schedules of the agenda that are not paused and whose next due time is before the end of its range,
    /// the earliest first.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_due_before(&self, agenda: &Agenda, limit: usize) -> Result<Vec<Schedule>, ControlError>;

    /// Has the schedules planned anew at once whose due times were computed by another version of the time zones; answers
    /// with how many. Repeats: safe.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn renew_zone_data(&self, version: &str) -> Result<usize, ControlError>;

    /// Applies `rule` to at most `limit` schedules that are due, or of which a run has ended, and that no other caller has
    /// locked, and writes its steps, all in one transaction. This is the store's own doing, for the loop that fires.
    ///
    /// # Errors
    /// As [`ControlError`] says. Nothing was written, or all of it was; the next call goes on from there.
    async fn fire_schedules(&self, limit: usize, rule: &FireRule<'_>) -> Result<Round, ControlError>;

    /// Goes on through the log of events, at most `limit` of them and about [`MAX_CAUSES`](crate::MAX_CAUSES) pairs of an event
    /// and a schedule: applies `rule` to every schedule that [fires for](Schedule::fires_for) one, with all of these, and writes
    /// the steps and how far it came, in one transaction. One caller at a time does so. This is the store's own doing.
    ///
    /// # Errors
    /// As [`ControlError`] says. Nothing was written, or all of it was; the next call goes on from there.
    async fn match_events(&self, limit: usize, rule: &EventRule<'_>) -> Result<MatchRound, ControlError>;
}

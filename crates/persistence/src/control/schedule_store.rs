//! The port for schedules. What its methods do is in the files of their noun.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use gathering_auth::Caller;
use gathering_control::{
    Agenda, AgendaFire, ControlError, Creation, EventRule, Fire, FireRule, Found, MatchRound, NewSchedule,
    Schedule, ScheduleStore, Scoped, StepRule, right,
};
use gathering_domain::{ProjectId, ScheduleId, UserId};
use gathering_scheduler::{Due, Round};

use crate::cluster::wake::Wake;
use crate::control::schedules::events::{self, LogPart};
use crate::control::schedules::{self, calendars, ledger, step};
use crate::control::store::PgControlStore;
use crate::db::error::{Aborted, DatabaseError};

#[async_trait]
impl ScheduleStore for PgControlStore {
    async fn create_schedule(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewSchedule,
    ) -> Result<Creation<Schedule>, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let (project, by) = (*project.thing(), project.user());
        let created = conn.transaction(async |conn| schedules::create(conn, project, by, new).await).await;
        let created = created.map_err(|aborted| aborted.into_error("creating a schedule"))?;
        self.wakes.wake(Wake::Schedules);
        self.wakes.wake(Wake::Log);
        Ok(created)
    }

    async fn find_schedule(
        &self,
        by: &Caller,
        schedule: ScheduleId,
    ) -> Result<Option<Found<Schedule>>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(schedules::find_as(&conn, schedule, by.user).await?)
    }

    async fn list_schedules(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(schedules::list(&conn, visible_to, project, before, limit).await?)
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
        let conn = self.pool.get().await?;
        Ok(calendars::list(&conn, project, after, limit).await?)
    }

    async fn renew_schedule(
        &self,
        schedule: ScheduleId,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let renewed = conn.transaction(async |conn| {
            let (schedule, wake_ups) = step::one(conn, schedule, None, false, rule).await?;
            calendars::rewrite(conn, &schedule).await?;
            Ok((schedule, wake_ups))
        });
        let renewed: Result<_, Aborted<ControlError>> = renewed.await;
        let (schedule, wake_ups) = renewed.map_err(|aborted| aborted.into_error("renewing a schedule"))?;
        wake_ups.send(&self.wakes);
        self.wakes.wake(Wake::Schedules);
        Ok(schedule)
    }

    async fn delete_schedule(&self, schedule: &Scoped<Schedule, right::Write>) -> Result<(), ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let deleted = conn.transaction(async |conn| schedules::delete(conn, schedule).await).await;
        if deleted.map_err(|error| DatabaseError::query("deleting a schedule", error))? {
            self.wakes.wake(Wake::Log);
        }
        Ok(())
    }

    async fn list_fires(
        &self,
        schedule: &Scoped<Schedule, right::Read>,
        before: Option<Due>,
        limit: usize,
    ) -> Result<Vec<Fire>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(ledger::list(&conn, schedule.id, before, limit).await?)
    }

    async fn list_all_fires(&self, agenda: &Agenda, limit: usize) -> Result<Vec<AgendaFire>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(ledger::list_all(&conn, agenda, limit).await?)
    }

    async fn list_due_before(&self, agenda: &Agenda, limit: usize) -> Result<Vec<Schedule>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(schedules::list_due_before(&conn, agenda, limit).await?)
    }

    async fn renew_zone_data(&self, version: &str) -> Result<usize, ControlError> {
        let conn = self.pool.get().await?;
        Ok(schedules::renew_zone_data(&conn, version).await?)
    }

    async fn fire_schedules(&self, limit: usize, rule: &FireRule<'_>) -> Result<Round, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let fired = conn.transaction(async |conn| step::due(conn, limit, rule).await).await;
        let (round, wake_ups) = fired.map_err(|aborted| aborted.into_error("firing schedules"))?;
        wake_ups.send(&self.wakes);
        Ok(round)
    }

    async fn match_events(&self, limit: usize, rule: &EventRule<'_>) -> Result<MatchRound, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let Some(since) = events::first_wanted(conn).await? else { return Ok(MatchRound::NoSchedules) };
        // Outside of the transaction, which would wait for itself.
        let end = self.log.look(conn).await?;
        let part = LogPart { since, until: end.settled.unwrap_or(0), pruned_until: end.pruned_until, limit };
        let matched = conn.transaction(async |conn| events::go_on(conn, part, rule).await).await;
        let (round, wake_ups) =
            matched.map_err(|aborted| aborted.into_error("firing schedules for events"))?;
        wake_ups.send(&self.wakes);
        Ok(if round == MatchRound::ToTheEnd && end.is_held_back() { MatchRound::HeldBack } else { round })
    }
}

impl PgControlStore {
    async fn step(
        &self,
        id: ScheduleId,
        fired: Option<(DateTime<Utc>, DateTime<Utc>)>,
        is_change: bool,
        rule: &StepRule<'_>,
    ) -> Result<Schedule, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let stepped = conn.transaction(async |conn| step::one(conn, id, fired, is_change, rule).await).await;
        let (schedule, wake_ups) = stepped.map_err(|aborted| aborted.into_error("changing a schedule"))?;
        wake_ups.send(&self.wakes);
        self.wakes.wake(Wake::Schedules);
        Ok(schedule)
    }
}

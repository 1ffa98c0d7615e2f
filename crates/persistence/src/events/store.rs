//! The port for events. What its methods do is in the files beside this one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use gathering_control::{
    Audience, ControlError, EventPage, EventSeq, EventStore, EventsOf, NewEvent, PostedEvent, Scoped, right,
};
use gathering_domain::ProjectId;

use super::{append, list};
use crate::cluster::wake::Wake;
use crate::control::store::PgControlStore;
use crate::db::error::DatabaseError;

/// How long the end of the log may be unknown: until the transactions have ended that write to it when it is read first.
const UNKNOWN_END: Duration = Duration::from_secs(5);

/// The pause between two looks meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

#[async_trait]
impl EventStore for PgControlStore {
    async fn append_events(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        events: &[NewEvent],
    ) -> Result<Vec<PostedEvent>, ControlError> {
        let posted = {
            let mut conn = self.pool.get().await?;
            let conn: &mut AsyncPgConnection = &mut conn;
            let appended =
                conn.transaction(async |conn| append::append(conn, *project.thing(), events).await).await;
            appended.map_err(|aborted| aborted.into_error("appending events"))?
        };
        if posted.iter().any(|posted| !posted.is_repeated) {
            self.wakes.wake(Wake::Log);
        }
        Ok(posted)
    }

    async fn list_events(
        &self,
        of: &EventsOf,
        after: EventSeq,
        limit: usize,
    ) -> Result<EventPage, ControlError> {
        let conn = self.pool.get().await?;
        Ok(list::list(&conn, &self.log, of, after, limit).await?)
    }

    async fn last_event(&self) -> Result<EventSeq, ControlError> {
        let begun = Instant::now();
        loop {
            // The connection goes back to the pool between two looks.
            let last = list::last(&*self.pool.get().await?, &self.log).await?;
            match last {
                Some(seq) => return Ok(seq),
                None if begun.elapsed() < UNKNOWN_END => tokio::time::sleep(LOOK_INTERVAL).await,
                None => {
                    let open = "a transaction that has the log open to write does not end";
                    return Err(
                        DatabaseError::timed_out("waiting for the end of the log of events", open).into()
                    );
                }
            }
        }
    }

    async fn list_audiences(
        &self,
        projects: &[ProjectId],
    ) -> Result<HashMap<ProjectId, Audience>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(list::audiences(&conn, projects).await?)
    }
}

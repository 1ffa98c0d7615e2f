//! Reading the log.

use std::collections::HashMap;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{Audience, EventPage, EventSeq, EventsOf, LoggedEvent};
use gathering_domain::{ProjectId, UserId};
use uuid::Uuid;

use super::row::Row;
use super::settled::SettledLog;
use crate::control::projects::{hidden_projects, is_of_accounts};
use crate::db::error::DatabaseError;
use crate::db::schema::{events, project_members, projects};

/// At most `limit` events after `after` of what is settled.
pub(super) async fn list(
    mut conn: &AsyncPgConnection,
    log: &SettledLog,
    of: &EventsOf,
    after: EventSeq,
    limit: usize,
) -> Result<EventPage, DatabaseError> {
    let end = log.look(conn).await?;
    let mut rows: Vec<Row> = Vec::new();
    let settled = end.settled.unwrap_or(0);
    if after < settled {
        rows = seen(of)
            .filter(events::seq.gt(after).and(events::seq.le(settled)))
            .order(events::seq)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select(Row::as_select())
            .load(&mut conn)
            .await
            .map_err(|error| DatabaseError::query("reading events", error))?;
    }
    let events: Vec<LoggedEvent> = rows.into_iter().map(Into::into).collect();
    let until = match events.last() {
        Some(last) if events.len() == limit => last.seq,
        _ => settled.max(after),
    };
    Ok(EventPage { events, until, is_held_back: end.is_held_back(), pruned_until: end.pruned_until })
}

/// The settled end of the log; `None` while that is not known.
pub(super) async fn last(
    conn: &AsyncPgConnection,
    log: &SettledLog,
) -> Result<Option<EventSeq>, DatabaseError> {
    Ok(log.look(conn).await?.settled)
}

fn seen(of: &EventsOf) -> events::BoxedQuery<'static, Pg> {
    let query = events::table.into_boxed();
    match *of {
        EventsOf::Project(project) => query.filter(events::project_id.eq(project.as_uuid())),
        EventsOf::Member(user) => {
            let own = project_members::table
                .inner_join(projects::table)
                .filter(project_members::user_id.eq(user.as_uuid()))
                .filter(is_of_accounts())
                .select(project_members::project_id.nullable());
            query.filter(events::project_id.eq_any(own))
        }
        EventsOf::Admin => {
            let is_hidden = events::project_id.eq_any(hidden_projects().select(projects::id.nullable()));
            query.filter(events::project_id.is_null().or(diesel::dsl::not(is_hidden)))
        }
        EventsOf::Everything => query,
    }
}

/// The members of those of the projects that accounts can see.
pub(super) async fn audiences(
    mut conn: &AsyncPgConnection,
    of: &[ProjectId],
) -> Result<HashMap<ProjectId, Audience>, DatabaseError> {
    let ids: Vec<Uuid> = of.iter().map(|project| project.as_uuid()).collect();
    let rows: Vec<(Uuid, Option<Uuid>)> = projects::table
        .left_join(project_members::table)
        .filter(projects::id.eq_any(ids).and(is_of_accounts()))
        .select((projects::id, project_members::user_id.nullable()))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("reading who sees events", error))?;
    let mut audiences = HashMap::<ProjectId, Audience>::new();
    for (project, member) in rows {
        audiences.entry(project.into()).or_default().members.extend(member.map(UserId::from));
    }
    Ok(audiences)
}

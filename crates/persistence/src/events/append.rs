//! Appending posted events.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Json, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{ControlError, LoggedEvent, NewEvent, PostedEvent};
use gathering_domain::ProjectId;
use serde_json::Value;
use uuid::Uuid;

use super::row::{Row, SUBJECT};
use crate::db::error::Aborted;
use crate::db::schema::{events, projects};

/// How often it reads what stands instead of an event: retention may delete that in between.
const N_ATTEMPTS: usize = 3;

/// Appends the events in one statement, and finds those that stood there before.
pub(crate) async fn append(
    conn: &AsyncPgConnection,
    project: ProjectId,
    new: &[NewEvent],
) -> Result<Vec<PostedEvent>, Aborted<ControlError>> {
    let mut posted: Vec<Option<PostedEvent>> = vec![None; new.len()];
    for _ in 0..N_ATTEMPTS {
        let open: Vec<usize> = (0..new.len()).filter(|place| posted[*place].is_none()).collect();
        if open.is_empty() {
            break;
        }
        let rest: Vec<&NewEvent> = open.iter().map(|place| &new[*place]).collect();
        let inserted = insert(conn, project, &rest).await?;
        let found = load(conn, project, &rest, &inserted).await?;
        for (place, event) in open.into_iter().zip(rest) {
            posted[place] = found.of(event);
        }
    }
    posted.into_iter().collect::<Option<_>>().ok_or(Aborted::Refused(ControlError::NotFound))
}

/// Inserts those whose key is not taken. The lock of the project is taken first: it says that the project is not being
/// deleted, and gives the transaction its number before the first `seq` is taken, as the readers of the log expect.
async fn insert(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    new: &[&NewEvent],
) -> Result<Vec<i64>, Aborted<ControlError>> {
    #[derive(diesel::QueryableByName)]
    struct Inserted {
        #[diesel(sql_type = BigInt)]
        seq: i64,
    }
    let locked: Option<Uuid> = projects::table
        .find(project.as_uuid())
        .filter(crate::control::projects::is_of_accounts())
        .select(projects::id)
        .for_key_share()
        .first(&mut conn)
        .await
        .optional()?;
    if locked.is_none() {
        return Err(Aborted::Refused(ControlError::NotFound));
    }
    let rows: Vec<Inserted> = diesel::sql_query(
        "INSERT INTO events (project_id, id, type, key, source, attributes, data)
         SELECT $1, new.id, new.type, new.key, new.source, new.attributes, new.data
         FROM unnest($2, $3, $4, $5, $6, $7) WITH ORDINALITY AS new (id, type, key, source, attributes, data, place)
         ORDER BY new.place
         ON CONFLICT DO NOTHING
         RETURNING seq",
    )
    .bind::<SqlUuid, _>(project.as_uuid())
    .bind::<Array<SqlUuid>, _>(new.iter().map(|event| event.id).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(new.iter().map(|event| event.event_type.as_str()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(new.iter().map(|event| event.key.as_deref()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(new.iter().map(|event| event.source.as_deref()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Json>>, _>(new.iter().map(|event| attributes(event)).collect::<Vec<_>>())
    .bind::<Array<Json>, _>(new.iter().map(|event| &event.data).collect::<Vec<_>>())
    .load(&mut conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.seq).collect())
}

fn attributes(event: &NewEvent) -> Option<Value> {
    let mut attributes = event.attributes.clone();
    if let Some(subject) = &event.subject {
        attributes.insert(SUBJECT.to_owned(), Value::String(subject.clone()));
    }
    (!attributes.is_empty()).then_some(Value::Object(attributes))
}

/// The events of a request that are in the log.
struct InLog {
    by_id: HashMap<Uuid, LoggedEvent>,
    /// Those that stood there before, by source and key, or by type and key.
    by_key: HashMap<(bool, String, String), LoggedEvent>,
}

impl InLog {
    fn of(&self, new: &NewEvent) -> Option<PostedEvent> {
        if let Some(event) = self.by_id.get(&new.id) {
            return Some(PostedEvent { event: event.clone(), is_repeated: false });
        }
        let event =
            self.by_key.get(&name_of(new.source.as_ref(), new.event_type.as_str(), new.key.as_ref()?))?;
        Some(PostedEvent { event: event.clone(), is_repeated: true })
    }
}

fn name_of(source: Option<&String>, event_type: &str, key: &str) -> (bool, String, String) {
    let space = source.map_or(event_type, String::as_str);
    (source.is_some(), space.to_owned(), key.to_owned())
}

async fn load(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    new: &[&NewEvent],
    inserted: &[i64],
) -> QueryResult<InLog> {
    let rows: Vec<Row> =
        events::table.filter(events::seq.eq_any(inserted)).select(Row::as_select()).load(&mut conn).await?;
    let fresh: Vec<LoggedEvent> = rows.into_iter().map(Into::into).collect();
    let mut found = fresh.clone();
    if inserted.len() < new.len() {
        found.extend(load_earlier(conn, project, new).await?);
    }
    let by_key = found.iter().filter_map(|event| {
        let key = event.key.as_ref()?;
        Some((name_of(event.source.as_ref(), &event.event_type, key), event.clone()))
    });
    Ok(InLog {
        by_key: by_key.collect(),
        by_id: fresh.into_iter().filter_map(|event| Some((event.id?, event))).collect(),
    })
}

/// The events of the project with the keys of these.
async fn load_earlier(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    new: &[&NewEvent],
) -> QueryResult<Vec<LoggedEvent>> {
    let keys = |of_source: bool| {
        let keyed = new.iter().filter(move |event| event.source.is_some() == of_source);
        keyed.filter_map(|event| {
            let space = event.source.as_deref().unwrap_or_else(|| event.event_type.as_str());
            Some((space, event.key.as_deref()?))
        })
    };
    let (types, keys_of_types): (Vec<&str>, Vec<&str>) = keys(false).unzip();
    let (sources, keys_of_sources): (Vec<&str>, Vec<&str>) = keys(true).unzip();
    #[derive(diesel::QueryableByName)]
    struct Earlier {
        #[diesel(sql_type = BigInt)]
        seq: i64,
    }
    let earlier: Vec<Earlier> = diesel::sql_query(
        "SELECT events.seq FROM unnest($2, $3) AS wanted (type, key)
         JOIN events ON events.project_id = $1 AND events.type = wanted.type AND events.key = wanted.key
             AND events.source IS NULL
         UNION ALL
         SELECT events.seq FROM unnest($4, $5) AS wanted (source, key)
         JOIN events ON events.project_id = $1 AND events.source = wanted.source AND events.key = wanted.key",
    )
    .bind::<SqlUuid, _>(project.as_uuid())
    .bind::<Array<Text>, _>(types)
    .bind::<Array<Text>, _>(keys_of_types)
    .bind::<Array<Text>, _>(sources)
    .bind::<Array<Text>, _>(keys_of_sources)
    .load(&mut conn)
    .await?;
    let seqs: Vec<i64> = earlier.into_iter().map(|row| row.seq).collect();
    let rows: Vec<Row> =
        events::table.filter(events::seq.eq_any(seqs)).select(Row::as_select()).load(&mut conn).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

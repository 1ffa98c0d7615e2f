//! Deliveries that do something: the entry of the ledger, and the event or the run, in one transaction.
//!
//! The entry comes first. Its unique key makes a delivery that comes again wait for the first, and then find it. If the
//! transaction fails, nothing of it is there, and the key is free.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{
    ControlError, Delivered, DeliveryOutcome, HookDelivery, PlannedAct, PlannedDelivery,
};
use gathering_domain::RunId;
use uuid::Uuid;

use super::ledger::Row;
use super::refused;
use crate::cluster::wake::Wake;
use crate::control::pipelines::{self, PipelineToLock};
use crate::control::projects::is_of_accounts;
use crate::db::error::{Aborted, Refusal, violated};
use crate::db::schema::{hook_deliveries, projects};
use crate::events::append;
use crate::runs::accept::RunOrigin;
use crate::runs::transitions::insert::insert;

/// How often it looks for the first delivery of a key: retention may delete that in between.
const N_ATTEMPTS: usize = 3;

/// Enters the delivery and does what it is to do, or finds the first one of its key. Answers also with the wake-up that is
/// due after the commit.
pub(crate) async fn deliver(
    conn: &AsyncPgConnection,
    planned: &PlannedDelivery,
) -> Result<(Delivered, Option<Wake>), Aborted<ControlError>> {
    lock_project(conn, planned).await?;
    for _ in 0..N_ATTEMPTS {
        if let Some(received_at) = enter(conn, planned).await? {
            let mut entry = entry_of(planned, received_at);
            let wake = act(conn, planned, &mut entry).await?;
            return Ok((Delivered { delivery: entry, is_repeated: false }, wake));
        }
        if let Some(first) = count_repeat(conn, planned).await? {
            let delivery = first.try_into().map_err(refused)?;
            return Ok((Delivered { delivery, is_repeated: true }, None));
        }
    }
    Err(Aborted::Refused(ControlError::Outdated))
}

/// Keeps the project from being hidden until the end of the transaction, and gives the transaction its number before it
/// takes a place in the log of events.
async fn lock_project(
    mut conn: &AsyncPgConnection,
    planned: &PlannedDelivery,
) -> Result<(), Aborted<ControlError>> {
    let locked: Option<Uuid> = projects::table
        .find(planned.project.as_uuid())
        .filter(is_of_accounts())
        .select(projects::id)
        .for_key_share()
        .first(&mut conn)
        .await
        .optional()?;
    locked.map(drop).ok_or(Aborted::Refused(ControlError::NotFound))
}

/// Enters the delivery; `None` if there is one of its key.
async fn enter(
    mut conn: &AsyncPgConnection,
    planned: &PlannedDelivery,
) -> Result<Option<DateTime<Utc>>, Aborted<ControlError>> {
    let (outcome, reason) = planned.outcome();
    let inserted = diesel::insert_into(hook_deliveries::table)
        .values((
            hook_deliveries::id.eq(planned.id.as_uuid()),
            hook_deliveries::hook_id.eq(planned.hook.as_uuid()),
            hook_deliveries::key.eq(planned.key.as_deref()),
            hook_deliveries::outcome.eq(outcome.as_str()),
            hook_deliveries::reason.eq(reason.map(|reason| reason.as_str())),
            hook_deliveries::redelivery_of.eq(planned.redelivery_of.map(|first| first.as_uuid())),
            hook_deliveries::call.eq(&planned.call),
            hook_deliveries::size_bytes.eq(planned.size_bytes),
        ))
        .on_conflict_do_nothing()
        .returning(hook_deliveries::received_at)
        .get_results(&mut conn)
        .await;
    let received: Vec<DateTime<Utc>> =
        inserted.map_err(|error| match violated(&error, Refusal::ForeignKey) {
            Some("hook_deliveries_hook_id_fkey") => Aborted::Refused(ControlError::NotFound),
            _ => Aborted::Query(error),
        })?;
    Ok(received.into_iter().next())
}

/// Counts a repetition at the first delivery of the key, and answers with that.
async fn count_repeat(mut conn: &AsyncPgConnection, planned: &PlannedDelivery) -> QueryResult<Option<Row>> {
    let Some(key) = &planned.key else { return Ok(None) };
    let first = hook_deliveries::table
        .filter(hook_deliveries::hook_id.eq(planned.hook.as_uuid()).and(hook_deliveries::key.eq(key)))
        .filter(hook_deliveries::redelivery_of.is_null())
        .filter(hook_deliveries::outcome.ne(DeliveryOutcome::Refused.as_str()));
    let rows: Vec<Row> = diesel::update(first)
        .set(hook_deliveries::n_repeats.eq(hook_deliveries::n_repeats + 1))
        .returning(Row::as_returning())
        .get_results(&mut conn)
        .await?;
    Ok(rows.into_iter().next())
}

fn entry_of(planned: &PlannedDelivery, received_at: DateTime<Utc>) -> HookDelivery {
    let (outcome, reason) = planned.outcome();
    HookDelivery {
        id: planned.id,
        key: planned.key.clone(),
        outcome,
        reason: reason.map(|reason| reason.to_string()),
        detail: None,
        run: None,
        event: None,
        redelivery_of: planned.redelivery_of,
        size_bytes: planned.size_bytes,
        n_repeats: 0,
        n_calls: 1,
        is_kept: true,
        received_at,
    }
}

/// Posts the event or accepts the run, and writes into the entry which it is.
async fn act(
    mut conn: &AsyncPgConnection,
    planned: &PlannedDelivery,
    entry: &mut HookDelivery,
) -> Result<Option<Wake>, Aborted<ControlError>> {
    let wake = match &planned.act {
        PlannedAct::Nothing(_) => return Ok(None),
        PlannedAct::Event(event) => {
            let posted = append::append(conn, planned.project, std::slice::from_ref(&**event)).await?;
            entry.event = posted.into_iter().next().map(|posted| posted.event.seq);
            Wake::Log
        }
        PlannedAct::Run { .. } => {
            entry.run = Some(start(conn, planned).await?);
            Wake::Runs
        }
    };
    diesel::update(hook_deliveries::table.find(planned.id.as_uuid()))
        .set((
            hook_deliveries::run_id.eq(entry.run.map(RunId::as_uuid)),
            hook_deliveries::event_seq.eq(entry.event),
        ))
        .execute(&mut conn)
        .await?;
    Ok(Some(wake))
}

async fn start(conn: &AsyncPgConnection, planned: &PlannedDelivery) -> Result<RunId, Aborted<ControlError>> {
    let found = match &planned.act {
        PlannedAct::Run { pipeline, version, .. } => {
            let wanted = PipelineToLock { pipeline: *pipeline, version: *version };
            pipelines::lock_for_start(conn, HashSet::from([wanted])).await.map_err(refused)?.remove(&wanted)
        }
        _ => None,
    };
    let run = planned.plan_run(found.as_ref()).map_err(Aborted::Refused)?;
    insert(conn, &run.in_project(planned.project), &RunOrigin::of(&run)).await?;
    Ok(run.id)
}

//! Writing checkpoints: many runs, one statement, fenced.
//!
//! One statement is one transaction, so it stands as a whole or not at all. A lost claim shows in two ways. Its release
//! finds no row with its owner and epoch: the same statement then leaves out its records. Or its records meet a number
//! that is taken: the whole statement fails and is repeated run by run, so that a lost claim refuses only itself.

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Checkpoint, Release, StoreError};
use gathering_domain::RunState;
use uuid::Uuid;

use crate::db::all_runs::all_runs;
use crate::db::error::DatabaseError;
use crate::db::schema::active_runs;
use crate::runs::journal;
use crate::runs::journal::insert::{Entries, append};
use crate::runs::transitions::release::{Commit, Released};
use crate::runs::transitions::wake_ups::WakeUps;

/// The outcome of a batch.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// One answer for each checkpoint, in their order.
    pub(crate) answers: Vec<Result<(), StoreError>>,
    /// What the batch owes.
    pub(crate) wake_ups: WakeUps,
}

/// A checkpoint and its place in the batch.
type Placed<'a> = (usize, &'a Checkpoint);

/// Writes the checkpoints.
///
/// Ends that leave children behind come last, with a statement of their own: a child that the same batch parks or requeues
/// must be told, and one statement cannot change its row twice.
pub(crate) async fn commit(
    conn: &mut AsyncPgConnection,
    checkpoints: &[Checkpoint],
) -> Result<Committed, DatabaseError> {
    let (last, first): (Vec<Placed<'_>>, Vec<Placed<'_>>) =
        checkpoints.iter().enumerate().partition(|(_, checkpoint)| abandons_children(checkpoint));
    let mut wake_ups = WakeUps::default();
    let mut answers = Vec::with_capacity(checkpoints.len());
    for group in [first, last] {
        write_group(conn, &group, &mut answers, &mut wake_ups).await?;
    }
    answers.sort_unstable_by_key(|(place, _)| *place);
    Ok(Committed { answers: answers.into_iter().map(|(_, answer)| answer).collect(), wake_ups })
}

async fn write_group(
    conn: &mut AsyncPgConnection,
    group: &[Placed<'_>],
    answers: &mut Vec<(usize, Result<(), StoreError>)>,
    wake_ups: &mut WakeUps,
) -> Result<(), DatabaseError> {
    if group.is_empty() {
        return Ok(());
    }
    let all: Vec<&Checkpoint> = group.iter().map(|(_, checkpoint)| *checkpoint).collect();
    let written = write(conn, &all).await?;
    let one_by_one = matches!(written, Written::NumberTaken) && group.len() > 1;
    for (place, checkpoint) in group {
        let answer = if one_by_one {
            let written = write(conn, &[checkpoint]).await?;
            answer(conn, checkpoint, &written, wake_ups).await?
        } else {
            answer(conn, checkpoint, &written, wake_ups).await?
        };
        answers.push((*place, answer));
    }
    Ok(())
}

fn abandons_children(checkpoint: &Checkpoint) -> bool {
    matches!(&checkpoint.release, Some(Release::End(end)) if end.abandons_children)
}

enum Written {
    /// It stands; these runs were released. Each says whether it has a parent.
    Released(Vec<Released>),
    /// Nothing was written: a record met a number that is taken.
    NumberTaken,
}

async fn write(conn: &mut AsyncPgConnection, checkpoints: &[&Checkpoint]) -> Result<Written, DatabaseError> {
    // Every statement locks rows in one order: by run.
    let mut ordered = checkpoints.to_vec();
    ordered.sort_unstable_by_key(|checkpoint| checkpoint.claim.run);
    let written = if ordered.iter().any(|checkpoint| abandons_children(checkpoint)) {
        let commit = Commit::of(&ordered)?;
        // The lock first: the statement then sees the children that were started until the lock was given.
        conn.transaction(async |conn| {
            lock_released(conn, commit.released()).await?;
            commit.write(conn, true).await
        })
        .await
    } else if ordered.iter().any(|checkpoint| checkpoint.release.is_some() || checkpoint.frees_permits()) {
        Commit::of(&ordered)?.write(conn, false).await
    } else {
        append(conn, Entries::of_checkpoints(&ordered)).await.map(|()| Vec::new())
    };
    match written {
        Ok(released) => Ok(Written::Released(released)),
        Err(QueryError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(Written::NumberTaken),
        Err(error) => Err(DatabaseError::query("writing checkpoints", error)),
    }
}

async fn lock_released(mut conn: &AsyncPgConnection, ids: &[Uuid]) -> QueryResult<()> {
    let rows = active_runs::table
        .filter(active_runs::run_id.eq_any(ids))
        .order(active_runs::run_id)
        .select(active_runs::run_id)
        .for_no_key_update();
    rows.load::<Uuid>(&mut conn).await.map(|_| ())
}

/// Writes a checkpoint and undoes it: an error says that the database would not write it now. Whether its claim holds does
/// not matter.
pub(crate) async fn rehearse(
    conn: &mut AsyncPgConnection,
    checkpoint: &Checkpoint,
) -> Result<(), DatabaseError> {
    let mut written = Ok(());
    let undone = conn.transaction::<(), QueryError, _>(async |conn| {
        written = write(conn, &[checkpoint]).await.map(|_| ());
        Err(QueryError::RollbackTransaction)
    });
    match undone.await {
        Ok(()) | Err(QueryError::RollbackTransaction) => written,
        Err(error) => Err(DatabaseError::query("rehearsing a checkpoint", error)),
    }
}

/// The answer to a checkpoint, and what it owes.
async fn answer(
    conn: &AsyncPgConnection,
    checkpoint: &Checkpoint,
    written: &Written,
    wake_ups: &mut WakeUps,
) -> Result<Result<(), StoreError>, DatabaseError> {
    let run = checkpoint.claim.run;
    if let Written::Released(released) = written {
        let released = released.iter().find(|(id, ..)| *id == run.as_uuid());
        if checkpoint.release.is_none() || released.is_some() {
            let has_parent = released.is_some_and(|(_, has_parent, _)| *has_parent);
            let is_scheduled = released.is_some_and(|(.., is_scheduled)| *is_scheduled);
            owe(checkpoint, has_parent || abandons_children(checkpoint), is_scheduled, wake_ups);
            return Ok(Ok(()));
        }
    }
    // It was not written now. Perhaps it stands already and its answer was lost, and with it what it owed.
    let stands = if checkpoint.records.is_empty() {
        release_stands(conn, checkpoint).await?
    } else {
        journal::stands(conn, checkpoint).await?
    };
    if !stands {
        return Ok(Err(StoreError::ClaimLost { run }));
    }
    owe(checkpoint, true, true, wake_ups);
    Ok(Ok(()))
}

fn owe(checkpoint: &Checkpoint, has_relatives: bool, is_scheduled: bool, wake_ups: &mut WakeUps) {
    let run = checkpoint.claim.run;
    wake_ups.add_entries(run);
    if checkpoint.frees_permits() {
        wake_ups.add_claimable();
    }
    match checkpoint.release {
        Some(Release::End(_)) => {
            wake_ups.add_end(run, has_relatives);
            if is_scheduled {
                wake_ups.add_schedule();
            }
        }
        Some(Release::Requeue) => wake_ups.add_claimable(),
        // A parked run that was woken meanwhile is available at once, and its owner claims again when a drive ends.
        Some(Release::Park { .. }) | None => {}
    }
}

/// Whether the run was released as this checkpoint says and not claimed since.
async fn release_stands(
    mut conn: &AsyncPgConnection,
    checkpoint: &Checkpoint,
) -> Result<bool, DatabaseError> {
    let Some(release) = &checkpoint.release else { return Ok(true) };
    let Ok(state) = RunState::Running.after(release.event()) else { return Ok(false) };
    diesel::select(diesel::dsl::exists(
        all_runs::table
            .find(checkpoint.claim.run.as_uuid())
            .filter(all_runs::epoch.eq(checkpoint.claim.epoch))
            .filter(all_runs::owner.is_null())
            .filter(all_runs::state.eq(state.as_str())),
    ))
    .get_result(&mut conn)
    .await
    .map_err(|error| DatabaseError::query("looking up a release", error))
}

//! Writing checkpoints: many runs, one statement, fenced.
//!
//! One statement is one transaction, so nothing of a batch stands unless all of it does. What a claim may no longer do
//! shows in two ways: its release finds no row with its owner and epoch (then its records are left out by the same
//! statement), or its records meet a number that is taken (then the whole statement fails and the batch is repeated run
//! by run, so that a lost claim refuses only itself).

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Checkpoint, Release, StoreError};
use gathering_domain::RunState;
use uuid::Uuid;

use self::statements::{Commit, append};
use crate::db::error::DatabaseError;
use crate::db::schema::runs;
use crate::runs::journal;

mod statements;

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// One answer for each checkpoint, in their order.
    pub(crate) answers: Vec<Result<(), StoreError>>,
    /// Whether a run can be claimed that could not be before.
    pub(crate) is_queue_changed: bool,
    /// Whether a run that may be driven somewhere was acted on: the parent or the child of one that ended.
    pub(crate) is_signalled: bool,
    /// Whether there is an event to read.
    pub(crate) is_run_ended: bool,
}

/// Writes the checkpoints.
pub(crate) async fn commit(
    conn: &mut AsyncPgConnection,
    checkpoints: &[Checkpoint],
) -> Result<Committed, DatabaseError> {
    let all: Vec<&Checkpoint> = checkpoints.iter().collect();
    let mut committed = Committed::default();
    let written = write(conn, &all).await?;
    let one_by_one = matches!(written, Written::NumberTaken) && checkpoints.len() > 1;
    for checkpoint in checkpoints {
        if one_by_one {
            let written = write(conn, &[checkpoint]).await?;
            committed.add(conn, checkpoint, &written).await?;
        } else {
            committed.add(conn, checkpoint, &written).await?;
        }
    }
    Ok(committed)
}

impl Committed {
    async fn add(
        &mut self,
        conn: &AsyncPgConnection,
        checkpoint: &Checkpoint,
        written: &Written,
    ) -> Result<(), DatabaseError> {
        let answer = match written {
            Written::Released(released) => {
                self.is_queue_changed |= changes_queue(released, checkpoint);
                self.is_signalled |= signals_relatives(released, checkpoint);
                self.is_run_ended |=
                    matches!(checkpoint.release, Some(Release::End(_))) && is_among(released, checkpoint);
                answer(conn, checkpoint, released).await?
            }
            Written::NumberTaken => answer_taken(conn, checkpoint).await?,
        };
        self.answers.push(answer);
        Ok(())
    }
}

/// Whether somebody else may go on because of this checkpoint: with the run itself, or with its parent.
fn changes_queue(released: &[(Uuid, bool)], checkpoint: &Checkpoint) -> bool {
    match checkpoint.release {
        Some(Release::Requeue) => is_among(released, checkpoint),
        Some(Release::End(_)) => signals_relatives(released, checkpoint),
        // One on which somebody acted meanwhile is available at once, and its owner claims again when a drive ends.
        Some(Release::Park { .. }) | None => false,
    }
}

/// Whether a run ended that has a parent, or may have children that go on.
fn signals_relatives(released: &[(Uuid, bool)], checkpoint: &Checkpoint) -> bool {
    let run = checkpoint.claim.run.as_uuid();
    let has_parent = released.contains(&(run, true));
    match &checkpoint.release {
        Some(Release::End(end)) => has_parent || (end.abandons_children && is_among(released, checkpoint)),
        _ => false,
    }
}

fn abandons_children(checkpoint: &Checkpoint) -> bool {
    matches!(&checkpoint.release, Some(Release::End(end)) if end.abandons_children)
}

fn is_among(released: &[(Uuid, bool)], checkpoint: &Checkpoint) -> bool {
    released.iter().any(|(run, _)| *run == checkpoint.claim.run.as_uuid())
}

enum Written {
    /// It stands; these runs were let go.
    Released(Vec<(Uuid, bool)>),
    /// Nothing was written: a record met a number that is taken.
    NumberTaken,
}

async fn write(conn: &mut AsyncPgConnection, checkpoints: &[&Checkpoint]) -> Result<Written, DatabaseError> {
    // Rows are locked in one order by everybody: by run.
    let mut ordered = checkpoints.to_vec();
    ordered.sort_unstable_by_key(|checkpoint| checkpoint.claim.run);
    let written = if ordered.iter().any(|checkpoint| abandons_children(checkpoint)) {
        let commit = Commit::<true>::of(&ordered)?;
        // The lock first: the statement then sees the children that were being started until it was given.
        conn.transaction(async |conn| {
            lock_released(conn, commit.released()).await?;
            commit.load::<(Uuid, bool)>(conn).await
        })
        .await
    } else if ordered.iter().any(|checkpoint| checkpoint.release.is_some()) {
        Commit::<false>::of(&ordered)?.load::<(Uuid, bool)>(conn).await
    } else {
        append(conn, &ordered).await.map(|()| Vec::new())
    };
    match written {
        Ok(released) => Ok(Written::Released(released)),
        Err(QueryError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(Written::NumberTaken),
        Err(error) => Err(DatabaseError::query("writing checkpoints", error)),
    }
}

async fn lock_released(mut conn: &AsyncPgConnection, ids: &[Uuid]) -> QueryResult<()> {
    let rows = runs::table.filter(runs::id.eq_any(ids)).order(runs::id).select(runs::id).for_no_key_update();
    rows.load::<Uuid>(&mut conn).await.map(|_| ())
}

/// What became of a checkpoint whose statement succeeded.
async fn answer(
    conn: &AsyncPgConnection,
    checkpoint: &Checkpoint,
    released: &[(Uuid, bool)],
) -> Result<Result<(), StoreError>, DatabaseError> {
    if checkpoint.release.is_none() || is_among(released, checkpoint) {
        return Ok(Ok(()));
    }
    answer_taken(conn, checkpoint).await
}

/// What became of a checkpoint that was not written now: perhaps it stands already, and only its answer got lost.
async fn answer_taken(
    conn: &AsyncPgConnection,
    checkpoint: &Checkpoint,
) -> Result<Result<(), StoreError>, DatabaseError> {
    let stands = if checkpoint.records.is_empty() {
        release_stands(conn, checkpoint).await?
    } else {
        journal::stands(conn, checkpoint).await?
    };
    Ok(if stands { Ok(()) } else { Err(StoreError::ClaimLost { run: checkpoint.claim.run }) })
}

/// Whether the run was let go as this checkpoint says and nobody has claimed it since.
async fn release_stands(
    mut conn: &AsyncPgConnection,
    checkpoint: &Checkpoint,
) -> Result<bool, DatabaseError> {
    let Some(release) = &checkpoint.release else { return Ok(true) };
    let Ok(state) = RunState::Running.after(release.event()) else { return Ok(false) };
    diesel::select(diesel::dsl::exists(
        runs::table
            .find(checkpoint.claim.run.as_uuid())
            .filter(runs::epoch.eq(checkpoint.claim.epoch))
            .filter(runs::owner.is_null())
            .filter(runs::state.eq(state.as_str())),
    ))
    .get_result(&mut conn)
    .await
    .map_err(|error| DatabaseError::query("looking for a release", error))
}

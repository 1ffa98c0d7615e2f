//! Decisions about nodes that wait for approval: the first decision about a node of a run stands.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use gathering_control::NewDecision;
use gathering_dag_engine::{Decision, Decisions, StoreError};
use gathering_domain::{NodeId, RunId};

use crate::cluster::wake::Wake;
use crate::db::error::{DatabaseError, Refusal, violated};
use crate::db::exactly_one::exactly_one;
use crate::db::schema::node_decisions;
use crate::runs::list::Runs;
use crate::runs::store::PgRunStore;

/// The answer to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is recorded, and the run is woken.
    Recorded,
    /// An earlier decision stands.
    DecidedBefore,
    /// The run has ended.
    RunEnded,
    /// No such run.
    Missing,
}

/// The run is changed first, so that its end and a decision come one after the other. A queued run keeps its place in the
/// queue, and one that waits for a permit its place in the line: its nodes look up the decision when it is claimed.
const DECIDE: &str = "
    WITH woken AS (
        UPDATE active_runs SET available_at = CASE WHEN state = 'queued' OR waiting_for = 'concurrency' THEN available_at
            ELSE least(available_at, now()) END
        WHERE run_id = $1
            AND NOT EXISTS (SELECT FROM node_decisions WHERE run_id = $1 AND node_id = $2)
        RETURNING run_id AS id
    ), decided AS (
        INSERT INTO node_decisions (run_id, node_id, approve, comment, decided_by, decided_as)
        SELECT id, $2, $3, $4, $5, $6 FROM woken
        ON CONFLICT DO NOTHING RETURNING run_id
    )
    SELECT EXISTS (SELECT FROM decided) AS is_recorded,
        EXISTS (SELECT FROM woken) OR EXISTS (SELECT FROM node_decisions WHERE run_id = $1 AND node_id = $2)
            AS is_decided,
        EXISTS (SELECT FROM runs WHERE id = $1) AS is_there";

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    is_recorded: bool,
    #[diesel(sql_type = Bool)]
    is_decided: bool,
    #[diesel(sql_type = Bool)]
    is_there: bool,
}

impl Runs {
    /// Records a decision about a node of a run that has not ended, and wakes the run. The caller has checked that the node
    /// waits for one.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if the account is gone; nothing was recorded. [`DatabaseError::Unavailable`]: it may
    /// or may not be recorded; a decision that was is then answered with [`Decided::DecidedBefore`].
    pub async fn decide(
        &self,
        run: RunId,
        node: &NodeId,
        decision: &NewDecision,
    ) -> Result<Decided, DatabaseError> {
        let conn = self.pool.get().await?;
        let answer: QueryResult<Answer> = diesel::sql_query(DECIDE)
            .bind::<SqlUuid, _>(run.as_uuid())
            .bind::<Text, _>(node.as_str())
            .bind::<Bool, _>(decision.approve)
            .bind::<Nullable<Text>, _>(&decision.comment)
            .bind::<SqlUuid, _>(decision.decided_by.as_uuid())
            .bind::<Text, _>(&decision.decided_as)
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one);
        let answer = answer.map_err(|error| match violated(&error, Refusal::ForeignKey) {
            Some("node_decisions_decided_by_fkey") => DatabaseError::Missing { what: "the account" },
            _ => DatabaseError::query("recording a decision", error),
        })?;
        if answer.is_recorded {
            self.wakes.wake(Wake::Signals);
            self.wakes.wake(Wake::Runs);
        }
        Ok(match answer {
            Answer { is_recorded: true, .. } => Decided::Recorded,
            Answer { is_decided: true, .. } => Decided::DecidedBefore,
            Answer { is_there: true, .. } => Decided::RunEnded,
            _ => Decided::Missing,
        })
    }
}

#[async_trait]
impl Decisions for PgRunStore {
    async fn find_decision(&self, run: RunId, node: &NodeId) -> Result<Option<Decision>, StoreError> {
        let conn = self.pool.get().await?;
        let row: Option<(bool, Option<String>, String, DateTime<Utc>)> = node_decisions::table
            .find((run.as_uuid(), node.as_str()))
            .select((
                node_decisions::approve,
                node_decisions::comment,
                node_decisions::decided_as,
                node_decisions::decided_at,
            ))
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking up a decision", error))?;
        Ok(row.map(|(approve, comment, decided_by, decided_at)| Decision {
            approve,
            comment,
            decided_by,
            decided_at,
        }))
    }
}

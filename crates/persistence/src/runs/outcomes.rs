//! Decisions about nodes whose end is unknown, of runs that have ended: the first one about a node of a run stands.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Json, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::NewOutcome;
use gathering_dag_engine::{NodeDecision, NodeDecisions};
use gathering_domain::{NodeId, RunId};

use crate::db::error::{DatabaseError, Refusal, violated};
use crate::db::exactly_one::exactly_one;
use crate::db::schema::node_outcomes;
use crate::db::stored_json::StoredJson;
use crate::runs::list::Runs;

/// A run that has ended stays so, and nothing has to be woken.
const DECIDE: &str = "
    WITH ended AS (
        SELECT id FROM runs WHERE id = $1 AND ended_at IS NOT NULL
    ), decided AS (
        INSERT INTO node_outcomes (run_id, node_id, outcome, output, reason, decided_by, decided_as)
        SELECT id, $2, $3, $4, $5, $6, $7 FROM ended
        ON CONFLICT DO NOTHING RETURNING run_id
    )
    SELECT EXISTS (SELECT FROM decided) AS is_recorded, EXISTS (SELECT FROM ended) AS has_ended";

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    is_recorded: bool,
    #[diesel(sql_type = Bool)]
    has_ended: bool,
}

impl Runs {
    /// Records a decision about a node of a run that has ended. Returns whether it is recorded: not if an earlier one
    /// stands. The caller has checked that the end of the node is unknown.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if the account is gone, or there is no such run that has ended; nothing was recorded.
    /// [`DatabaseError::Unavailable`]: it may or may not be recorded.
    pub async fn decide_outcome(
        &self,
        run: RunId,
        node: &NodeId,
        decision: &NewOutcome,
    ) -> Result<bool, DatabaseError> {
        let conn = self.pool.get().await?;
        let answer: QueryResult<Answer> = diesel::sql_query(DECIDE)
            .bind::<SqlUuid, _>(run.as_uuid())
            .bind::<Text, _>(node.as_str())
            .bind::<Text, _>(decision.outcome.as_str())
            .bind::<Nullable<Json>, _>(&decision.output)
            .bind::<Text, _>(&decision.reason)
            .bind::<SqlUuid, _>(decision.decided_by.as_uuid())
            .bind::<Text, _>(&decision.decided_as)
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one);
        let answer = answer.map_err(|error| match violated(&error, Refusal::ForeignKey) {
            Some("node_outcomes_decided_by_fkey") => DatabaseError::Missing { what: "the account" },
            Some("node_outcomes_run_id_fkey") => DatabaseError::Missing { what: "the run" },
            _ => DatabaseError::query("recording a decision", error),
        })?;
        match answer {
            Answer { has_ended: false, .. } => Err(DatabaseError::Missing { what: "a run that has ended" }),
            Answer { is_recorded, .. } => Ok(is_recorded),
        }
    }
}

type OutcomeRow = (String, String, Option<StoredJson>, String, String, DateTime<Utc>);

/// What was decided about the nodes of this run.
pub(crate) async fn find(mut conn: &AsyncPgConnection, run: RunId) -> Result<NodeDecisions, DatabaseError> {
    let rows: Vec<OutcomeRow> = node_outcomes::table
        .filter(node_outcomes::run_id.eq(run.as_uuid()))
        .select((
            node_outcomes::node_id,
            node_outcomes::outcome,
            node_outcomes::output,
            node_outcomes::reason,
            node_outcomes::decided_as,
            node_outcomes::decided_at,
        ))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("looking up decisions", error))?;
    rows.into_iter().map(read).collect()
}

fn read(row: OutcomeRow) -> Result<(NodeId, NodeDecision), DatabaseError> {
    let (node, outcome, output, reason, decided_by, decided_at) = row;
    let node = node.parse().map_err(|error| DatabaseError::corrupt("the node of a decision", error))?;
    let outcome = outcome.parse().map_err(|error| DatabaseError::corrupt("a decision", error))?;
    let output = output.map(|output| output.0).transpose();
    let output = output.map_err(|error| DatabaseError::corrupt("the output of a decision", error))?;
    Ok((node, NodeDecision { outcome, output, reason, decided_by, decided_at }))
}

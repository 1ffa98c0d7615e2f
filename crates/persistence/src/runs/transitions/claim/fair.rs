//! Claims while runs wait for room: the projects in turn, of each its most urgent runs, then its oldest.
//!
//! The claim in the order of age gives everything to a project that has put in 10,000 runs. It is the right one as long as
//! nothing waits, since it reads only what has become available since the last claim. So [`Turns`] alternates with it only
//! after a claim that was filled, and until one is not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt;
use gathering_dag_engine::ClaimedRun;
use gathering_domain::InstanceId;
use uuid::Uuid;

use super::{CLAIM, ClaimedRow, ClaimedSql, push_claimant_of, repeat_on_fresh_entries};
use crate::db::error::DatabaseError;
use crate::db::query_backoff::QueryBackoff;
use crate::runs::states::CLAIMABLE;

/// How long claims are by age after one found the runs of a single project: there is nobody to be fair to.
const ALONE: Duration = Duration::from_millis(100);

/// Whose turn it is, for the claims of this instance.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    /// Beside a transaction that keeps dead entries alive the claim gets slow, and then rare.
    backoff: QueryBackoff,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Whether the last claim was filled, so that runs may wait.
    is_full: bool,
    /// The project that was the last of a round, where there are more projects than one claim takes.
    after: Uuid,
    /// Until then only one project is taken to have runs.
    alone_until: Option<Instant>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { state: Mutex::default(), backoff: QueryBackoff::new(Duration::ZERO) }
    }
}

impl Turns {
    /// Whether the next claim takes the projects in turn.
    pub(crate) fn is_due(&self) -> bool {
        let State { is_full, alone_until, .. } = self.read();
        is_full && alone_until.is_none_or(|until| until <= Instant::now()) && self.backoff.is_due()
    }

    /// Records a claim in the order of age.
    pub(crate) fn note(&self, is_full: bool) {
        self.change(|state| state.is_full = is_full);
    }

    fn note_fair(&self, began: Instant, claimed: &[ClaimedRun], limit: usize) {
        self.backoff.note(began.elapsed());
        let mut projects: Vec<Uuid> = claimed.iter().map(|run| run.project.as_uuid()).collect();
        projects.sort_unstable();
        projects.dedup();
        self.change(|state| {
            state.is_full = claimed.len() == limit;
            state.alone_until = (projects.len() == 1).then(|| Instant::now() + ALONE);
            // With fewer projects than places each has its share of every claim.
            state.after = projects.last().copied().filter(|_| projects.len() == limit).unwrap_or_default();
        });
    }

    fn read(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Claims from the projects after one, in the order of their ids, as many as there are runs to claim; of each an equal share.
#[derive(QueryId)]
struct ClaimFair {
    owner: Uuid,
    after: Uuid,
    limit: i64,
}

impl QueryFragment<Pg> for ClaimFair {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_claimant_of(&mut out, "WITH RECURSIVE", &self.owner)?;
        // From one project to the next by the index, however many runs each has. The orders and ranges are those of that
        // index alone: to a planner that takes the table for empty, all indexes are alike.
        out.push_sql("next_project (id) AS ((SELECT project_id FROM active_runs AS active WHERE ");
        push_waiting(&mut out);
        out.push_sql(" AND project_id > ");
        out.push_bind_param::<SqlUuid, _>(&self.after)?;
        out.push_sql(
            " ORDER BY project_id, priority LIMIT 1) UNION ALL SELECT (SELECT project_id FROM active_runs AS active WHERE ",
        );
        push_waiting(&mut out);
        out.push_sql(
            " AND project_id > next_project.id ORDER BY project_id, priority LIMIT 1) FROM next_project
                WHERE next_project.id IS NOT NULL
            ), project AS MATERIALIZED (
                SELECT id FROM next_project WHERE id IS NOT NULL AND (SELECT true FROM active_runs AS active WHERE ",
        );
        push_waiting(&mut out);
        out.push_sql(
            " AND project_id BETWEEN next_project.id AND next_project.id AND available_at <= now()
                    ORDER BY project_id, priority, available_at LIMIT 1) LIMIT ",
        );
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql("), share AS (SELECT ceil(");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(
            "::double precision / greatest(1, count(*)))::bigint AS n FROM project), candidates AS (
                SELECT turn.id FROM project CROSS JOIN share CROSS JOIN LATERAL (
                    SELECT ready.id FROM generate_series(10, 1, -1) AS level (priority) CROSS JOIN LATERAL (
                        SELECT active.run_id AS id FROM active_runs AS active WHERE ",
        );
        push_waiting(&mut out);
        out.push_sql(
            " AND (active.project_id, active.priority, active.available_at) >= (project.id, level.priority, '-infinity')
                            AND (active.project_id, active.priority, active.available_at) <= (project.id, level.priority, now())
                        ORDER BY active.project_id, active.priority, active.available_at, active.run_id
                        LIMIT share.n FOR NO KEY UPDATE SKIP LOCKED
                    ) AS ready LIMIT share.n
                ) AS turn LIMIT ",
        );
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql("), ");
        out.push_sql(&CLAIM);
        Ok(())
    }
}

impl Query for ClaimFair {
    type SqlType = ClaimedSql;
}

/// The condition of the index by project.
fn push_waiting(out: &mut AstPass<'_, '_, Pg>) {
    out.push_sql("active.state IN ");
    out.push_sql(&CLAIMABLE);
    out.push_sql(" AND active.available_at IS NOT NULL");
}

/// Claims at most `limit` runs that are available, of one project after the other.
pub(crate) async fn claim_fair(
    conn: &AsyncPgConnection,
    owner: InstanceId,
    turns: &Turns,
    limit: usize,
) -> Result<Vec<ClaimedRun>, DatabaseError> {
    let (began, after) = (Instant::now(), turns.read().after);
    let claimed = repeat_on_fresh_entries(owner, || {
        let mut conn = conn;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let claim = ClaimFair { owner: owner.as_uuid(), after, limit };
        async move { claim.load::<ClaimedRow>(&mut conn).await }.boxed()
    });
    let claimed = claimed.await?;
    turns.note_fair(began, &claimed, limit);
    Ok(claimed)
}

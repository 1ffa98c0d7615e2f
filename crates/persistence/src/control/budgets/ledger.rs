//! What a call does to budgets: its worst case is reserved before it, and what it used is settled after it.
//!
//! A reservation is found again by the key of its call, so that a repeat after a crash takes nothing twice. One that is
//! never settled, because nobody knows what became of the call, counts as spent once its run has ended.

use std::sync::Arc;

use async_trait::async_trait;
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_control::{self as control, Held, Recorded, Share, WOKEN_BY_SETTLEMENT};
use gathering_dag_engine::{BudgetLedger, Call, Grant, StoreError};
use gathering_domain::{Amounts, ProjectId, RunId};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::wake::wake;
use super::{Locked, Row, find_root, lock, of_project, this_moment, wake_waiting};
use crate::cluster::wake::WakeBus;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::{budget_reservations, budgets};

/// [`BudgetLedger`] on PostgreSQL. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct PgBudgetLedger {
    pool: Pool,
    wakes: WakeBus,
    /// Who may hold a connection while they wait for the lock of a budget: a thousand runs that are woken at once would
    /// leave none for anybody else.
    slots: Arc<Semaphore>,
}

/// How many calls are reserved or settled at the same time, per instance; those of one project follow each other anyway.
const AT_ONCE: usize = 4;

impl PgBudgetLedger {
    /// The budgets where `pool` leads; `wakes` tells those who drive and claim runs.
    pub fn new(pool: Pool, wakes: WakeBus) -> Self {
        Self { pool, wakes, slots: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    async fn is_bounded(&self, project: ProjectId, worst: &Amounts) -> Result<bool, DatabaseError> {
        let conn = self.pool.get().await?;
        let resources: Vec<&str> = worst.keys().map(|resource| resource.as_str()).collect();
        let bound = of_project(project).filter(budgets::resource.eq_any(resources));
        let found = diesel::select(exists(bound)).get_result(&mut &*conn).await;
        found.map_err(|error| DatabaseError::query("looking for a budget", error))
    }
}

#[async_trait]
impl BudgetLedger for PgBudgetLedger {
    async fn reserve(&self, call: Call<'_>, worst: &Amounts) -> Result<Grant, StoreError> {
        if !self.is_bounded(call.project, worst).await? {
            return Ok(Grant::Unbounded);
        }
        let _slot = self.slots.acquire().await;
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let reserved = conn.transaction(async |conn| reserve(conn, call, worst).await).await;
        Ok(reserved.map_err(|error| DatabaseError::query("reserving a budget", error))?)
    }

    async fn settle(&self, call: Call<'_>, used: &Amounts) -> Result<(), StoreError> {
        let _slot = self.slots.acquire().await;
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let settled = conn.transaction(async |conn| settle(conn, call, used).await).await;
        if settled.map_err(|error| DatabaseError::query("settling a call", error))? > 0 {
            wake_waiting(&self.wakes);
        }
        Ok(())
    }

    async fn list_open(&self, run: RunId) -> Result<Vec<String>, StoreError> {
        let conn = self.pool.get().await?;
        let keys = budget_reservations::table
            .filter(budget_reservations::run_id.eq(run.as_uuid()))
            .filter(budget_reservations::is_granted)
            .select(budget_reservations::effect_key)
            .distinct()
            .load(&mut &*conn)
            .await;
        Ok(keys.map_err(|error| DatabaseError::query("listing reservations", error))?)
    }
}

async fn reserve(conn: &AsyncPgConnection, call: Call<'_>, worst: &Amounts) -> QueryResult<Grant> {
    let root = find_root(conn, call.run).await?;
    let locked = lock(conn, call.project, root, worst.keys().copied()).await?;
    let now = this_moment(conn).await?;
    let abandoned = take_abandoned(conn, &locked).await?;
    let held = Held { abandoned, own: locked.shares(list_own(conn, call).await?) };
    let reservation = control::reserve(&locked.budgets, &held, worst, now);
    match &reservation.record {
        Some(Recorded::Granted(shares)) => record(conn, call, &locked, shares, true).await?,
        Some(Recorded::Waiting(shares)) => record(conn, call, &locked, shares, false).await?,
        None => {}
    }
    locked.update(conn, &reservation.budgets).await?;
    Ok(reservation.grant)
}

impl Locked {
    /// So much of each of these budgets; those that are not locked are left out.
    fn shares(&self, amounts: Vec<(Uuid, i64)>) -> Vec<Share> {
        let share = |(id, amount)| {
            let (_, budget) = self.rows().find(|(of, _)| *of == id)?;
            Some(Share { payer: budget.payer, resource: budget.resource, amount })
        };
        amounts.into_iter().filter_map(share).collect()
    }
}

/// Deletes what calls of runs that have ended left reserved.
const TAKE_ABANDONED: &str = "
    WITH gone AS (
        DELETE FROM budget_reservations AS r
        WHERE r.budget_id = ANY ($1) AND r.is_granted AND (SELECT ended_at IS NOT NULL FROM runs WHERE id = r.run_id)
        RETURNING r.budget_id, r.amount
    )
    SELECT budget_id, least(sum(amount), 9223372036854775807)::bigint AS amount FROM gone GROUP BY budget_id";

#[derive(QueryableByName)]
struct Abandoned {
    #[diesel(sql_type = SqlUuid)]
    budget_id: Uuid,
    #[diesel(sql_type = BigInt)]
    amount: i64,
}

async fn take_abandoned(mut conn: &AsyncPgConnection, locked: &Locked) -> QueryResult<Vec<Share>> {
    let taken = diesel::sql_query(TAKE_ABANDONED).bind::<Array<SqlUuid>, _>(&locked.ids);
    let taken: Vec<Abandoned> = taken.load(&mut conn).await?;
    Ok(locked.shares(taken.into_iter().map(|Abandoned { budget_id, amount }| (budget_id, amount)).collect()))
}

/// What the call has reserved, budget by budget.
async fn list_own(mut conn: &AsyncPgConnection, call: Call<'_>) -> QueryResult<Vec<(Uuid, i64)>> {
    budget_reservations::table
        .filter(budget_reservations::run_id.eq(call.run.as_uuid()))
        .filter(budget_reservations::effect_key.eq(call.key))
        .filter(budget_reservations::is_granted)
        .select((budget_reservations::budget_id, budget_reservations::amount))
        .load(&mut conn)
        .await
}

/// Records what the call has reserved, or waits for, in place of what it waited for. This happens under the locks of the
/// budgets, so that the next change of one of them finds it.
async fn record(
    mut conn: &AsyncPgConnection,
    call: Call<'_>,
    locked: &Locked,
    shares: &[Share],
    is_granted: bool,
) -> QueryResult<()> {
    let waits = budget_reservations::table
        .filter(budget_reservations::run_id.eq(call.run.as_uuid()))
        .filter(budget_reservations::effect_key.eq(call.key))
        .filter(diesel::dsl::not(budget_reservations::is_granted));
    diesel::delete(waits).execute(&mut conn).await?;
    let rows: Vec<_> = shares
        .iter()
        .filter_map(|share| Some((share, locked.find(share.payer, share.resource)?)))
        .map(|(share, (id, _))| {
            (
                budget_reservations::budget_id.eq(id),
                budget_reservations::run_id.eq(call.run.as_uuid()),
                budget_reservations::effect_key.eq(call.key),
                budget_reservations::amount.eq(share.amount),
                budget_reservations::is_granted.eq(is_granted),
            )
        })
        .collect();
    diesel::insert_into(budget_reservations::table).values(rows).execute(&mut conn).await?;
    Ok(())
}

/// Answers how many of those who wait were woken.
async fn settle(mut conn: &AsyncPgConnection, call: Call<'_>, used: &Amounts) -> QueryResult<i64> {
    let own: Vec<Uuid> = list_own(conn, call).await?.into_iter().map(|(id, _)| id).collect();
    let rows: Vec<Row> = budgets::table
        .filter(budgets::id.eq_any(own))
        .order(budgets::id)
        .select(Row::as_select())
        .for_no_key_update()
        .load(&mut conn)
        .await?;
    let roots: Vec<Option<Uuid>> = rows.iter().map(|row| row.run_id).collect();
    let locked = Locked::of(rows)?;
    // A concurrent settlement of the same call finds nothing here once it has the locks.
    let reservations = budget_reservations::table
        .filter(budget_reservations::run_id.eq(call.run.as_uuid()))
        .filter(budget_reservations::effect_key.eq(call.key))
        .filter(budget_reservations::is_granted);
    let gone: Vec<(Uuid, i64)> = diesel::delete(reservations)
        .returning((budget_reservations::budget_id, budget_reservations::amount))
        .get_results(&mut conn)
        .await?;
    let settled = control::settle(&locked.budgets, &locked.shares(gone), used);
    locked.update(conn, &settled).await?;
    let mut n_woken = 0;
    for ((id, root), budget) in locked.ids.iter().zip(roots).zip(&settled) {
        n_woken += wake(conn, &[*id], root, budget.free(), WOKEN_BY_SETTLEMENT.into()).await?;
    }
    Ok(n_woken)
}

//! What a call does to budgets: its worst case is reserved before it, and what it used is settled after it.
//!
//! A reservation is found again by the key of its call, so that a repeat after a crash takes nothing twice. One that is
//! never settled, because nobody knows what became of the call, counts as spent once its run has ended.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{BudgetLedger, Call, Grant, StoreError};
use gathering_domain::{Amounts, ProjectId, Resource, RunId};
use uuid::Uuid;

use super::wake::wake;
use super::{Budgets, LockedBudget, Row, find_root, lock, of_project, save, this_moment};
use crate::db::error::DatabaseError;
use crate::db::schema::{budget_reservations, budgets};

/// How many of those who wait are woken when a call is settled: the first may need it no longer, and waking all for what
/// only one can have would keep them all busy.
const WOKEN_AT_ONCE: i64 = 16;

#[async_trait]
impl BudgetLedger for Budgets {
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
            self.wake();
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

impl Budgets {
    async fn is_bounded(&self, project: ProjectId, worst: &Amounts) -> Result<bool, DatabaseError> {
        let conn = self.pool.get().await?;
        let resources: Vec<&str> = worst.keys().map(|resource| resource.as_str()).collect();
        let bound = of_project(project).filter(budgets::resource.eq_any(resources));
        let found = diesel::select(exists(bound)).get_result(&mut &*conn).await;
        found.map_err(|error| DatabaseError::query("looking for a budget", error))
    }
}

async fn reserve(conn: &AsyncPgConnection, call: Call<'_>, worst: &Amounts) -> QueryResult<Grant> {
    let root = find_root(conn, call.run).await?;
    let before = lock(conn, call.project, root, worst.keys().copied()).await?;
    let now = this_moment(conn).await?;
    let mut budgets = before.clone();
    fold_ended(conn, &mut budgets).await?;
    for budget in &mut budgets {
        budget.budget.turn(now);
    }
    let own = list_own(conn, call).await?;
    let grant = if own.is_empty() {
        match choose(&budgets, worst) {
            Ok(chosen) => take(conn, call, &mut budgets, &chosen).await?,
            Err(short) => refuse(conn, call, &budgets, &short, now).await?,
        }
    } else {
        let own = budgets.iter().filter(|budget| own.contains(&budget.id));
        Grant::Reserved(own.map(|budget| budget.budget.resource).collect())
    };
    save(conn, &before, &budgets).await?;
    Ok(grant)
}

/// What calls of runs that have ended left reserved is spent: nobody will say any more what they used.
const FOLD: &str = "
    WITH gone AS (
        DELETE FROM budget_reservations AS r USING runs
        WHERE r.budget_id = ANY ($1) AND r.is_granted AND runs.id = r.run_id AND runs.ended_at IS NOT NULL
        RETURNING r.budget_id, r.amount
    )
    SELECT budget_id, least(sum(amount), 9223372036854775807)::bigint AS amount FROM gone GROUP BY budget_id";

#[derive(QueryableByName)]
struct Folded {
    #[diesel(sql_type = SqlUuid)]
    budget_id: Uuid,
    #[diesel(sql_type = BigInt)]
    amount: i64,
}

async fn fold_ended(mut conn: &AsyncPgConnection, budgets: &mut [LockedBudget]) -> QueryResult<()> {
    let ids: Vec<Uuid> = budgets.iter().map(|budget| budget.id).collect();
    let folded: Vec<Folded> = diesel::sql_query(FOLD).bind::<Array<SqlUuid>, _>(ids).load(&mut conn).await?;
    for Folded { budget_id, amount } in folded {
        replace(budgets, budget_id, amount, |_| amount);
    }
    Ok(())
}

/// Replaces something reserved of a budget by what was used of it.
fn replace(budgets: &mut [LockedBudget], id: Uuid, reserved: i64, used: impl FnOnce(Resource) -> i64) {
    if let Some(budget) = budgets.iter_mut().find(|budget| budget.id == id) {
        let budget = &mut budget.budget;
        budget.reserved = budget.reserved.saturating_sub(reserved).max(0);
        budget.spent = budget.spent.saturating_add(used(budget.resource).max(0));
    }
}

async fn list_own(mut conn: &AsyncPgConnection, call: Call<'_>) -> QueryResult<Vec<Uuid>> {
    budget_reservations::table
        .filter(budget_reservations::run_id.eq(call.run.as_uuid()))
        .filter(budget_reservations::effect_key.eq(call.key))
        .filter(budget_reservations::is_granted)
        .select(budget_reservations::budget_id)
        .load(&mut conn)
        .await
}

/// So much of each budget.
type Shares = Vec<(Uuid, i64)>;

/// Which budget pays how much; or which of the project's cannot pay.
fn choose(budgets: &[LockedBudget], worst: &Amounts) -> Result<Shares, Shares> {
    let (mut chosen, mut short) = (Vec::new(), Vec::new());
    for (&resource, &amount) in worst {
        let of = |is_own: bool| {
            let fits = move |budget: &&LockedBudget| {
                budget.budget.resource == resource && budget.root.is_some() == is_own
            };
            budgets.iter().find(fits)
        };
        // Without a bound of the project there is nothing to pay.
        let Some(project) = of(false) else { continue };
        match [Some(project), of(true)].into_iter().flatten().find(|budget| budget.budget.free() >= amount) {
            Some(budget) => chosen.push((budget.id, amount)),
            None => short.push((project.id, amount)),
        }
    }
    if short.is_empty() { Ok(chosen) } else { Err(short) }
}

async fn take(
    conn: &AsyncPgConnection,
    call: Call<'_>,
    budgets: &mut [LockedBudget],
    chosen: &[(Uuid, i64)],
) -> QueryResult<Grant> {
    forget_wait(conn, call).await?;
    insert(conn, call, chosen, true).await?;
    let mut resources = Vec::new();
    for budget in budgets {
        if let Some((_, amount)) = chosen.iter().find(|(id, _)| *id == budget.id) {
            budget.budget.reserved += amount;
            resources.push(budget.budget.resource);
        }
    }
    Ok(Grant::Reserved(resources))
}

/// Records the waiting call under the locks of the budgets, so that the next change of one of them finds it.
async fn refuse(
    conn: &AsyncPgConnection,
    call: Call<'_>,
    budgets: &[LockedBudget],
    short: &[(Uuid, i64)],
    now: DateTime<Utc>,
) -> QueryResult<Grant> {
    forget_wait(conn, call).await?;
    insert(conn, call, short, false).await?;
    let cannot_pay = budgets.iter().filter(|budget| short.iter().any(|(id, _)| *id == budget.id));
    let ends: Option<Vec<DateTime<Utc>>> = cannot_pay.map(|budget| budget.budget.period.end(now)).collect();
    let last = ends.and_then(|ends| ends.into_iter().max());
    Ok(Grant::Refused { resets_in: last.map(|last| (last - now).to_std().unwrap_or_default()) })
}

async fn forget_wait(mut conn: &AsyncPgConnection, call: Call<'_>) -> QueryResult<()> {
    let waits = budget_reservations::table
        .filter(budget_reservations::run_id.eq(call.run.as_uuid()))
        .filter(budget_reservations::effect_key.eq(call.key))
        .filter(diesel::dsl::not(budget_reservations::is_granted));
    diesel::delete(waits).execute(&mut conn).await?;
    Ok(())
}

async fn insert(
    mut conn: &AsyncPgConnection,
    call: Call<'_>,
    amounts: &[(Uuid, i64)],
    is_granted: bool,
) -> QueryResult<()> {
    let rows: Vec<_> = amounts
        .iter()
        .map(|&(id, amount)| {
            (
                budget_reservations::budget_id.eq(id),
                budget_reservations::run_id.eq(call.run.as_uuid()),
                budget_reservations::effect_key.eq(call.key),
                budget_reservations::amount.eq(amount),
                budget_reservations::is_granted.eq(is_granted),
            )
        })
        .collect();
    diesel::insert_into(budget_reservations::table).values(rows).execute(&mut conn).await?;
    Ok(())
}

/// Answers how many of those who wait were woken.
async fn settle(mut conn: &AsyncPgConnection, call: Call<'_>, used: &Amounts) -> QueryResult<i64> {
    let own = list_own(conn, call).await?;
    let rows: Vec<Row> = budgets::table
        .filter(budgets::id.eq_any(own))
        .order(budgets::id)
        .select(Row::as_select())
        .for_no_key_update()
        .load(&mut conn)
        .await?;
    let before = rows.into_iter().map(LockedBudget::try_from).collect::<QueryResult<Vec<_>>>()?;
    // A concurrent settlement of the same call finds nothing here once it has the locks.
    let reservations = budget_reservations::table
        .filter(budget_reservations::run_id.eq(call.run.as_uuid()))
        .filter(budget_reservations::effect_key.eq(call.key))
        .filter(budget_reservations::is_granted);
    let gone: Vec<(Uuid, i64)> = diesel::delete(reservations)
        .returning((budget_reservations::budget_id, budget_reservations::amount))
        .get_results(&mut conn)
        .await?;
    let mut budgets = before.clone();
    for (id, reserved) in gone {
        replace(&mut budgets, id, reserved, |resource| used.get(&resource).copied().unwrap_or(0));
    }
    save(conn, &before, &budgets).await?;
    let mut n_woken = 0;
    for budget in &budgets {
        n_woken += wake(conn, &[budget.id], budget.root, budget.budget.free(), WOKEN_AT_ONCE).await?;
    }
    Ok(n_woken)
}

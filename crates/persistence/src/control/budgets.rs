//! Budgets: what the calls of a project may use up, and what one tree of runs may beyond that.
//!
//! A budget is a row, and everything that changes it holds its lock; several are locked in the order of their ids. So of
//! calls at the same time each sees what the others reserved, and what is spent and reserved together never exceeds the
//! amount. [`reserve`] has what calls do to budgets; here is what people do.

mod reserve;
mod wake;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::{Action, AuditEvent, AuditKind, Caller};
use gathering_domain::{Amounts, MAX_AMOUNT, Period, ProjectId, Resource, RunId};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::accounts::audit;
use crate::cluster::wake::{Wake, WakeBus};
use crate::control::members;
use crate::control::projects::{ProjectError, missing_or};
use crate::db::clock::clock_timestamp;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::{budgets, child_runs};

use wake::wake;

/// What a project may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// In which time.
    pub period: Period,
    /// How much, from 0 to [`MAX_AMOUNT`]; what is absent has no bound.
    pub amounts: Amounts,
}

/// A project's budget of one resource, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// What it bounds.
    pub resource: Resource,
    /// How often it is reset.
    pub period: Period,
    /// From when `spent` counts.
    pub period_start: DateTime<Utc>,
    /// How much may be used.
    pub amount: i64,
    /// How much was.
    pub spent: i64,
    /// The worst that calls under way may use.
    pub reserved: i64,
}

/// What became of a top-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopUp {
    /// It stands, and who waited is woken.
    Done,
    /// No run of the tree waits for its budget.
    NobodyWaits,
    /// The project has no bound of this resource.
    Unbounded(Resource),
    /// The allowance would exceed [`MAX_AMOUNT`].
    TooMuch(Resource),
}

/// The budgets. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct Budgets {
    pool: Pool,
    wakes: WakeBus,
    /// Who may hold a connection while they wait for the lock of a budget: a thousand runs that are woken at once would
    /// leave none for anybody else.
    slots: Arc<Semaphore>,
}

/// How many calls are reserved or settled at the same time, per instance; those of one project follow each other anyway.
const AT_ONCE: usize = 4;

impl Budgets {
    /// The budgets where `pool` leads; `wakes` tells those who drive and claim runs.
    pub fn new(pool: Pool, wakes: WakeBus) -> Self {
        Self { pool, wakes, slots: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// What is set for a project, resource by resource.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn list(&self, project: ProjectId) -> Result<Vec<Budget>, DatabaseError> {
        let conn = self.pool.get().await?;
        let failed = |error| DatabaseError::query("reading a budget", error);
        let rows = of_project(project).select(Row::as_select()).load(&mut &*conn).await.map_err(failed)?;
        status(&conn, rows).await.map_err(failed)
    }

    /// Sets what a project may use up, records that, and wakes every run that waits for its budget. What was spent stays
    /// spent, unless it was counted in another period. Answers as [`Budgets::list`].
    ///
    /// # Errors
    /// [`ProjectError::Denied`] or [`ProjectError::Revoked`] for a caller who may not do it, or not any more;
    /// [`DatabaseError::Missing`] if the project is not there. Nothing was changed.
    pub async fn set(
        &self,
        project: ProjectId,
        bounds: &Bounds,
        by: &Caller,
    ) -> Result<Vec<Budget>, ProjectError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let set = conn.transaction(async |conn| set(conn, project, bounds, by).await).await;
        let set = set.map_err(|error| missing_or("setting a budget", error))?;
        self.wake();
        set
    }

    /// Lets the tree of a run use up `add` beyond its project's budget, records that, and wakes those of its runs that
    /// wait for their budget.
    ///
    /// # Errors
    /// As [`Budgets::set`].
    pub async fn top_up(
        &self,
        project: ProjectId,
        run: RunId,
        add: &Amounts,
        by: &Caller,
    ) -> Result<TopUp, ProjectError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let topped_up = conn.transaction(async |conn| top_up(conn, project, run, add, by).await).await;
        let topped_up = topped_up.map_err(|error| missing_or("topping up a budget", error))?;
        self.wake();
        topped_up
    }

    fn wake(&self) {
        self.wakes.wake(Wake::Signals);
        self.wakes.wake(Wake::Runs);
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = budgets)]
struct Row {
    id: Uuid,
    run_id: Option<Uuid>,
    resource: String,
    period: String,
    period_start: DateTime<Utc>,
    amount: i64,
    spent: i64,
    reserved: i64,
}

/// A budget whose row is locked, until it is [saved](save).
#[derive(Debug, Clone, PartialEq, Eq)]
struct LockedBudget {
    id: Uuid,
    /// Whose allowance it is; the project's budget if it is no run's.
    root: Option<Uuid>,
    budget: Budget,
}

impl TryFrom<Row> for LockedBudget {
    type Error = diesel::result::Error;

    fn try_from(row: Row) -> QueryResult<Self> {
        let corrupt = |error: String| diesel::result::Error::DeserializationError(error.into());
        let Row { id, run_id, resource, period, period_start, amount, spent, reserved } = row;
        let (resource, period) = (resource.parse().map_err(corrupt)?, period.parse().map_err(corrupt)?);
        Ok(Self {
            id,
            root: run_id,
            budget: Budget { resource, period, period_start, amount, spent, reserved },
        })
    }
}

impl Budget {
    const fn free(&self) -> i64 {
        self.amount.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    /// Begins the period that it is now, if that is another one.
    fn turn(&mut self, now: DateTime<Utc>) {
        if let Some(start) = self.period.start(now).filter(|start| self.period_start < *start) {
            (self.period_start, self.spent) = (start, 0);
        }
    }
}

#[diesel::dsl::auto_type]
fn of_project(project: ProjectId) -> _ {
    let project: Uuid = project.as_uuid();
    budgets::table
        .filter(budgets::project_id.eq(project))
        .filter(budgets::run_id.is_null())
        .order(budgets::id)
}

async fn status(conn: &AsyncPgConnection, rows: Vec<Row>) -> QueryResult<Vec<Budget>> {
    let now = this_moment(conn).await?;
    let budgets = rows.into_iter().map(LockedBudget::try_from).collect::<QueryResult<Vec<_>>>()?;
    let turned = |mut budget: LockedBudget| {
        budget.budget.turn(now);
        budget.budget
    };
    Ok(budgets.into_iter().map(turned).collect())
}

async fn this_moment(mut conn: &AsyncPgConnection) -> QueryResult<DateTime<Utc>> {
    diesel::select(clock_timestamp()).get_result(&mut conn).await
}

/// The run that the tree of `run` began with.
async fn find_root(mut conn: &AsyncPgConnection, run: RunId) -> QueryResult<Uuid> {
    let place = child_runs::table.find(run.as_uuid()).select(child_runs::root_run_id);
    Ok(place.first(&mut conn).await.optional()?.unwrap_or_else(|| run.as_uuid()))
}

/// The project's budgets and the allowances of the tree, locked until the end of the transaction.
async fn lock(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    root: Uuid,
    resources: impl Iterator<Item = Resource>,
) -> QueryResult<Vec<LockedBudget>> {
    let resources: Vec<&str> = resources.map(Resource::as_str).collect();
    let rows: Vec<Row> = budgets::table
        .filter(budgets::project_id.eq(project.as_uuid()))
        .filter(budgets::run_id.is_null().nullable().or(budgets::run_id.eq(root)))
        .filter(budgets::resource.eq_any(resources))
        .order(budgets::id)
        .select(Row::as_select())
        .for_no_key_update()
        .load(&mut conn)
        .await?;
    rows.into_iter().map(LockedBudget::try_from).collect()
}

/// Writes those that are not as they were `before`.
async fn save(
    mut conn: &AsyncPgConnection,
    before: &[LockedBudget],
    budgets: &[LockedBudget],
) -> QueryResult<()> {
    for (_, budget) in before.iter().zip(budgets).filter(|(before, budget)| before != budget) {
        let Budget { period, period_start, amount, spent, reserved, .. } = budget.budget;
        diesel::update(budgets::table.find(budget.id))
            .set((
                budgets::period.eq(period.as_str()),
                budgets::period_start.eq(period_start),
                budgets::amount.eq(amount),
                budgets::spent.eq(spent),
                budgets::reserved.eq(reserved),
                budgets::updated_at.eq(diesel::dsl::now),
            ))
            .execute(&mut conn)
            .await?;
    }
    Ok(())
}

async fn insert(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    root: Option<Uuid>,
    (resource, amount): (Resource, i64),
    (period, start): (Period, DateTime<Utc>),
) -> QueryResult<()> {
    diesel::insert_into(budgets::table)
        .values((
            budgets::id.eq(Uuid::now_v7()),
            budgets::project_id.eq(project.as_uuid()),
            budgets::run_id.eq(root),
            budgets::resource.eq(resource.as_str()),
            budgets::amount.eq(amount),
            budgets::period.eq(period.as_str()),
            budgets::period_start.eq(start),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

async fn set(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    bounds: &Bounds,
    by: &Caller,
) -> QueryResult<Result<Vec<Budget>, ProjectError>> {
    if let Err(refused) = hold(conn, project, by).await? {
        return Ok(Err(refused));
    }
    // No run has the nil id.
    let before = lock(conn, project, Uuid::nil(), Resource::ALL.into_iter()).await?;
    let ids: Vec<Uuid> = before.iter().map(|budget| budget.id).collect();
    wake(conn, &ids, None, i64::MAX, i64::MAX).await?;
    let now = this_moment(conn).await?;
    let start = bounds.period.start(now).unwrap_or(now);
    let mut budgets = before.clone();
    for locked in &mut budgets {
        let budget = &mut locked.budget;
        budget.turn(now);
        if budget.period != bounds.period {
            (budget.period, budget.period_start, budget.spent) = (bounds.period, start, 0);
        }
        match bounds.amounts.get(&budget.resource) {
            Some(&amount) => budget.amount = amount,
            None => drop(diesel::delete(budgets::table.find(locked.id)).execute(&mut conn).await?),
        }
    }
    save(conn, &before, &budgets).await?;
    for (&resource, &amount) in &bounds.amounts {
        if !before.iter().any(|budget| budget.budget.resource == resource) {
            insert(conn, project, None, (resource, amount), (bounds.period, start)).await?;
        }
    }
    let detail = json!({
        "project": project, "period": bounds.period.as_str(), "amounts": named(&bounds.amounts), "by": by.user,
    });
    let event = AuditEvent::new(AuditKind::BudgetSet, Some(by.user), by.origin).with_detail(detail);
    audit::insert(conn, &event).await?;
    let rows = of_project(project).select(Row::as_select()).load(&mut conn).await?;
    status(conn, rows).await.map(Ok)
}

async fn top_up(
    conn: &AsyncPgConnection,
    project: ProjectId,
    run: RunId,
    add: &Amounts,
    by: &Caller,
) -> QueryResult<Result<TopUp, ProjectError>> {
    if let Err(refused) = hold(conn, project, by).await? {
        return Ok(Err(refused));
    }
    let root = find_root(conn, run).await?;
    let before = lock(conn, project, root, Resource::ALL.into_iter()).await?;
    let of_project: Vec<&LockedBudget> = before.iter().filter(|budget| budget.root.is_none()).collect();
    let mut budgets = before.clone();
    let mut new = Vec::new();
    for (&resource, &amount) in add {
        if !of_project.iter().any(|budget| budget.budget.resource == resource) {
            return Ok(Ok(TopUp::Unbounded(resource)));
        }
        let is_own = |budget: &&mut LockedBudget| budget.root.is_some() && budget.budget.resource == resource;
        match budgets.iter_mut().find(is_own) {
            Some(own) if own.budget.amount > MAX_AMOUNT - amount => return Ok(Ok(TopUp::TooMuch(resource))),
            Some(own) => own.budget.amount += amount,
            None => new.push((resource, amount)),
        }
    }
    let ids: Vec<Uuid> = of_project.iter().map(|budget| budget.id).collect();
    if wake(conn, &ids, Some(root), i64::MAX, i64::MAX).await? == 0 {
        return Ok(Ok(TopUp::NobodyWaits));
    }
    save(conn, &before, &budgets).await?;
    let now = this_moment(conn).await?;
    for new in new {
        insert(conn, project, Some(root), new, (Period::Total, now)).await?;
    }
    let detail = json!({
        "project": project, "run": RunId::from(root), "add": named(add), "by": by.user,
    });
    let event = AuditEvent::new(AuditKind::BudgetToppedUp, Some(by.user), by.origin).with_detail(detail);
    audit::insert(conn, &event).await?;
    Ok(Ok(TopUp::Done))
}

/// Locks the project, so that budgets and members change one after the other, and checks that the caller may do it.
async fn hold(
    conn: &AsyncPgConnection,
    project: ProjectId,
    by: &Caller,
) -> QueryResult<Result<(), ProjectError>> {
    if !members::lock_project(conn, project).await? {
        return Ok(Err(DatabaseError::Missing { what: "the project" }.into()));
    }
    members::still_may(conn, project, by, Action::Manage).await
}

fn named(amounts: &Amounts) -> Value {
    amounts.iter().map(|(resource, amount)| (resource.as_str().to_owned(), json!(amount))).collect()
}

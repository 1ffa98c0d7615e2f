//! Budgets: read under their locks, and written as the rules of `gathering-control` say.
//!
//! A budget is a row, and everything that changes it holds its lock; several are locked in the order of their ids.
//! [`ledger`] has what calls do to budgets; here is what people do.

pub(crate) mod ledger;
mod wake;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_control::{
    Bounds, Budget, BudgetStore, Conflict, ControlError, Payer, Run, Scoped, TopUp, right,
};
use gathering_domain::{ProjectId, Resource, RunId};
use uuid::Uuid;

use crate::accounts::audit;
use crate::cluster::wake::{Wake, WakeBus};
use crate::control::members;
use crate::control::store::PgControlStore;
use crate::db::clock::clock_timestamp;
use crate::db::error::{Aborted, DatabaseError};
use crate::db::schema::{budgets, child_runs};

use wake::wake;

#[async_trait]
impl BudgetStore for PgControlStore {
    async fn list_budgets(
        &self,
        project: &Scoped<ProjectId, right::Read>,
    ) -> Result<Vec<Budget>, ControlError> {
        let conn = self.pool.get().await?;
        let listed = list(&conn, *project.thing()).await;
        Ok(listed.map_err(|error| DatabaseError::query("reading a budget", error))?)
    }

    async fn set_budgets(
        &self,
        project: &Scoped<ProjectId, right::Manage>,
        bounds: &Bounds,
    ) -> Result<Vec<Budget>, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let set = conn.transaction(async |conn| set(conn, project, bounds).await).await;
        let budgets = set.map_err(|aborted| aborted.into_error("setting a budget"))?;
        wake_waiting(&self.wakes);
        Ok(budgets)
    }

    async fn top_up(&self, run: &Scoped<Run, right::Manage>, top_up: &TopUp) -> Result<Run, ControlError> {
        {
            let mut conn = self.pool.get().await?;
            let conn: &mut AsyncPgConnection = &mut conn;
            let topped_up = conn.transaction(async |conn| add(conn, run, top_up).await).await;
            topped_up.map_err(|aborted| aborted.into_error("topping up a budget"))?;
        }
        wake_waiting(&self.wakes);
        self.runs.find(run.id).await?.ok_or(ControlError::NotFound)
    }
}

fn wake_waiting(wakes: &WakeBus) {
    wakes.wake(Wake::Signals);
    wakes.wake(Wake::Runs);
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

impl TryFrom<Row> for Budget {
    type Error = diesel::result::Error;

    fn try_from(row: Row) -> QueryResult<Self> {
        let corrupt = |error: String| diesel::result::Error::DeserializationError(error.into());
        let Row { run_id, resource, period, period_start, amount, spent, reserved, .. } = row;
        let payer = if run_id.is_none() { Payer::Project } else { Payer::Tree };
        let (resource, period) = (resource.parse().map_err(corrupt)?, period.parse().map_err(corrupt)?);
        Ok(Self { payer, resource, period, period_start, amount, spent, reserved })
    }
}

/// Budgets whose rows are locked until the end of the transaction.
struct Locked {
    ids: Vec<Uuid>,
    /// In the order of their ids.
    budgets: Vec<Budget>,
}

impl Locked {
    fn of(rows: Vec<Row>) -> QueryResult<Self> {
        let ids = rows.iter().map(|row| row.id).collect();
        let budgets = rows.into_iter().map(Budget::try_from).collect::<QueryResult<_>>()?;
        Ok(Self { ids, budgets })
    }

    fn rows(&self) -> impl Iterator<Item = (Uuid, &Budget)> {
        self.ids.iter().copied().zip(&self.budgets)
    }

    fn find(&self, payer: Payer, resource: Resource) -> Option<(Uuid, &Budget)> {
        self.rows().find(|(_, budget)| (budget.payer, budget.resource) == (payer, resource))
    }

    fn ids_of_project(&self) -> Vec<Uuid> {
        let of_project = self.rows().filter(|(_, budget)| budget.payer == Payer::Project);
        of_project.map(|(id, _)| id).collect()
    }

    /// Writes the budgets that are not as they were.
    async fn update(&self, mut conn: &AsyncPgConnection, after: &[Budget]) -> QueryResult<()> {
        for budget in after {
            let Some((id, before)) = self.find(budget.payer, budget.resource) else { continue };
            if before == budget {
                continue;
            }
            diesel::update(budgets::table.find(id))
                .set((
                    budgets::period.eq(budget.period.as_str()),
                    budgets::period_start.eq(budget.period_start),
                    budgets::amount.eq(budget.amount),
                    budgets::spent.eq(budget.spent),
                    budgets::reserved.eq(budget.reserved),
                    budgets::updated_at.eq(diesel::dsl::now),
                ))
                .execute(&mut conn)
                .await?;
        }
        Ok(())
    }

    /// Makes the budgets of the project, and of the tree of this root run, what they are `after`.
    async fn replace(
        &self,
        mut conn: &AsyncPgConnection,
        (project, root): (ProjectId, Option<Uuid>),
        after: &[Budget],
    ) -> QueryResult<()> {
        let is_kept = |before: &Budget| {
            after.iter().any(|after| (after.payer, after.resource) == (before.payer, before.resource))
        };
        for (id, _) in self.rows().filter(|(_, before)| !is_kept(before)) {
            diesel::delete(budgets::table.find(id)).execute(&mut conn).await?;
        }
        self.update(conn, after).await?;
        for new in after.iter().filter(|new| self.find(new.payer, new.resource).is_none()) {
            insert(conn, project, root.filter(|_| new.payer == Payer::Tree), new).await?;
        }
        Ok(())
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

async fn list(mut conn: &AsyncPgConnection, project: ProjectId) -> QueryResult<Vec<Budget>> {
    let rows: Vec<Row> = of_project(project).select(Row::as_select()).load(&mut conn).await?;
    let now = this_moment(conn).await?;
    rows.into_iter().map(|row| Ok(Budget::try_from(row)?.at(now))).collect()
}

async fn this_moment(mut conn: &AsyncPgConnection) -> QueryResult<DateTime<Utc>> {
    diesel::select(clock_timestamp()).get_result(&mut conn).await
}

/// The root run of the tree of `run`.
async fn find_root(mut conn: &AsyncPgConnection, run: RunId) -> QueryResult<Uuid> {
    let place = child_runs::table.find(run.as_uuid()).select(child_runs::root_run_id);
    Ok(place.first(&mut conn).await.optional()?.unwrap_or_else(|| run.as_uuid()))
}

/// The project's budgets and the allowances of the tree of `root`.
async fn lock(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    root: Uuid,
    resources: impl Iterator<Item = Resource>,
) -> QueryResult<Locked> {
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
    Locked::of(rows)
}

async fn insert(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    root: Option<Uuid>,
    new: &Budget,
) -> QueryResult<()> {
    diesel::insert_into(budgets::table)
        .values((
            budgets::id.eq(Uuid::now_v7()),
            budgets::project_id.eq(project.as_uuid()),
            budgets::run_id.eq(root),
            budgets::resource.eq(new.resource.as_str()),
            budgets::amount.eq(new.amount),
            budgets::period.eq(new.period.as_str()),
            budgets::period_start.eq(new.period_start),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

async fn set(
    conn: &AsyncPgConnection,
    project: &Scoped<ProjectId, right::Manage>,
    bounds: &Bounds,
) -> Result<Vec<Budget>, Aborted<ControlError>> {
    let id = *project.thing();
    hold(conn, id, project).await?;
    // No run has the nil id.
    let locked = lock(conn, id, Uuid::nil(), Resource::ALL.into_iter()).await?;
    wake(conn, &locked.ids, None, i64::MAX, i64::MAX).await?;
    let budgets = bounds.apply(&locked.budgets, this_moment(conn).await?);
    locked.replace(conn, (id, None), &budgets).await?;
    audit::insert(conn, &bounds.audit_event(project)).await?;
    Ok(budgets)
}

async fn add(
    conn: &AsyncPgConnection,
    run: &Scoped<Run, right::Manage>,
    top_up: &TopUp,
) -> Result<(), Aborted<ControlError>> {
    hold(conn, run.project, run).await?;
    let root = find_root(conn, run.id).await?;
    let locked = lock(conn, run.project, root, Resource::ALL.into_iter()).await?;
    let budgets = top_up.apply(&locked.budgets, this_moment(conn).await?).map_err(Aborted::Refused)?;
    if wake(conn, &locked.ids_of_project(), Some(root), i64::MAX, i64::MAX).await? == 0 {
        return Err(Aborted::Refused(Conflict::NoBudgetWait.into()));
    }
    locked.replace(conn, (run.project, Some(root)), &budgets).await?;
    audit::insert(conn, &top_up.audit_event(run, root.into())).await?;
    Ok(())
}

/// Locks the project, so that budgets and members change one after the other, and checks that the caller still may do
/// it.
async fn hold<T>(
    conn: &AsyncPgConnection,
    project: ProjectId,
    scoped: &Scoped<T, right::Manage>,
) -> Result<(), Aborted<ControlError>> {
    if !members::lock_project(conn, project).await? {
        return Err(Aborted::Refused(ControlError::NotFound));
    }
    if let Some(user) = scoped.user() {
        let now = members::load_access(conn, project, user).await?;
        scoped.check_again(&now).map_err(Aborted::Refused)?;
    }
    Ok(())
}

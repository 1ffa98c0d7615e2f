//! Budgets: what the calls of a project may use up, and what one run tree may use up beyond that.
//!
//! Owns who sets them and what happens to them: [`reserve`] and [`settle`] for a call, [`Bounds`] and [`TopUp`] for
//! people. These are pure functions, which a store calls under the locks of the budgets. So of calls at the same time
//! each sees what the others reserved, and no grant makes what is spent and reserved exceed the amount.

mod ledger;
mod period;
mod resource;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use gathering_auth::Caller;
use gathering_domain::{ProjectId, RunId};

use crate::access::{Scoped, right};
use crate::{ControlError, ControlStore, Run};

pub use ledger::{Bounds, Held, Recorded, Reservation, Share, TopUp, WOKEN_BY_SETTLEMENT, reserve, settle};
pub use period::Period;
pub use resource::{Budget, Payer};

/// What may be done with budgets. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct BudgetControl {
    store: Arc<dyn ControlStore>,
}

impl BudgetControl {
    /// The budgets of this store.
    pub fn new(store: Arc<dyn ControlStore>) -> Self {
        Self { store }
    }

    /// The budgets of a project, as they stand now.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn show(&self, caller: &Caller, project: ProjectId) -> Result<Vec<Budget>, ControlError> {
        let project = self.find::<right::Read>(caller, project).await?;
        self.store.list_budgets(&project).await
    }

    /// Sets what a project may use up, and answers with its budgets. Runs that wait for one of them try again.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Forbidden`] or [`ControlError::Revoked`]; nothing was changed. Or
    /// the store's.
    pub async fn set(
        &self,
        caller: &Caller,
        project: ProjectId,
        bounds: &Bounds,
    ) -> Result<Vec<Budget>, ControlError> {
        let scoped = self.find::<right::Manage>(caller, project).await?;
        let budgets = self.store.set_budgets(&scoped, bounds).await?;
        tracing::info!(project.id = %project, "the budget of project {project} is set");
        Ok(budgets)
    }

    /// Lets the whole tree of a run use up more than the budget of its project pays, and answers with the run as it
    /// stands then. Those runs of the tree that wait for their budget try again.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Forbidden`] or [`ControlError::Revoked`]; [`ControlError::Invalid`]
    /// as [`TopUp::apply`] says; [`Conflict::NoBudgetWait`](crate::Conflict::NoBudgetWait). Nothing was changed. Or the
    /// store's.
    pub async fn top_up(&self, caller: &Caller, run: RunId, top_up: &TopUp) -> Result<Run, ControlError> {
        let scoped = Scoped::<Run, right::Manage>::check(caller, self.store.find_run(caller, run).await?)?;
        let topped_up = self.store.top_up(&scoped, top_up).await?;
        tracing::info!(run.id = %run, "the budget of run {run} is topped up");
        Ok(topped_up)
    }

    async fn find<R: right::Right>(
        &self,
        caller: &Caller,
        project: ProjectId,
    ) -> Result<Scoped<ProjectId, R>, ControlError> {
        Scoped::check(caller, self.store.find_project(caller, project).await?)
    }
}

//! The part of the port that keeps budgets.

use async_trait::async_trait;
use gathering_domain::ProjectId;

use crate::access::{Scoped, right};
use crate::budgets::{Bounds, Budget, TopUp};
use crate::{ControlError, Run};

/// Keeps the budgets of projects and the allowances of run trees.
///
/// What calls do to them goes through [`BudgetLedger`](gathering_dag_engine::BudgetLedger), which the same store
/// implements with [`reserve`](crate::reserve) and [`settle`](crate::settle). Whatever changes a budget holds its lock.
#[async_trait]
pub trait BudgetStore: Send + Sync + 'static {
    /// The budgets of the project, as they are [at](Budget::at) the store's time.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_budgets(
        &self,
        project: &Scoped<ProjectId, right::Read>,
    ) -> Result<Vec<Budget>, ControlError>;

    /// Replaces the budgets of the project by what [`Bounds::apply`] makes of them, writes [`Bounds::audit_event`], and
    /// wakes every run that waits for one of them. Answers with the budgets.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Forbidden`] or [`ControlError::Revoked`] if the caller may not do it
    /// any more, or the project is gone; nothing was changed.
    async fn set_budgets(
        &self,
        project: &Scoped<ProjectId, right::Manage>,
        bounds: &Bounds,
    ) -> Result<Vec<Budget>, ControlError>;

    /// Replaces the budgets of the run's tree by what [`TopUp::apply`] makes of them, writes [`TopUp::audit_event`], and
    /// wakes every run of the tree that waits for its budget. Answers with the run as it stands then.
    ///
    /// # Errors
    /// As [`BudgetStore::set_budgets`], or as [`TopUp::apply`];
    /// [`Conflict::NoBudgetWait`](crate::Conflict::NoBudgetWait) if no run of the tree waits. Nothing was changed.
    async fn top_up(&self, run: &Scoped<Run, right::Manage>, top_up: &TopUp) -> Result<Run, ControlError>;
}

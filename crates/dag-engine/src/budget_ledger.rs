//! The port to the budget ledger: it holds a call's worst-case cost before the call, and what the call used after it.
//!
//! The effect ledger says whether a call was made; the budget ledger says whether it may be made. A call has one key in
//! both, so a repeat after a crash costs nothing twice.

use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::{Amounts, ProjectId, Resource, RunId};

use crate::store::StoreError;

/// A call that costs something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The project whose budgets pay.
    pub project: ProjectId,
    /// The run that makes the call.
    pub run: RunId,
    /// The name of the call within its run. A repeat has the same key.
    pub key: &'a str,
}

/// The answer to a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// No budget bounds what the call costs. Nothing is reserved.
    Unbounded,
    /// The worst case of these resources is reserved, by this or an earlier request.
    Reserved(Vec<Resource>),
    /// A budget cannot pay. Nothing is reserved; the ledger wakes the run when that may have changed.
    Refused {
        /// The time until every budget that cannot pay is reset; `None` if one of them never is.
        resets_in: Option<Duration>,
    },
}

/// Where calls reserve and settle what they cost.
#[async_trait]
pub trait BudgetLedger: Send + Sync + 'static {
    /// Reserves the worst case of a call: every bounded resource or none. Repeats: safe, by the key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the reservation may or may not stand; repeat. [`StoreError::Corrupt`].
    async fn reserve(&self, call: Call<'_>, worst: &Amounts) -> Result<Grant, StoreError>;

    /// Replaces a call's reservation by what the call used; a resource that is absent was not used. Wakes runs that wait
    /// for what that frees. Repeats: safe, as the second finds no reservation.
    ///
    /// # Errors
    /// As [`BudgetLedger::reserve`].
    async fn settle(&self, call: Call<'_>, used: &Amounts) -> Result<(), StoreError>;

    /// The keys of a run's calls that hold a reservation, in no particular order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn list_open(&self, run: RunId) -> Result<Vec<String>, StoreError>;
}

//! The budget of one resource.

use chrono::{DateTime, Utc};
use gathering_domain::Resource;

use super::Period;

/// Who uses up a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payer {
    /// Every run of the project.
    Project,
    /// The runs of one tree. It is their allowance, for calls that the project's budget cannot pay.
    Tree,
}

/// A budget of one resource, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Who uses it up.
    pub payer: Payer,
    /// What it bounds.
    pub resource: Resource,
    /// How often it is reset.
    pub period: Period,
    /// When the period of `spent` began, in UTC.
    pub period_start: DateTime<Utc>,
    /// How much may be used in a period.
    pub amount: i64,
    /// How much was used in this period.
    pub spent: i64,
    /// The worst-case cost of the calls under way.
    pub reserved: i64,
}

impl Budget {
    /// A budget of which nothing is used.
    pub(super) const fn new(
        (payer, resource): (Payer, Resource),
        amount: i64,
        period: Period,
        period_start: DateTime<Utc>,
    ) -> Self {
        Self { payer, resource, period, period_start, amount, spent: 0, reserved: 0 }
    }

    /// What the next call may reserve at most; negative if more is used than there is, because the amount was lowered
    /// or a call cost more than its worst case.
    pub const fn free(&self) -> i64 {
        self.amount.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    /// The budget at this time: reset, if its period is over. Calls under way keep what they reserved.
    #[must_use]
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        if let Some(start) = self.period.start(now).filter(|start| self.period_start < *start) {
            (self.period_start, self.spent) = (start, 0);
        }
        self
    }

    /// Replaces what a call reserved by what it used.
    pub(super) fn settle(&mut self, reserved: i64, used: i64) {
        self.reserved = self.reserved.saturating_sub(reserved).max(0);
        self.spent = self.spent.saturating_add(used.max(0));
    }
}

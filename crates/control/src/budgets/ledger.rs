//! What happens to budgets, as pure functions: a store gives them what it has locked, and writes what they return.
//!
//! Each takes the budgets as they are and returns them as they are to be. A budget that is missing from the answer is
//! deleted, and one that was not there before is new.

use chrono::{DateTime, Utc};
use gathering_auth::{AuditEvent, AuditKind};
use gathering_dag_engine::Grant;
use gathering_domain::{Amounts, MAX_AMOUNT, Pointer, Problems, ProjectId, Resource, RunId};
use serde_json::{Value, json};

use super::{Budget, Payer, Period};
use crate::access::{Scoped, right};
use crate::{ControlError, Run};

/// How many waiting runs a settlement wakes for each budget: the first may need it no longer, and to wake all for what
/// only one can have would keep them all busy.
pub const WOKEN_BY_SETTLEMENT: u8 = 16;

/// A part of one budget, which a call has reserved or waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Who uses up the budget.
    pub payer: Payer,
    /// What it bounds.
    pub resource: Resource,
    /// How much of it.
    pub amount: i64,
}

impl Share {
    const fn of(budget: &Budget, amount: i64) -> Self {
        Self { payer: budget.payer, resource: budget.resource, amount }
    }

    pub(crate) fn is_of(&self, budget: &Budget) -> bool {
        (self.payer, self.resource) == (budget.payer, budget.resource)
    }
}

/// What was reserved before of the budgets that a call asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// By calls of runs that have ended since: nobody will settle them. Their reservations are gone.
    pub abandoned: Vec<Share>,
    /// By an earlier request for the same call.
    pub own: Vec<Share>,
}

/// What becomes of a request to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The budgets.
    pub budgets: Vec<Budget>,
    /// What to record of the call, in place of what it waited for; `None` if its reservation stands already.
    pub record: Option<Recorded>,
    /// The answer.
    pub grant: Grant,
}

/// What is recorded of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It has reserved these.
    Granted(Vec<Share>),
    /// It waits for these: the budgets of the project that cannot pay.
    Waiting(Vec<Share>),
}

/// Reserves the worst case of a call: every resource that the project bounds, or none. The project's budget pays where
/// it can, else the allowance of the run tree. What abandoned calls reserved is spent, since nobody knows what became
/// of them.
pub fn reserve(locked: &[Budget], held: &Held, worst: &Amounts, now: DateTime<Utc>) -> Reservation {
    let mut budgets = locked.to_vec();
    for share in &held.abandoned {
        settle_share(&mut budgets, share, share.amount);
    }
    let mut budgets: Vec<Budget> = budgets.into_iter().map(|budget| budget.at(now)).collect();
    if !held.own.is_empty() {
        let grant = Grant::Reserved(resources(&held.own));
        return Reservation { budgets, record: None, grant };
    }
    let (record, grant) = match choose(&budgets, worst) {
        Ok(chosen) => {
            for share in &chosen {
                budgets.iter_mut().filter(|budget| share.is_of(budget)).for_each(|budget| {
                    budget.reserved = budget.reserved.saturating_add(share.amount);
                });
            }
            let resources = resources(&chosen);
            let grant = if resources.is_empty() { Grant::Unbounded } else { Grant::Reserved(resources) };
            (Recorded::Granted(chosen), grant)
        }
        Err(short) => {
            let cannot_pay = budgets.iter().filter(|budget| short.iter().any(|share| share.is_of(budget)));
            let ends: Option<Vec<DateTime<Utc>>> = cannot_pay.map(|budget| budget.period.end(now)).collect();
            let last = ends.and_then(|ends| ends.into_iter().max());
            let resets_in = last.map(|last| (last - now).to_std().unwrap_or_default());
            (Recorded::Waiting(short), Grant::Refused { resets_in })
        }
    };
    Reservation { budgets, record: Some(record), grant }
}

/// Replaces what a call has reserved by what it used; a resource that is absent was not used. It counts in the period
/// that the budget is in, as of its last reservation.
pub fn settle(locked: &[Budget], reserved: &[Share], used: &Amounts) -> Vec<Budget> {
    let mut budgets = locked.to_vec();
    for share in reserved {
        settle_share(&mut budgets, share, used.get(&share.resource).copied().unwrap_or(0));
    }
    budgets
}

fn settle_share(budgets: &mut [Budget], share: &Share, used: i64) {
    for budget in budgets.iter_mut().filter(|budget| share.is_of(budget)) {
        budget.settle(share.amount, used);
    }
}

fn resources(shares: &[Share]) -> Vec<Resource> {
    shares.iter().map(|share| share.resource).collect()
}

/// Which budget pays how much; or which of the project's cannot pay.
fn choose(budgets: &[Budget], worst: &Amounts) -> Result<Vec<Share>, Vec<Share>> {
    let (mut chosen, mut short) = (Vec::new(), Vec::new());
    for (&resource, &amount) in worst {
        // Without a bound of the project there is nothing to pay.
        let Some(project) = find(budgets, Payer::Project, resource) else { continue };
        let payers = [Some(project), find(budgets, Payer::Tree, resource)].into_iter().flatten();
        match payers.into_iter().find(|budget| budget.free() >= amount) {
            Some(budget) => chosen.push(Share::of(budget, amount)),
            None => short.push(Share::of(project, amount)),
        }
    }
    if short.is_empty() { Ok(chosen) } else { Err(short) }
}

fn find(budgets: &[Budget], payer: Payer, resource: Resource) -> Option<&Budget> {
    budgets.iter().find(|budget| budget.payer == payer && budget.resource == resource)
}

/// What a project may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// In which time.
    pub period: Period,
    /// How much, from 0 to [`MAX_AMOUNT`]; a resource that is absent has no bound.
    pub amounts: Amounts,
}

impl Bounds {
    /// The budgets of a project that get these bounds. What was spent stays spent, unless it was counted in another
    /// period; calls under way keep what they reserved.
    pub fn apply(&self, locked: &[Budget], now: DateTime<Utc>) -> Vec<Budget> {
        let start = self.period.start(now).unwrap_or(now);
        let bound = |(&resource, &amount): (&Resource, &i64)| {
            let new = Budget::new((Payer::Project, resource), amount, self.period, start);
            match find(locked, Payer::Project, resource).cloned().map(|budget| budget.at(now)) {
                Some(budget) if budget.period == self.period => Budget { amount, ..budget },
                Some(budget) => Budget { reserved: budget.reserved, ..new },
                None => new,
            }
        };
        self.amounts.iter().map(bound).collect()
    }

    /// What the audit record says about it.
    pub fn audit_event(&self, project: &Scoped<ProjectId, right::Manage>) -> AuditEvent {
        let detail = json!({
            "project": project.thing(), "period": self.period.as_str(), "amounts": named(&self.amounts),
            "by": project.user(),
        });
        event(AuditKind::BudgetSet, project, detail)
    }
}

/// What the tree of a run may use up beyond the budget of its project, in addition to what it has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUp {
    /// How much more, from 1 to [`MAX_AMOUNT`].
    pub add: Amounts,
}

impl TopUp {
    /// The budgets of a project and a run tree whose allowance grows.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] at the first resource that the project does not bound, or of which the allowance would
    /// exceed [`MAX_AMOUNT`].
    pub fn apply(&self, locked: &[Budget], now: DateTime<Utc>) -> Result<Vec<Budget>, ControlError> {
        let invalid = |resource: Resource, message: &str| {
            let place = Pointer::root().join("add").join(resource.as_str());
            ControlError::Invalid(Problems::one(place, message))
        };
        let mut budgets = locked.to_vec();
        for (&resource, &more) in &self.add {
            if find(locked, Payer::Project, resource).is_none() {
                return Err(invalid(resource, "has no budget in this project, so no run waits for it"));
            }
            let is_own = |budget: &&mut Budget| (budget.payer, budget.resource) == (Payer::Tree, resource);
            match budgets.iter_mut().find(is_own) {
                Some(own) if own.amount > MAX_AMOUNT - more => {
                    return Err(invalid(resource, "would be more than can be counted"));
                }
                Some(own) => own.amount += more,
                None => budgets.push(Budget::new((Payer::Tree, resource), more, Period::Total, now)),
            }
        }
        Ok(budgets)
    }

    /// What the audit record says about it; `root` is the root run of the tree.
    pub fn audit_event(&self, run: &Scoped<Run, right::Manage>, root: RunId) -> AuditEvent {
        let detail = json!({
            "project": run.project, "run": root, "add": named(&self.add), "by": run.user(),
        });
        event(AuditKind::BudgetToppedUp, run, detail)
    }
}

fn event<T>(kind: AuditKind, scoped: &Scoped<T, right::Manage>, detail: Value) -> AuditEvent {
    let origin = scoped.caller().map(|caller| caller.origin).unwrap_or_default();
    AuditEvent::new(kind, scoped.user(), origin).with_detail(detail)
}

fn named(amounts: &Amounts) -> Value {
    amounts.iter().map(|(resource, amount)| (resource.as_str().to_owned(), json!(amount))).collect()
}

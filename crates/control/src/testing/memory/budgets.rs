//! Budgets in memory: what people and calls do to them, by the rules of [`crate::budgets`].

use async_trait::async_trait;
use chrono::Utc;
use gathering_dag_engine::{BudgetLedger, Call, Grant, StoreError};
use gathering_domain::{Amounts, ProjectId, Resource, RunId};

use super::MemoryControl;
use super::state::State;
use crate::budgets::{Held, Payer, Recorded, Share, TopUp, WOKEN_BY_SETTLEMENT, reserve, settle};
use crate::{Bounds, Budget, BudgetStore, Conflict, ControlError, Run, Scoped, right};

/// The budgets, and what calls hold of them or wait for.
#[derive(Default)]
pub(super) struct Books {
    budgets: Vec<(Owner, Budget)>,
    calls: Vec<CallShare>,
}

/// Whose a budget is: a project's, or that of a root run of it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    project: ProjectId,
    root: Option<RunId>,
}

struct CallShare {
    owner: Owner,
    share: Share,
    root: RunId,
    run: RunId,
    key: String,
    is_granted: bool,
}

impl Owner {
    fn of(project: ProjectId, root: RunId, payer: Payer) -> Self {
        let root = match payer {
            Payer::Project => None,
            Payer::Tree => Some(root),
        };
        Self { project, root }
    }
}

impl CallShare {
    fn is_of(&self, call: Call<'_>) -> bool {
        self.run == call.run && self.key == call.key
    }
}

impl Books {
    /// The budgets of the project, and those of the tree of this root run.
    fn lock(
        &self,
        project: ProjectId,
        root: Option<RunId>,
        wanted: impl Fn(Resource) -> bool,
    ) -> Vec<Budget> {
        let is_here =
            |owner: &Owner| owner.project == project && (owner.root.is_none() || owner.root == root);
        let here = self.budgets.iter().filter(|(owner, budget)| is_here(owner) && wanted(budget.resource));
        here.map(|(_, budget)| budget.clone()).collect()
    }

    fn write(&mut self, project: ProjectId, root: RunId, budgets: Vec<Budget>) {
        for after in budgets {
            let owner = Owner::of(project, root, after.payer);
            let is_same =
                |(of, budget): &&mut (Owner, Budget)| *of == owner && budget.resource == after.resource;
            match self.budgets.iter_mut().find(is_same) {
                Some((_, budget)) => *budget = after,
                None => self.budgets.push((owner, after)),
            }
        }
    }

    /// What a call of this tree has reserved.
    fn held(&self, call: Call<'_>) -> Vec<Share> {
        let own = self.calls.iter().filter(|other| other.is_of(call) && other.is_granted);
        own.map(|other| other.share).collect()
    }

    fn record(&mut self, call: Call<'_>, root: RunId, recorded: Recorded) {
        self.calls.retain(|other| !other.is_of(call) || other.is_granted);
        let (shares, is_granted) = match recorded {
            Recorded::Granted(shares) => (shares, true),
            Recorded::Waiting(shares) => (shares, false),
        };
        self.calls.extend(shares.into_iter().map(|share| CallShare {
            owner: Owner::of(call.project, root, share.payer),
            share,
            root,
            run: call.run,
            key: call.key.to_owned(),
            is_granted,
        }));
    }
}

impl State {
    /// Whether the caller still may manage the project.
    fn check_again<T>(
        &self,
        scoped: &Scoped<T, right::Manage>,
        project: ProjectId,
    ) -> Result<(), ControlError> {
        let stored = self.projects.get(&project).ok_or(ControlError::NotFound)?;
        match scoped.user() {
            Some(user) => scoped.check_again(&self.access(stored, user)),
            None => Ok(()),
        }
    }
}

impl MemoryControl {
    fn has_ended(&self, run: RunId) -> bool {
        self.runs.run(run).is_none_or(|run| run.state.is_terminal())
    }

    fn root_of(&self, run: RunId) -> RunId {
        let parent = |run: &RunId| Some(self.runs.run(*run)?.place?.parent.run);
        std::iter::successors(Some(run), parent).last().unwrap_or(run)
    }

    /// Wakes the runs that wait for a resource of a project, the first come first: at most `limit` that need at most
    /// `within`, and only those of one tree where one is named. Answers how many.
    fn wake(
        &self,
        books: &Books,
        (project, root): (ProjectId, Option<RunId>),
        resource: Resource,
        (within, limit): (i64, usize),
    ) -> usize {
        let waits = |call: &&CallShare| {
            !call.is_granted
                && (call.owner.project, call.share.resource) == (project, resource)
                && call.share.amount <= within
                && root.is_none_or(|root| call.root == root)
                && !self.has_ended(call.run)
        };
        let waiting = books.calls.iter().filter(waits).take(limit);
        waiting.map(|call| self.runs.act_on(call.run)).count()
    }
}

#[async_trait]
impl BudgetStore for MemoryControl {
    async fn list_budgets(
        &self,
        project: &Scoped<ProjectId, right::Read>,
    ) -> Result<Vec<Budget>, ControlError> {
        let now = Utc::now();
        let budgets = self.lock().budgets.lock(*project.thing(), None, |_| true);
        Ok(budgets.into_iter().map(|budget| budget.at(now)).collect())
    }

    async fn set_budgets(
        &self,
        project: &Scoped<ProjectId, right::Manage>,
        bounds: &Bounds,
    ) -> Result<Vec<Budget>, ControlError> {
        let mut state = self.lock();
        state.check_again(project, *project.thing())?;
        let project = *project.thing();
        let owner = Owner { project, root: None };
        let books = &mut state.budgets;
        let budgets = bounds.apply(&books.lock(project, None, |_| true), Utc::now());
        for resource in Resource::ALL {
            self.wake(books, (project, None), resource, (i64::MAX, usize::MAX));
        }
        books.budgets.retain(|(of, _)| *of != owner);
        let is_bounded = |resource: Resource| bounds.amounts.contains_key(&resource);
        books.calls.retain(|call| call.owner != owner || is_bounded(call.share.resource));
        books.budgets.extend(budgets.iter().map(|budget| (owner, budget.clone())));
        Ok(budgets)
    }

    async fn top_up(&self, run: &Scoped<Run, right::Manage>, top_up: &TopUp) -> Result<Run, ControlError> {
        let (project, root) = (run.project, self.root_of(run.id));
        {
            let mut state = self.lock();
            state.check_again(run, project)?;
            let books = &mut state.budgets;
            let budgets = top_up.apply(&books.lock(project, Some(root), |_| true), Utc::now())?;
            let all = (i64::MAX, usize::MAX);
            let woken = Resource::ALL.map(|resource| self.wake(books, (project, Some(root)), resource, all));
            if woken.iter().all(|n_woken| *n_woken == 0) {
                return Err(Conflict::NoBudgetWait.into());
            }
            books.write(project, root, budgets);
        }
        self.run(run.id).ok_or(ControlError::NotFound)
    }
}

#[async_trait]
impl BudgetLedger for MemoryControl {
    async fn reserve(&self, call: Call<'_>, worst: &Amounts) -> Result<Grant, StoreError> {
        let root = self.root_of(call.run);
        let books = &mut self.lock().budgets;
        let is_wanted = |resource: Resource| worst.contains_key(&resource);
        let locked = books.lock(call.project, Some(root), is_wanted);
        if locked.iter().all(|budget| budget.payer != Payer::Project) {
            return Ok(Grant::Unbounded);
        }
        let owners = [Payer::Project, Payer::Tree].map(|payer| Owner::of(call.project, root, payer));
        let gone = books.calls.extract_if(.., |other| {
            let is_locked = owners.contains(&other.owner) && is_wanted(other.share.resource);
            is_locked && other.is_granted && self.has_ended(other.run)
        });
        let abandoned = gone.map(|call| call.share).collect();
        let held = Held { abandoned, own: books.held(call) };
        let reservation = reserve(&locked, &held, worst, Utc::now());
        books.write(call.project, root, reservation.budgets);
        if let Some(recorded) = reservation.record {
            books.record(call, root, recorded);
        }
        Ok(reservation.grant)
    }

    async fn settle(&self, call: Call<'_>, used: &Amounts) -> Result<(), StoreError> {
        let root = self.root_of(call.run);
        let books = &mut self.lock().budgets;
        let held = books.held(call);
        let is_held = |budget: &Budget| held.iter().any(|share| share.is_of(budget));
        let mut locked = books.lock(call.project, Some(root), |_| true);
        locked.retain(is_held);
        books.calls.retain(|other| !other.is_of(call) || !other.is_granted);
        let budgets = settle(&locked, &held, used);
        for budget in &budgets {
            let tree = match budget.payer {
                Payer::Project => None,
                Payer::Tree => Some(root),
            };
            let limits = (budget.free(), usize::from(WOKEN_BY_SETTLEMENT));
            self.wake(books, (call.project, tree), budget.resource, limits);
        }
        books.write(call.project, root, budgets);
        Ok(())
    }

    async fn list_open(&self, run: RunId) -> Result<Vec<String>, StoreError> {
        let state = self.lock();
        let open = state.budgets.calls.iter().filter(|call| call.run == run && call.is_granted);
        let mut keys: Vec<String> = open.map(|call| call.key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }
}

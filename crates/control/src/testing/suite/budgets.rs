//! Setting budgets, and calls within them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::sync::Arc;

use gathering_auth::{Caller, ProjectRole, Role};
use gathering_dag_engine::{
    BudgetLedger, Call, ChildKind, Claim, ClaimScope, Grant, NewChild, Parent, Release,
};
use gathering_domain::{Amounts, Digest, MAX_AMOUNT, Resource, RunId, WaitingFor};
use serde_json::{Value, json};

use super::{World, claim, commit, conflict, failed, node};
use crate::testing::ControlFixture;
use crate::{Bounds, Budget, BudgetControl, Conflict, ControlError, Period, StartRun, TopUp};

const TOKENS: Resource = Resource::Tokens;
const CALLS: Resource = Resource::ModelCalls;

/// A project with budgets, whose runs make calls.
struct Bench {
    world: World,
    budgets: BudgetControl,
    ledger: Arc<dyn BudgetLedger>,
}

/// A node that a claim does not begin, so that a run has no journal until a case writes one.
fn idle() -> Value {
    json!({"nodes": [{"id": "a", "type": "trigger", "idempotent": false}]})
}

fn bounds(period: Period, amounts: &[(Resource, i64)]) -> Bounds {
    Bounds { period, amounts: amounts.iter().copied().collect() }
}

fn add(resource: Resource, more: i64) -> TopUp {
    TopUp { add: [(resource, more)].into() }
}

fn park() -> Option<Release> {
    Some(Release::Park { waiting_for: WaitingFor::BudgetExceeded, until: None })
}

fn is_refused(grant: &Grant) -> bool {
    matches!(grant, Grant::Refused { .. })
}

/// The place of the only problem.
fn invalid<T: std::fmt::Debug>(answer: Result<T, ControlError>) -> String {
    match answer {
        Err(ControlError::Invalid(problems)) => problems.iter().next().unwrap().pointer.to_string(),
        other => panic!("{other:?}"),
    }
}

impl Bench {
    async fn new<F: ControlFixture>(fixture: &F) -> Self {
        let world = World::new(fixture).await;
        let budgets = BudgetControl::new(fixture.store());
        world.change(true, Some(&idle())).await;
        Self { world, budgets, ledger: fixture.budget_ledger() }
    }

    async fn set(&self, period: Period, amounts: &[(Resource, i64)]) -> Vec<Budget> {
        let bounds = bounds(period, amounts);
        self.budgets.set(&self.world.owner, self.world.project, &bounds).await.unwrap()
    }

    async fn top_up(&self, by: &Caller, run: RunId, top_up: TopUp) -> Result<RunId, ControlError> {
        self.budgets.top_up(by, run, &top_up).await.map(|run| run.id)
    }

    /// What is spent and reserved of the project's budget.
    async fn used(&self, resource: Resource) -> (i64, i64) {
        let budgets = self.budgets.show(&self.world.owner, self.world.project).await.unwrap();
        let budget = budgets.into_iter().find(|budget| budget.resource == resource).unwrap();
        (budget.spent, budget.reserved)
    }

    async fn driven<F: ControlFixture>(&self, fixture: &F) -> Claim {
        let run = self.world.start(&self.world.owner, StartRun::default()).await.unwrap().id;
        claim(fixture, run).await
    }

    async fn reserve(&self, run: RunId, key: &str, worst: &[(Resource, i64)]) -> Grant {
        let call = Call { project: self.world.project, run, key };
        self.ledger.reserve(call, &worst.iter().copied().collect()).await.unwrap()
    }

    async fn settle(&self, run: RunId, key: &str, used: &[(Resource, i64)]) {
        let call = Call { project: self.world.project, run, key };
        self.ledger.settle(call, &used.iter().copied().collect()).await.unwrap();
    }
}

/// The runs that can be claimed now.
async fn claimed<F: ControlFixture>(fixture: &F) -> Vec<RunId> {
    let instance = fixture.instance().await;
    let claimed = fixture.run_store().claim(instance, ClaimScope::Queue, 100).await.unwrap();
    claimed.into_iter().map(|claimed| claimed.claim.run).collect()
}

/// Everybody who sees the project sees them; an editor changes nothing.
pub async fn an_owner_sets_the_budget_that_members_see<F: ControlFixture>(fixture: &F) {
    let bench = Bench::new(fixture).await;
    let (project, day) = (bench.world.project, bounds(Period::Day, &[(CALLS, 2)]));
    let caller = fixture.account(Role::Member).await;
    let refused = bench.budgets.set(&caller, project, &day).await;
    assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    let refused = bench.budgets.show(&caller, project).await;
    assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    fixture.join(project, &caller, ProjectRole::Editor).await;
    let refused = bench.budgets.set(&caller, project, &day).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    assert_eq!(bench.budgets.show(&caller, project).await.unwrap(), []);
    let set = bench.budgets.set(&bench.world.owner, project, &day).await.unwrap();
    assert_eq!(bench.budgets.show(&caller, project).await.unwrap(), set);
    let [Budget { resource: CALLS, period: Period::Day, amount: 2, spent: 0, reserved: 0, .. }] = set[..]
    else {
        panic!("{set:?}")
    };
    let admin = fixture.account(Role::Admin).await;
    assert_eq!(bench.budgets.set(&admin, project, &bounds(Period::Total, &[])).await.unwrap(), []);
}

/// By its key, however often it is repeated; what was spent stays spent.
pub async fn a_call_is_reserved_and_settled_once<F: ControlFixture>(fixture: &F) {
    let bench = Bench::new(fixture).await;
    let run = bench.driven(fixture).await.run;
    assert_eq!(bench.reserve(run, "a", &[(CALLS, 1)]).await, Grant::Unbounded);
    bench.set(Period::Total, &[(CALLS, 2)]).await;
    for _ in 0..2 {
        assert_eq!(bench.reserve(run, "a", &[(CALLS, 2), (TOKENS, 9)]).await, Grant::Reserved(vec![CALLS]));
        assert_eq!(bench.used(CALLS).await, (0, 2));
    }
    assert!(is_refused(&bench.reserve(run, "b", &[(CALLS, 1)]).await));
    assert_eq!(bench.ledger.list_open(run).await.unwrap(), ["a"]);
    for _ in 0..2 {
        bench.settle(run, "a", &[(CALLS, 1)]).await;
        assert_eq!(bench.used(CALLS).await, (1, 0));
    }
    assert!(bench.ledger.list_open(run).await.unwrap().is_empty());
    bench.set(Period::Total, &[(CALLS, 1)]).await;
    assert!(is_refused(&bench.reserve(run, "b", &[(CALLS, 1)]).await));
    bench.set(Period::Month, &[(CALLS, 1)]).await;
    assert_eq!(bench.reserve(run, "b", &[(CALLS, 1)]).await, Grant::Reserved(vec![CALLS]));
}

/// A settlement that frees enough, and a change of the budget, make the run claimable.
pub async fn a_refused_call_goes_on_when_the_budget_allows_it<F: ControlFixture>(fixture: &F) {
    let bench = Bench::new(fixture).await;
    bench.set(Period::Total, &[(TOKENS, 100)]).await;
    let rich = bench.driven(fixture).await.run;
    bench.reserve(rich, "a", &[(TOKENS, 100)]).await;
    let (small, large) = (bench.driven(fixture).await, bench.driven(fixture).await);
    for (waiting, tokens) in [(small, 20), (large, 90)] {
        assert!(is_refused(&bench.reserve(waiting.run, "a", &[(TOKENS, tokens)]).await));
        commit(fixture, waiting, vec![], park()).await;
    }
    assert_eq!(claimed(fixture).await, []);
    bench.settle(rich, "a", &[(TOKENS, 70)]).await;
    assert_eq!(claimed(fixture).await, [small.run]);
    bench.set(Period::Total, &[(TOKENS, 200)]).await;
    assert_eq!(claimed(fixture).await, [large.run]);
    assert_eq!(bench.reserve(large.run, "a", &[(TOKENS, 90)]).await, Grant::Reserved(vec![TOKENS]));
}

/// Nobody can say any more whether its calls took place.
pub async fn what_an_ended_run_left_reserved_is_spent<F: ControlFixture>(fixture: &F) {
    let bench = Bench::new(fixture).await;
    bench.set(Period::Total, &[(CALLS, 3)]).await;
    let (lost, other) = (bench.driven(fixture).await, bench.driven(fixture).await.run);
    bench.reserve(lost.run, "a", &[(CALLS, 2)]).await;
    commit(fixture, lost, vec![], Some(failed())).await;
    assert!(is_refused(&bench.reserve(other, "a", &[(CALLS, 2)]).await));
    assert_eq!(bench.used(CALLS).await, (2, 0));
    bench.settle(lost.run, "a", &[]).await;
    assert_eq!(bench.used(CALLS).await, (2, 0), "that is over");
}

/// The project's own budget pays nothing of it.
pub async fn a_run_tree_shares_its_allowance_and_no_other_run_has_it<F: ControlFixture>(fixture: &F) {
    let bench = Bench::new(fixture).await;
    let owner = &bench.world.owner;
    bench.set(Period::Total, &[(CALLS, 0)]).await;
    let (root, stranger) = (bench.driven(fixture).await.run, bench.driven(fixture).await);
    let parent = Parent { run: root, node: node("a"), round: 0 };
    let graph = Digest::of_json(&idle());
    let new = NewChild { item: 0, graph, input: json!({}), pipeline: None, deadline_at: None, permit: None };
    fixture.child_runs().start(&parent, ChildKind::Awaited, vec![new], &[]).await.unwrap();
    let child = claim(fixture, parent.child(0)).await;
    for waiting in [child, stranger] {
        assert!(is_refused(&bench.reserve(waiting.run, "a", &[(CALLS, 1)]).await));
        commit(fixture, waiting, vec![], park()).await;
    }
    assert_eq!(bench.top_up(owner, root, add(CALLS, 1)).await.unwrap(), root);
    assert_eq!(bench.top_up(owner, child.run, add(CALLS, 1)).await.unwrap(), child.run, "the same one");
    assert_eq!(claimed(fixture).await, [child.run]);
    for waiting in [child.run, root] {
        assert_eq!(bench.reserve(waiting, "a", &[(CALLS, 1)]).await, Grant::Reserved(vec![CALLS]));
    }
    assert!(is_refused(&bench.reserve(child.run, "b", &[(CALLS, 1)]).await), "it is used");
    assert!(is_refused(&bench.reserve(stranger.run, "a", &[(CALLS, 1)]).await));
    assert_eq!(bench.used(CALLS).await, (0, 0));
}

/// And only of a resource that the project bounds, up to what can be counted.
pub async fn only_an_owner_tops_up_a_run_that_waits_for_its_budget<F: ControlFixture>(fixture: &F) {
    let bench = Bench::new(fixture).await;
    let owner = &bench.world.owner;
    bench.set(Period::Total, &[(CALLS, 0)]).await;
    let waiting = bench.driven(fixture).await;
    let run = waiting.run;
    assert_eq!(conflict(bench.top_up(owner, run, add(CALLS, 1)).await), Conflict::NoBudgetWait);
    assert!(is_refused(&bench.reserve(run, "a", &[(CALLS, 1)]).await));
    commit(fixture, waiting, vec![], park()).await;
    let caller = fixture.account(Role::Member).await;
    let refused = bench.top_up(&caller, run, add(CALLS, 1)).await;
    assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    fixture.join(bench.world.project, &caller, ProjectRole::Editor).await;
    let refused = bench.top_up(&caller, run, add(CALLS, 1)).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    assert_eq!(invalid(bench.top_up(owner, run, add(TOKENS, 1)).await), "/add/tokens");
    assert_eq!(claimed(fixture).await, [], "nothing was added");
    bench.top_up(owner, run, add(CALLS, 1)).await.unwrap();
    let more = Amounts::from([(CALLS, MAX_AMOUNT)]);
    assert_eq!(invalid(bench.top_up(owner, run, TopUp { add: more }).await), "/add/model_calls");
    assert_eq!(claimed(fixture).await, [run]);
    assert_eq!(bench.reserve(run, "a", &[(CALLS, 1)]).await, Grant::Reserved(vec![CALLS]));
}

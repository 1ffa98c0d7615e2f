//! Budgets: never exceeded by concurrent calls; settled once; shared by a tree of runs.

use std::sync::Arc;
use std::time::Duration;

use gathering_auth::{AccountStore as _, AuditFilter, AuditKind, Caller, Role, RoleAtCreation};
use gathering_control::testing::session_caller;
use gathering_control::{
    Bounds, Budget, BudgetControl, BudgetStore as _, Conflict, ControlError, Period, ProjectControl, TopUp,
    right,
};
use gathering_dag_engine::testing::planned_result;
use gathering_dag_engine::{
    BudgetLedger as _, Call, Checkpoint, ChildKind, ChildRuns, ClaimScope, Grant, NewChild, Parent, Release,
    RunEnd, RunStore,
};
use gathering_domain::{Amounts, InstanceId, MAX_AMOUNT, Resource, RunEvent, RunId, WaitingFor};
use gathering_persistence::{PgAccountStore, PgBudgetLedger, PgControlStore, Wake, WakeBus};
use serde_json::json;
use tokio::task::JoinSet;

use crate::accounts::create_account;
use crate::common::World;

const TOKENS: Resource = Resource::Tokens;
const CALLS: Resource = Resource::ModelCalls;

struct Bench {
    world: World,
    ledger: PgBudgetLedger,
    store: PgControlStore,
    budgets: BudgetControl,
    wakes: WakeBus,
    admin: Caller,
    owner: InstanceId,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().await;
        let accounts = PgAccountStore::new(world.pool.clone());
        let ada = create_account(&accounts, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
        let admin = session_caller(ada.id, ada.role);
        let wakes = WakeBus::new();
        let ledger = PgBudgetLedger::new(world.pool.clone(), wakes.clone());
        let store = PgControlStore::new(world.pool.clone(), wakes.clone());
        let budgets = BudgetControl::new(Arc::new(store.clone()));
        let owner = world.begin_instance().await;
        Self { world, ledger, store, budgets, wakes, admin, owner }
    }

    async fn set(&self, period: Period, amounts: &[(Resource, i64)]) -> Vec<Budget> {
        let bounds = Bounds { period, amounts: amounts.iter().copied().collect() };
        self.budgets.set(&self.admin, self.world.project, &bounds).await.unwrap()
    }

    async fn reserve(&self, run: RunId, key: &str, worst: &[(Resource, i64)]) -> Grant {
        let call = Call { project: self.world.project, run, key };
        self.ledger.reserve(call, &worst.iter().copied().collect()).await.unwrap()
    }

    async fn settle(&self, run: RunId, key: &str, used: &[(Resource, i64)]) {
        let call = Call { project: self.world.project, run, key };
        self.ledger.settle(call, &used.iter().copied().collect()).await.unwrap();
    }

    async fn top_up(&self, run: RunId, add: &[(Resource, i64)]) -> Result<RunId, ControlError> {
        let top_up = TopUp { add: add.iter().copied().collect() };
        Ok(self.budgets.top_up(&self.admin, run, &top_up).await?.id)
    }

    /// What is spent and reserved of the project's budget.
    async fn used(&self, resource: Resource) -> (i64, i64) {
        let all = self.budgets.show(&self.admin, self.world.project).await.unwrap();
        let budget = all.into_iter().find(|budget| budget.resource == resource).unwrap();
        (budget.spent, budget.reserved)
    }

    /// A run that is driven.
    async fn driven(&self) -> RunId {
        let run = self.world.accept().await;
        self.world.store.claim_run(self.owner, run).await.unwrap().unwrap();
        run
    }

    /// Parks a run that is driven, or ends it.
    async fn let_go(&self, run: RunId, release: Release) {
        let epoch = self.world.count(&format!("SELECT epoch FROM all_runs WHERE id = '{run}'")).await;
        let first_seq = self
            .world
            .count(&format!("SELECT coalesce(max(seq), 0) + 1 FROM run_journal WHERE run_id = '{run}'"))
            .await;
        let claim = gathering_dag_engine::Claim { run, owner: self.owner, epoch };
        let checkpoint =
            Checkpoint { claim, first_seq, records: vec![], release: Some(release), frees: Vec::new() };
        self.world.store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
    }

    async fn park(&self, run: RunId) {
        self.let_go(run, Release::Park { waiting_for: WaitingFor::BudgetExceeded, until: None }).await;
    }

    /// What can be claimed now.
    async fn claimed(&self) -> Vec<RunId> {
        let claimed = self.world.store.claim(self.owner, ClaimScope::Queue, 100).await.unwrap();
        let mut runs: Vec<RunId> = claimed.into_iter().map(|claimed| claimed.claim.run).collect();
        runs.sort_unstable();
        runs
    }
}

/// The place of the only problem.
fn invalid(answer: Result<RunId, ControlError>) -> String {
    match answer {
        Err(ControlError::Invalid(problems)) => problems.iter().next().unwrap().pointer.to_string(),
        other => panic!("{other:?}"),
    }
}

fn is_refused(grant: &Grant) -> bool {
    matches!(grant, Grant::Refused { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_at_the_same_time_never_use_more_than_the_budget() {
    let bench = Bench::new().await;
    bench.set(Period::Total, &[(TOKENS, 1000), (CALLS, 25)]).await;
    let run = bench.driven().await;
    let project = bench.world.project;
    let mut calls = JoinSet::new();
    for n in 0..80_i64 {
        let budgets = bench.ledger.clone();
        calls.spawn(async move {
            let key = format!("a/0/model/{n}");
            let call = Call { project, run, key: &key };
            let grant = budgets.reserve(call, &[(TOKENS, 90), (CALLS, 1)].into()).await.unwrap();
            match (n % 4, is_refused(&grant)) {
                (_, true) => return (0, 0),
                // Nobody knows what became of it.
                (0, _) => return (90, 1),
                (1, _) => budgets.settle(call, &Amounts::new()).await.unwrap(),
                _ => budgets.settle(call, &[(TOKENS, 40), (CALLS, 1)].into()).await.unwrap(),
            }
            if n % 4 == 1 { (0, 0) } else { (40, 1) }
        });
    }
    let (mut tokens, mut n_calls) = (0, 0);
    while let Some(used) = calls.join_next().await {
        let exceeded = "SELECT count(*) FROM budgets WHERE spent + reserved > amount";
        assert_eq!(bench.world.count(exceeded).await, 0, "more is used than there is");
        let (of_tokens, of_calls) = used.unwrap();
        (tokens, n_calls) = (tokens + of_tokens, n_calls + of_calls);
    }
    let ((spent, reserved), (calls_spent, calls_reserved)) =
        (bench.used(TOKENS).await, bench.used(CALLS).await);
    assert_eq!((spent + reserved, calls_spent + calls_reserved), (tokens, n_calls), "each is counted once");
    assert!((90..=1000).contains(&tokens), "{tokens}");
}

#[tokio::test]
async fn a_repeated_reservation_is_its_own_and_is_settled_once() {
    let bench = Bench::new().await;
    let run = bench.driven().await;
    assert_eq!(bench.reserve(run, "a", &[(CALLS, 1)]).await, Grant::Unbounded, "nothing is bounded yet");
    bench.set(Period::Total, &[(CALLS, 1)]).await;
    for _ in 0..2 {
        assert_eq!(bench.reserve(run, "a", &[(CALLS, 1), (TOKENS, 9)]).await, Grant::Reserved(vec![CALLS]));
        assert_eq!(bench.used(CALLS).await, (0, 1));
    }
    assert!(is_refused(&bench.reserve(run, "b", &[(CALLS, 1)]).await));
    assert_eq!(bench.ledger.list_open(run).await.unwrap(), ["a"]);
    for _ in 0..2 {
        bench.settle(run, "a", &[(CALLS, 1)]).await;
        assert_eq!(bench.used(CALLS).await, (1, 0));
    }
    assert!(bench.ledger.list_open(run).await.unwrap().is_empty());
}

#[tokio::test]
async fn of_several_resources_all_are_reserved_or_none() {
    let bench = Bench::new().await;
    bench.set(Period::Total, &[(CALLS, 5), (TOKENS, 10)]).await;
    let run = bench.driven().await;
    assert!(is_refused(&bench.reserve(run, "a", &[(CALLS, 1), (TOKENS, 11)]).await));
    assert_eq!((bench.used(CALLS).await, bench.used(TOKENS).await), ((0, 0), (0, 0)));
    let both = Grant::Reserved(vec![CALLS, TOKENS]);
    let granted = bench.reserve(run, "a", &[(CALLS, 1), (TOKENS, 10)]).await;
    assert!(granted == both || granted == Grant::Reserved(vec![TOKENS, CALLS]), "{granted:?}");
    bench.settle(run, "a", &[]).await;
    assert_eq!(
        (bench.used(CALLS).await, bench.used(TOKENS).await),
        ((0, 0), (0, 0)),
        "it did not take place"
    );
}

#[tokio::test]
async fn a_new_period_begins_with_nothing_spent() {
    let bench = Bench::new().await;
    bench.set(Period::Day, &[(CALLS, 2)]).await;
    let run = bench.driven().await;
    for key in ["a", "b"] {
        bench.reserve(run, key, &[(CALLS, 1)]).await;
        bench.settle(run, key, &[(CALLS, 1)]).await;
    }
    let refused = bench.reserve(run, "c", &[(CALLS, 1)]).await;
    let Grant::Refused { resets_in: Some(resets_in) } = refused else { panic!("{refused:?}") };
    assert!(resets_in <= Duration::from_secs(24 * 3600), "{resets_in:?}");
    bench.world.db.execute("UPDATE budgets SET period_start = period_start - interval '2 days'").await;
    assert_eq!(bench.used(CALLS).await, (0, 0), "who looks sees it as well");
    assert_eq!(bench.reserve(run, "c", &[(CALLS, 1)]).await, Grant::Reserved(vec![CALLS]));
    assert_eq!(bench.used(CALLS).await, (0, 1));
    assert_eq!(
        bench.world.count("SELECT count(*) FROM budgets WHERE period_start > now() - interval '1 day'").await,
        1
    );
}

#[tokio::test]
async fn what_a_run_left_reserved_is_spent_once_it_has_ended() {
    let bench = Bench::new().await;
    bench.set(Period::Total, &[(CALLS, 3)]).await;
    let (lost, other) = (bench.driven().await, bench.driven().await);
    bench.reserve(lost, "a", &[(CALLS, 2)]).await;
    let end =
        RunEnd { result: planned_result(RunEvent::Cancelled), abandons_children: false, is_limited: false };
    bench.let_go(lost, Release::End(end)).await;
    assert!(is_refused(&bench.reserve(other, "a", &[(CALLS, 2)]).await), "nothing comes back");
    assert_eq!(bench.used(CALLS).await, (2, 0));
    bench.settle(lost, "a", &[]).await;
    assert_eq!(bench.used(CALLS).await, (2, 0), "that is over");
}

#[tokio::test]
async fn a_tree_of_runs_shares_its_allowance_and_nobody_else_has_it() {
    let bench = Bench::new().await;
    bench.set(Period::Total, &[(CALLS, 0)]).await;
    let (root, stranger) = (bench.driven().await, bench.driven().await);
    let parent = Parent { run: root, node: "call".parse().unwrap(), round: 0 };
    let graph = bench.world.new_run().await.graph;
    let child =
        NewChild { item: 0, graph, input: json!({}), pipeline: None, deadline_at: None, permit: None };
    bench.world.store.start(&parent, ChildKind::Awaited, vec![child], &[]).await.unwrap();
    let child = parent.child(0);
    bench.world.store.claim_run(bench.owner, child).await.unwrap().unwrap();
    let nobody = bench.top_up(root, &[(CALLS, 2)]).await;
    assert!(matches!(nobody, Err(ControlError::Conflict(Conflict::NoBudgetWait))), "{nobody:?}");
    for run in [child, stranger] {
        assert!(is_refused(&bench.reserve(run, "a", &[(CALLS, 1)]).await));
        bench.park(run).await;
    }
    assert_eq!(invalid(bench.top_up(root, &[(TOKENS, 2)]).await), "/add/tokens");
    assert_eq!(bench.claimed().await, [], "nothing was added");
    assert_eq!(bench.top_up(root, &[(CALLS, 1)]).await.unwrap(), root);
    assert_eq!(bench.top_up(child, &[(CALLS, 1)]).await.unwrap(), child, "the same one");
    assert_eq!(invalid(bench.top_up(child, &[(CALLS, MAX_AMOUNT - 1)]).await), "/add/model_calls");
    assert_eq!(bench.claimed().await, [child], "it goes on, and the stranger does not");
    assert!(is_refused(&bench.reserve(stranger, "a", &[(CALLS, 1)]).await));
    assert_eq!(bench.reserve(child, "a", &[(CALLS, 1)]).await, Grant::Reserved(vec![CALLS]));
    assert_eq!(bench.reserve(root, "a", &[(CALLS, 1)]).await, Grant::Reserved(vec![CALLS]));
    assert!(is_refused(&bench.reserve(child, "b", &[(CALLS, 1)]).await), "it is used");
    assert_eq!(bench.used(CALLS).await, (0, 0), "the project paid nothing");
    // What a call of the tree gives back is for the tree.
    bench.park(child).await;
    bench.settle(root, "a", &[]).await;
    assert_eq!(bench.claimed().await, [child]);
}

#[tokio::test]
async fn who_waits_is_woken_by_what_may_pay_for_it_and_by_nothing_else() {
    let bench = Bench::new().await;
    bench.set(Period::Total, &[(TOKENS, 100)]).await;
    let (rich, small, large) = (bench.driven().await, bench.driven().await, bench.driven().await);
    bench.reserve(rich, "a", &[(TOKENS, 100)]).await;
    for (run, tokens) in [(small, 20), (large, 90)] {
        assert!(is_refused(&bench.reserve(run, "a", &[(TOKENS, tokens)]).await));
        bench.park(run).await;
    }
    assert_eq!(bench.claimed().await, []);
    let acts = bench.wakes.subscribe(Wake::Signals);
    bench.settle(rich, "a", &[(TOKENS, 70)]).await;
    assert!(acts.has_changed().unwrap());
    assert_eq!(bench.claimed().await, [small]);
    // While it is driven it is told, and not parked past that.
    bench.set(Period::Total, &[(TOKENS, 200)]).await;
    let signalled = bench.world.store.list_signalled(bench.owner, &[small]).await.unwrap();
    assert!(signalled.iter().any(|signalled| signalled.run == small), "{signalled:?}");
    assert_eq!(bench.claimed().await, [large]);
    assert_eq!(bench.reserve(large, "a", &[(TOKENS, 90)]).await, Grant::Reserved(vec![TOKENS]));
    bench.park(small).await;
    bench.claimed().await;
    bench.park(small).await;
    bench.set(Period::Total, &[]).await;
    assert_eq!(bench.claimed().await, [small], "a bound that is gone bounds nobody");
    assert_eq!(bench.reserve(small, "a", &[(TOKENS, 20)]).await, Grant::Unbounded);
}

#[tokio::test]
async fn what_was_spent_stays_spent_unless_it_was_counted_in_another_period() {
    let bench = Bench::new().await;
    bench.set(Period::Total, &[(CALLS, 5)]).await;
    let run = bench.driven().await;
    bench.reserve(run, "a", &[(CALLS, 1)]).await;
    bench.settle(run, "a", &[(CALLS, 1)]).await;
    let set = bench.set(Period::Total, &[(CALLS, 1), (TOKENS, 7)]).await;
    let status = |budget: &Budget| (budget.resource, budget.amount, budget.spent);
    let mut status: Vec<_> = set.iter().map(status).collect();
    status.sort_unstable();
    assert_eq!(status, [(TOKENS, 7, 0), (CALLS, 1, 1)]);
    assert!(is_refused(&bench.reserve(run, "b", &[(CALLS, 1)]).await));
    bench.set(Period::Month, &[(CALLS, 1)]).await;
    assert_eq!(bench.reserve(run, "b", &[(CALLS, 1)]).await, Grant::Reserved(vec![CALLS]));
}

#[tokio::test]
async fn budgets_are_changed_by_who_may_and_that_is_recorded() {
    let bench = Bench::new().await;
    let accounts = PgAccountStore::new(bench.world.pool.clone());
    let bob = create_account(&accounts, "bob@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let bob = session_caller(bob.id, Role::Member);
    let (project, bounds) =
        (bench.world.project, Bounds { period: Period::Day, amounts: [(CALLS, 0)].into() });
    let refused = bench.budgets.set(&bob, project, &bounds).await;
    assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    assert_eq!(bench.budgets.show(&bench.admin, project).await.unwrap(), []);
    bench.budgets.set(&bench.admin, project, &bounds).await.unwrap();
    let run = bench.driven().await;
    bench.reserve(run, "a", &[(CALLS, 1)]).await;
    let more = TopUp { add: [(CALLS, 1)].into() };
    let refused = bench.budgets.top_up(&bob, run, &more).await;
    assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    assert_eq!(bench.top_up(run, &[(CALLS, 1)]).await.unwrap(), run);
    let mut details = Vec::new();
    for kind in [AuditKind::BudgetSet, AuditKind::BudgetToppedUp] {
        let filter = AuditFilter { kind: Some(kind), ..AuditFilter::default() };
        let events = accounts.list_audit_events(&filter, 9).await.unwrap();
        details.extend(events.into_iter().map(|record| (record.event.user, record.event.detail)));
    }
    let by = bench.admin.user;
    let set = json!({"project": project, "period": "day", "amounts": {"model_calls": 0}, "by": by});
    let added = json!({"project": project, "run": run, "add": {"model_calls": 1}, "by": by});
    assert_eq!(details, [(Some(by), set), (Some(by), added)]);
}

#[tokio::test]
async fn a_right_that_is_lost_before_the_lock_changes_no_budget() {
    let bench = Bench::new().await;
    let accounts = PgAccountStore::new(bench.world.pool.clone());
    let bob = create_account(&accounts, "bob@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let (bob, project) = (session_caller(bob.id, Role::Member), bench.world.project);
    let join = format!(
        "INSERT INTO project_members (project_id, user_id, role) VALUES ('{project}', '{}', 'owner')",
        bob.user
    );
    bench.world.db.execute(&join).await;
    let scoped =
        ProjectControl::new(Arc::new(bench.store.clone())).find::<right::Manage>(&bob, project).await;
    let (scoped, bounds) = (scoped.unwrap(), Bounds { period: Period::Total, amounts: [(CALLS, 1)].into() });
    bench.store.set_budgets(&scoped, &bounds).await.unwrap();
    let none = Bounds { period: Period::Total, amounts: Amounts::new() };
    for (change, is_revoked) in [
        ("UPDATE project_members SET role = 'editor' WHERE role = 'owner'", false),
        ("UPDATE users SET is_active = false WHERE role = 'member'", true),
    ] {
        bench.world.db.execute(change).await;
        match bench.store.set_budgets(&scoped, &none).await {
            Err(ControlError::Forbidden) if !is_revoked => {}
            Err(ControlError::Revoked) if is_revoked => {}
            other => panic!("{change}: {other:?}"),
        }
        assert_eq!(bench.used(CALLS).await, (0, 0));
    }
}

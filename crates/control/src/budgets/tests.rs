//! The rules of budgets without a store: single cases, and sums that hold after any steps.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use gathering_dag_engine::Grant;
use gathering_domain::{Amounts, MAX_AMOUNT, Resource};
use proptest::prelude::*;

use super::*;

const TOKENS: Resource = Resource::Tokens;
const CALLS: Resource = Resource::ModelCalls;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A budget of a project in the period that `noon` is in.
fn budget(resource: Resource, amount: i64, period: Period) -> Budget {
    let start = period.start(noon()).unwrap_or_else(noon);
    Budget::new((Payer::Project, resource), amount, period, start)
}

fn noon() -> DateTime<Utc> {
    at("2026-03-04T12:00:00Z")
}

fn ask(locked: &[Budget], worst: &[(Resource, i64)]) -> Reservation {
    reserve(locked, &Held::default(), &worst.iter().copied().collect(), noon())
}

fn share(payer: Payer, resource: Resource, amount: i64) -> Share {
    Share { payer, resource, amount }
}

#[test]
fn all_that_is_bounded_is_reserved_or_nothing() {
    let locked = [budget(TOKENS, 10, Period::Total), budget(CALLS, 1, Period::Total)];
    let granted = ask(&locked, &[(TOKENS, 10), (CALLS, 1), (Resource::ToolCalls, 5)]);
    assert_eq!(granted.grant, Grant::Reserved(vec![TOKENS, CALLS]));
    assert_eq!(granted.budgets.iter().map(Budget::free).collect::<Vec<_>>(), [0, 0]);
    let refused = ask(&locked, &[(TOKENS, 11), (CALLS, 1)]);
    assert_eq!(refused.grant, Grant::Refused { resets_in: None });
    assert_eq!(refused.record, Some(Recorded::Waiting(vec![share(Payer::Project, TOKENS, 11)])));
    assert_eq!(refused.budgets, locked);
    assert_eq!(ask(&locked, &[(Resource::ToolCalls, 5)]).grant, Grant::Unbounded);
}

#[test]
fn an_allowance_pays_whole_calls_that_the_project_cannot_pay() {
    let project = budget(TOKENS, 5, Period::Day);
    let own = Budget { payer: Payer::Tree, ..budget(TOKENS, 6, Period::Total) };
    let both = [project.clone(), own.clone()];
    let small = ask(&both, &[(TOKENS, 5)]);
    assert_eq!(small.record, Some(Recorded::Granted(vec![share(Payer::Project, TOKENS, 5)])));
    let large = ask(&both, &[(TOKENS, 6)]);
    assert_eq!(large.record, Some(Recorded::Granted(vec![share(Payer::Tree, TOKENS, 6)])));
    let larger = ask(&both, &[(TOKENS, 7)]);
    assert_eq!(larger.record, Some(Recorded::Waiting(vec![share(Payer::Project, TOKENS, 7)])));
    assert_eq!(ask(&[own], &[(TOKENS, 1)]).grant, Grant::Unbounded, "the project bounds nothing");
}

#[test]
fn a_refusal_says_when_the_last_budget_that_cannot_pay_is_reset() {
    let day = budget(TOKENS, 0, Period::Day);
    let month = budget(CALLS, 0, Period::Month);
    let worst = [(TOKENS, 1), (CALLS, 1)];
    let resets_in = |locked: &[Budget]| match ask(locked, &worst).grant {
        Grant::Refused { resets_in } => resets_in.map(|wait| wait.as_secs() / 3600),
        other => panic!("{other:?}"),
    };
    assert_eq!(resets_in(std::slice::from_ref(&day)), Some(12));
    assert_eq!(resets_in(&[day.clone(), month]), Some(27 * 24 + 12));
    assert_eq!(resets_in(&[day, budget(CALLS, 0, Period::Total)]), None);
}

#[test]
fn what_abandoned_calls_reserved_is_spent() {
    let locked = [Budget { reserved: 4, ..budget(CALLS, 5, Period::Total) }];
    let held = Held { abandoned: vec![share(Payer::Project, CALLS, 4)], own: Vec::new() };
    let done = reserve(&locked, &held, &[(CALLS, 2)].into(), noon());
    assert!(matches!(done.grant, Grant::Refused { .. }), "nothing comes back: {done:?}");
    assert_eq!((done.budgets[0].spent, done.budgets[0].reserved), (4, 0));
}

#[test]
fn a_reset_forgets_what_was_spent_and_keeps_what_is_reserved() {
    let before = Budget { spent: 3, reserved: 2, ..budget(CALLS, 5, Period::Day) };
    let evening = before.clone().at(at("2026-03-04T23:59:59Z"));
    assert_eq!(evening, before);
    let midnight = at("2026-03-05T00:00:00Z");
    let after = before.clone().at(midnight);
    assert_eq!(after, Budget { spent: 0, period_start: midnight, ..before.clone() });
    assert_eq!(after.clone().at(noon()), after, "a clock that goes back resets nothing");
    let total = Budget { period: Period::Total, ..before };
    assert_eq!(total.clone().at(midnight + TimeDelta::days(1000)), total);
}

#[test]
fn new_bounds_keep_what_was_spent_in_the_same_period() {
    let before =
        [Budget { spent: 3, reserved: 2, ..budget(CALLS, 5, Period::Day) }, budget(TOKENS, 5, Period::Day)];
    let bounds = |period| Bounds { period, amounts: [(CALLS, 1), (Resource::ToolCalls, 7)].into() };
    let set = bounds(Period::Day).apply(&before, noon());
    assert_eq!(set[0], Budget { amount: 1, ..before[0].clone() });
    assert_eq!(set[0].free(), -4);
    assert_eq!(set[1..], [budget(Resource::ToolCalls, 7, Period::Day)], "tokens are no longer bounded");
    let set = bounds(Period::Week).apply(&before, noon());
    assert_eq!(set[0], Budget { reserved: 2, ..budget(CALLS, 1, Period::Week) });
}

#[test]
fn an_allowance_grows_up_to_what_can_be_counted_and_only_of_what_is_bounded() {
    let project = budget(CALLS, 0, Period::Day);
    let top_up = |locked: &[Budget], resource, more| {
        TopUp { add: [(resource, more)].into() }.apply(locked, noon()).map_err(|error| error.to_string())
    };
    let first = top_up(std::slice::from_ref(&project), CALLS, 2).unwrap();
    let own = Budget { payer: Payer::Tree, ..budget(CALLS, 2, Period::Total) };
    assert_eq!(first, [project.clone(), own.clone()]);
    let second = top_up(&first, CALLS, MAX_AMOUNT - 2).unwrap();
    assert_eq!(second, [project, Budget { amount: MAX_AMOUNT, ..own }]);
    assert!(top_up(&second, CALLS, 1).unwrap_err().contains("/add/model_calls"));
    assert!(top_up(&second, TOKENS, 1).unwrap_err().contains("/add/tokens"));
}

#[test]
fn a_week_forgets_what_the_day_that_starts_with_it_has_spent() {
    let monday = at("2026-03-09T12:00:00Z");
    let midnight = at("2026-03-09T00:00:00Z");
    let day = Budget { spent: 12, ..Budget::new((Payer::Project, TOKENS), 14, Period::Day, midnight) };
    let set = Bounds { period: Period::Week, amounts: [(TOKENS, 14)].into() }
        .apply(std::slice::from_ref(&day), monday);
    assert_eq!(set, [Budget { spent: 0, period: Period::Week, ..day }]);
}

/// What people, calls and time do to budgets. Runs and calls have numbers.
#[derive(Debug, Clone)]
enum Step {
    Reserve { run: u8, call: u8, worst: Amounts },
    Settle { run: u8, call: u8, used: Amounts },
    End { run: u8 },
    Wait { hours: i64 },
    Set(Bounds),
    TopUp(TopUp),
}

fn amounts(most: i64) -> impl Strategy<Value = Amounts> {
    let resource = prop::sample::select(Resource::ALL.to_vec());
    prop::collection::btree_map(resource, 0..=most, 0..=3)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let period = prop::sample::select(Period::ALL.to_vec());
    let bounds = (period, amounts(40)).prop_map(|(period, amounts)| Bounds { period, amounts });
    let step = prop_oneof![
        8 => (0..4_u8, 0..3_u8, amounts(20)).prop_map(|(run, call, worst)| Step::Reserve { run, call, worst }),
        // A call may turn out dearer than its worst case.
        6 => (0..4_u8, 0..3_u8, amounts(30)).prop_map(|(run, call, used)| Step::Settle { run, call, used }),
        1 => (0..4_u8).prop_map(|run| Step::End { run }),
        2 => (1..60_i64).prop_map(|hours| Step::Wait { hours }),
        2 => bounds.prop_map(Step::Set),
        1 => amounts(10).prop_map(|add| Step::TopUp(TopUp { add })),
    ];
    prop::collection::vec(step, 1..60)
}

type Key = (Payer, Resource);

/// A store of one project whose runs are one tree, with its own books.
struct Books {
    now: DateTime<Utc>,
    budgets: BTreeMap<Key, Budget>,
    open: BTreeMap<(u8, u8), Vec<Share>>,
    ended: BTreeSet<u8>,
    /// All that was used of each budget, and what of it a reset forgot.
    used: BTreeMap<Key, (i64, i64)>,
}

fn key(budget: &Budget) -> Key {
    (budget.payer, budget.resource)
}

impl Books {
    fn new() -> Self {
        let (budgets, open) = (BTreeMap::new(), BTreeMap::new());
        Self { now: noon(), budgets, open, ended: BTreeSet::new(), used: BTreeMap::new() }
    }

    fn lock(&self, wanted: impl Fn(&Budget) -> bool) -> Vec<Budget> {
        self.budgets.values().filter(|budget| wanted(budget)).cloned().collect()
    }

    fn use_up(&mut self, share: &Share, used: i64) {
        self.used.entry((share.payer, share.resource)).or_default().0 += used;
    }

    /// Writes budgets over what they were. A budget whose period is over, or of another kind, has forgotten what was
    /// used before: a day and a week that start at the same instant are two periods.
    fn write(&mut self, budgets: Vec<Budget>, may_change_period: bool) {
        for after in budgets {
            let of = key(&after);
            if let Some(before) = self.budgets.get(&of)
                && (before.period, before.period_start) != (after.period, after.period_start)
            {
                let is_over = before.period.end(before.period_start).is_some_and(|end| end <= self.now);
                assert!(
                    is_over || (may_change_period && before.period != after.period),
                    "{before:?} {after:?}"
                );
                let (used, forgotten) = self.used.entry(of).or_default();
                *forgotten = *used;
            }
            self.budgets.insert(of, after);
        }
    }

    fn reserve(&mut self, id: (u8, u8), worst: &Amounts) {
        let locked = self.lock(|budget| worst.contains_key(&budget.resource));
        let is_locked = |share: &Share| worst.contains_key(&share.resource);
        let mut held = Held { own: self.open.get(&id).cloned().unwrap_or_default(), ..Held::default() };
        held.own.retain(is_locked);
        for (_, shares) in self.open.iter_mut().filter(|((run, _), _)| self.ended.contains(run)) {
            held.abandoned.extend(shares.extract_if(.., |share| is_locked(share)));
        }
        for share in &held.abandoned {
            self.use_up(share, share.amount);
        }
        let done = reserve(&locked, &held, worst, self.now);
        let again = Held { own: held.own.clone(), abandoned: Vec::new() };
        let settled = done.budgets.clone();
        self.write(done.budgets, false);
        match done.record {
            None => assert_eq!(reserve(&settled, &again, worst, self.now).budgets, settled),
            Some(Recorded::Granted(shares)) => {
                for share in &shares {
                    let budget = &self.budgets[&(share.payer, share.resource)];
                    assert!(budget.free() >= 0, "a grant exceeds {budget:?}");
                }
                let own = Held { own: shares.clone(), abandoned: Vec::new() };
                if !shares.is_empty() {
                    let repeated = reserve(&settled, &own, worst, self.now);
                    assert_eq!((repeated.budgets, repeated.record), (settled, None), "granted twice");
                    self.open.entry(id).or_default().extend(shares);
                }
            }
            Some(Recorded::Waiting(short)) => assert!(!short.is_empty()),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Reserve { run, .. } | Step::Settle { run, .. } if self.ended.contains(&run) => {}
            Step::Reserve { run, call, worst } => self.reserve((run, call), &worst),
            Step::Settle { run, call, used } => {
                let shares = self.open.remove(&(run, call)).unwrap_or_default();
                let locked = self.lock(|budget| shares.iter().any(|share| share.resource == budget.resource));
                for share in &shares {
                    self.use_up(share, used.get(&share.resource).copied().unwrap_or(0));
                }
                self.write(settle(&locked, &shares, &used), false);
            }
            Step::End { run } => drop(self.ended.insert(run)),
            Step::Wait { hours } => self.now += TimeDelta::hours(hours),
            Step::Set(bounds) => {
                let set = bounds.apply(&self.lock(|budget| budget.payer == Payer::Project), self.now);
                let is_gone = |of: &Key| of.0 == Payer::Project && !bounds.amounts.contains_key(&of.1);
                self.budgets.retain(|of, _| !is_gone(of));
                self.used.retain(|of, _| !is_gone(of));
                for shares in self.open.values_mut() {
                    shares.retain(|share| !is_gone(&(share.payer, share.resource)));
                }
                self.write(set, true);
            }
            Step::TopUp(top_up) => {
                if let Ok(budgets) = top_up.apply(&self.lock(|_| true), self.now) {
                    self.write(budgets, false);
                }
            }
        }
    }

    fn check(&self) {
        for (of, budget) in &self.budgets {
            let open = self.open.values().flatten().filter(|share| (share.payer, share.resource) == *of);
            assert_eq!(budget.reserved, open.map(|share| share.amount).sum::<i64>(), "{budget:?}");
            let (used, forgotten) = self.used.get(of).copied().unwrap_or_default();
            assert_eq!(budget.spent, used - forgotten, "{budget:?}");
            assert!(budget.spent >= 0 && budget.reserved >= 0, "{budget:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Each reservation is held once until it is settled or abandoned, each use is counted once until a reset of its
    /// period, and no grant exceeds a budget.
    #[test]
    fn the_sums_hold_after_any_steps(steps in steps()) {
        let mut books = Books::new();
        for step in steps {
            books.step(step);
            books.check();
        }
    }
}

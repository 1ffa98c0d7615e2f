//! Every crash point: each call of the store, with each fault, on every shape of up to six nodes.
//!
//! What a process does between two calls leaves no trace in the store, so a crash there is the crash after the call before
//! it. The nodes of a shape end one after the other, so each end of a node is a call of its own and a point of its own.
//!
//! There are 6,326 shapes of 1 to 6 nodes, with about 330,000 points. With `GATHERING_TEST_SOAK=full` all of them are looked at;
//! else those of up to 4 nodes, every 5th of the 302 with 5 nodes and every 200th of the 5,984 with 6. A failing point prints
//! its name; `GATHERING_TEST_SHAPE=<nodes>/<number>` repeats its shape alone.

#![expect(clippy::print_stdout, reason = "a failed check says which point it was")]

use std::time::Duration;

use gathering_dag_engine::EffectClass;
use gathering_dag_engine::testing::Fault;

use super::is_soak;
use super::support::shapes::{N_SHAPES, ordered, shapes};
use super::support::{
    Case, CaseBreaker, CaseEdge, CaseNode, Ending, Episode, Failing, Kind, Meddling, ProcessPlan, When, check,
};

const FAULTS: [Fault; 4] = [Fault::CrashBefore, Fault::CrashAfter, Fault::FailBefore, Fault::FailAfter];

/// Says which point it was when a check fails.
struct Point<'a> {
    name: &'a str,
    case: &'a Case,
    fault: Option<(usize, Fault)>,
}

impl Drop for Point<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed: {} with {:?}: {:?}", self.name, self.fault, self.case);
        }
    }
}

/// Checks a case with each fault at each call of its first process; answers with how many points there were.
fn check_every_point(name: &str, case: &Case) -> usize {
    check_points(name, case, |_call| &FAULTS)
}

fn check_points(name: &str, case: &Case, faults_at: impl Fn(usize) -> &'static [Fault]) -> usize {
    let undisturbed = Point { name, case, fault: None };
    let n_calls = check(case, &[Episode::of(vec![])], 1);
    assert!(n_calls > 2, "{name}: {n_calls}");
    drop(undisturbed);
    let points = (0..n_calls).flat_map(|call| faults_at(call).iter().map(move |fault| (call, *fault)));
    let n_points = points.clone().count();
    for point in points {
        let _point = Point { name, case, fault: Some(point) };
        check(case, &[Episode::of(vec![point])], 1);
    }
    n_points
}

fn check_shapes(n: usize, step: usize) {
    let only = std::env::var("GATHERING_TEST_SHAPE").ok();
    let (mut n_shapes, mut n_points) = (0, 0);
    for (number, edges) in shapes(n).into_iter().enumerate() {
        let name = format!("{n}/{number}");
        if only.as_ref().map_or(number % step == 0, |only| *only == name) {
            n_points += check_every_point(&name, &Case::in_turns(n, &edges));
            n_shapes += 1;
        }
    }
    println!("{n_shapes} shapes of {n} nodes, {n_points} points");
}

#[test]
fn there_are_6326_shapes_of_up_to_6_nodes() {
    let found: Vec<usize> = (1..=6).map(|n| shapes(n).len()).collect();
    assert_eq!(found, N_SHAPES);
    assert_eq!(N_SHAPES.iter().sum::<usize>(), 6326);
}

#[test]
fn i1_to_i5_hold_at_every_crash_point_of_every_shape_of_up_to_4_nodes() {
    for n in 1..=4 {
        check_shapes(n, 1);
    }
}

#[test]
fn i1_to_i5_hold_at_every_crash_point_of_the_shapes_of_5_nodes() {
    check_shapes(5, if is_soak() { 1 } else { 5 });
}

#[test]
fn i1_to_i5_hold_at_every_crash_point_of_the_shapes_of_6_nodes() {
    check_shapes(6, if is_soak() { 1 } else { 200 });
}

/// The order in which independent nodes are written decides which of them begins first.
#[test]
fn i1_to_i5_hold_at_every_crash_point_of_every_way_to_write_3_nodes() {
    for n in 1..=if is_soak() { 4 } else { 3 } {
        for (number, edges) in ordered(n).into_iter().enumerate() {
            for max_concurrency in 1..=2 {
                let nodes = vec![CaseNode::plain(); n];
                let case = Case { max_concurrency, ..Case::of(nodes, &edges) };
                check_every_point(
                    &format!("{n} nodes written as {number}, {max_concurrency} at once"),
                    &case,
                );
            }
        }
    }
}

/// What a node may do besides succeeding at once.
fn behaviours() -> Vec<(&'static str, Case)> {
    let plain = CaseNode::plain;
    let decides = |result| CaseNode { kind: Kind::Decide(result), ..plain() };
    let acts = |effect| CaseNode { effect: Some(effect), takes_ms: 1, ..plain() };
    let hangs = CaseNode { fails: 1, failing: Failing::Hanging, max_attempts: 2, ..plain() };
    let cancelled = Meddling { cancel_after_ms: Some(2), is_announced: true, ..Meddling::default() };
    let slow = vec![CaseNode { takes_ms: 5, waits_ms: 700, ..plain() }, plain()];
    let failing = CaseNode { fails: 2, max_attempts: 2, ..plain() };
    let mut caught = Case::of(vec![failing, plain(), plain()], &[]);
    caught.edges = vec![
        CaseEdge { on: "failure", ..CaseEdge::of(0, 1) },
        CaseEdge { on: "success", ..CaseEdge::of(0, 2) },
    ];
    let mut undecided = Case::of(vec![plain(), plain(), plain(), plain()], &[]);
    undecided.edges = vec![
        CaseEdge { when: When::Fails, ..CaseEdge::of(0, 1) },
        CaseEdge { on: "failure", ..CaseEdge::of(0, 2) },
        CaseEdge::of(0, 3),
    ];
    let fails = || CaseNode { fails: 1, ..plain() };
    let branches = vec![fails(), plain(), fails(), CaseNode { waits_ms: 700, ..plain() }, plain()];
    let branches = Case { fail_fast: false, ..Case::of(branches, &[(0, 1), (3, 4)]) };
    vec![
        ("an edge without a decision that an edge handles", undecided),
        ("failures without fail_fast", branches),
        (
            "a fan wider than the concurrency",
            Case::of(vec![plain(); 6], &[(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]),
        ),
        ("a retry", Case::of(vec![CaseNode { fails: 1, max_attempts: 3, ..plain() }, plain()], &[(0, 1)])),
        ("a failure", Case::of(vec![CaseNode { fails: 1, ..plain() }, plain()], &[(0, 1)])),
        ("a failure that an edge catches", caught),
        ("a long wait", Case::of(vec![CaseNode { waits_ms: 5000, ..plain() }, plain()], &[(0, 1)])),
        ("an event comes soon", Case::of(vec![CaseNode { acts_ms: 1, ..plain() }, plain()], &[(0, 1)])),
        ("an event comes late", Case::of(vec![CaseNode { acts_ms: 5000, ..plain() }, plain()], &[(0, 1)])),
        (
            "an event comes as the run is parked",
            Case::of(
                vec![CaseNode { acts_ms: 300, ..plain() }, CaseNode { acts_ms: 301, ..plain() }, plain()],
                &[(0, 2), (1, 2)],
            ),
        ),
        (
            "a decision",
            Case::of(vec![decides(true), decides(false), plain(), plain()], &[(0, 1), (1, 2), (0, 3)]),
        ),
        (
            "a join of all of which one is not taken",
            Case::of(
                vec![plain(), decides(false), CaseNode { join_all: true, ..plain() }, plain()],
                &[(0, 2), (1, 2), (2, 3)],
            ),
        ),
        ("a time-out", Case::of(vec![hangs, plain()], &[(0, 1)])),
        (
            "a node that must not be repeated",
            Case::of(vec![CaseNode { idempotent: false, takes_ms: 1, ..plain() }, plain()], &[(0, 1)]),
        ),
        ("a pure effect", Case::of(vec![acts(EffectClass::Pure), plain()], &[(0, 1)])),
        ("an unsafe effect", Case::of(vec![acts(EffectClass::Unsafe), plain()], &[(0, 1)])),
        (
            "an unsafe effect before a wait",
            Case::of(vec![CaseNode { waits_ms: 400, ..acts(EffectClass::Unsafe) }, plain()], &[(0, 1)]),
        ),
        ("a cancel", Case { meddling: cancelled, ..Case::of(slow.clone(), &[(0, 1)]) }),
        (
            "a cancel without a wake-up",
            Case {
                meddling: Meddling { is_announced: false, ..cancelled },
                ..Case::of(slow.clone(), &[(0, 1)])
            },
        ),
        (
            "a deadline",
            Case {
                meddling: Meddling { timeout_ms: Some(6), ..Meddling::default() },
                ..Case::of(slow.clone(), &[(0, 1)])
            },
        ),
        (
            "a deadline of a run that is parked",
            Case {
                meddling: Meddling { timeout_ms: Some(600), ..Meddling::default() },
                ..Case::of(slow, &[(0, 1)])
            },
        ),
    ]
}

/// Nodes with child runs, decisions and breakers.
fn company() -> Vec<(&'static str, Case)> {
    let plain = CaseNode::plain;
    let call = |depth| CaseNode { kind: Kind::Call { depth }, takes_ms: 1, ..plain() };
    let map = |n_items, max_concurrency| CaseNode {
        kind: Kind::Map { n_items, max_concurrency },
        takes_ms: 1,
        ..plain()
    };
    let ask = |decision| CaseNode { kind: Kind::Ask(decision), acts_ms: 1, ..plain() };
    let then = |node| Case::of(vec![node, plain()], &[(0, 1)]);
    let announced = |case: Case| Case { meddling: Meddling { is_announced: true, ..case.meddling }, ..case };
    let meddled = |meddling, node| Case { meddling, ..then(node) };
    let hanging = Meddling { is_announced: true, ..Meddling::default() };
    let cancelled = Meddling { cancel_after_ms: Some(40), ..hanging };
    let timed_out = Meddling { timeout_ms: Some(40), ..hanging };
    let slow = |node| CaseNode { waits_ms: 700, ..node };
    let fails = |node| CaseNode { fails: 1, max_attempts: 2, ..node };
    let hangs = |node| CaseNode { failing: Failing::Hanging, ..fails(node) };
    let breaks = |node| CaseNode { breaker: Some(CaseBreaker { threshold: 1, reset_ms: 30 }), ..node };
    vec![
        ("a child run", then(call(1))),
        ("a child run, announced", announced(then(call(1)))),
        ("a child run of a child run, announced", announced(then(call(2)))),
        ("a run whose first round fails", announced(then(fails(call(1))))),
        ("a run whose first round hangs", announced(then(hangs(call(2))))),
        ("a run that must not be started again", announced(then(CaseNode { idempotent: false, ..call(1) }))),
        ("a map of two at once", announced(then(map(3, 2)))),
        ("a map of which an item fails", announced(then(CaseNode { max_attempts: 1, ..fails(map(3, 3)) }))),
        ("a map that is tried again", announced(then(fails(map(2, 2))))),
        ("a cancel of a run with child runs", meddled(cancelled, slow(call(2)))),
        ("a cancel of a map", meddled(cancelled, slow(map(3, 2)))),
        ("a deadline of a run with child runs", meddled(timed_out, slow(call(2)))),
        ("an approval", announced(then(ask(Some(true))))),
        ("an approval that takes its time", then(CaseNode { acts_ms: 700, ..ask(Some(true)) })),
        ("a denial", announced(then(ask(Some(false))))),
        ("an approval without a decision", then(ask(None))),
        ("a breaker that opens", then(breaks(fails(plain())))),
        ("a breaker of a node that waits for runs", announced(then(breaks(fails(call(1)))))),
    ]
}

#[test]
fn i1_to_i5_hold_at_every_crash_point_of_runs_below_runs_approvals_and_breakers() {
    for (number, (name, case)) in company().into_iter().enumerate() {
        for by_tree in [false, true] {
            let case = Case { by_tree, ..case.clone() };
            // They take long, so each call gets one fault, and another than in the case before.
            check_points(name, &case, |call| match (call + number + usize::from(by_tree)) % FAULTS.len() {
                _ if is_soak() => &FAULTS,
                turn => &FAULTS[turn..=turn],
            });
        }
    }
}

#[test]
fn i1_to_i5_hold_at_every_crash_point_of_retries_failures_and_waits() {
    for (name, case) in behaviours() {
        check_every_point(name, &case);
    }
}

#[test]
fn i4_a_process_that_stops_while_a_timer_is_due_hands_its_run_back() {
    let waits = CaseNode { waits_ms: 60, ..CaseNode::plain() };
    let executes = CaseNode { takes_ms: 1000, ..CaseNode::plain() };
    let case = Case::of(vec![waits, executes, CaseNode::plain()], &[(0, 2), (1, 2)]);
    let process = ProcessPlan { faults: vec![], ending: Ending::Stopped };
    let episode = Episode { processes: vec![process], lasts_ms: Some(20) };
    // A driver that turns without end lets no virtual time pass, so this limit is of real time.
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(check(&case, &[episode], 1)));
    is_done.recv_timeout(Duration::from_secs(60)).expect("it ends");
}

//! I1 to I5 hold on random graphs under random faults, and at every single crash point of the basic shapes.
//!
//! A failing case is printed with its graph and its fault plan; proptest keeps its seed beside this file.

mod support;

use gathering_dag_engine::testing::Fault;
use proptest::prelude::*;
use std::time::Duration;
use support::{Case, CaseEdge, CaseNode, check};

fn any_node() -> impl Strategy<Value = CaseNode> {
    let time = || prop_oneof![4 => Just(0u64), 1 => 10u64..2000];
    (any::<bool>(), 0u32..3, 1u32..4, 0u64..30, time(), time()).prop_map(
        |(join_all, fails, max_attempts, takes_ms, waits_ms, acts_ms)| CaseNode {
            join_all,
            // Most nodes succeed, or no run would get far.
            fails: if fails == 2 { max_attempts } else { fails.min(max_attempts - 1) },
            max_attempts,
            takes_ms,
            waits_ms,
            acts_ms,
        },
    )
}

fn any_case() -> impl Strategy<Value = Case> {
    prop::collection::vec(any_node(), 1..7).prop_flat_map(|nodes| {
        let pairs: Vec<(usize, usize)> =
            (0..nodes.len()).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
        let edge = (
            prop_oneof![2 => Just(false), 1 => Just(true)],
            prop_oneof![Just("success"), Just("failure"), Just("always"), Just("always")],
            prop_oneof![3 => Just(None), 1 => any::<bool>().prop_map(Some)],
        );
        prop::collection::vec(edge, pairs.len()).prop_map(move |drawn| Case {
            nodes: nodes.clone(),
            edges: pairs
                .iter()
                .zip(drawn)
                .filter(|(_, (present, ..))| *present)
                .map(|(&(from, to), (_, on, when))| CaseEdge { from, to, on, when })
                .collect(),
        })
    })
}

fn any_plan() -> impl Strategy<Value = Vec<(usize, Fault)>> {
    let fault = prop_oneof![
        Just(Fault::FailBefore),
        Just(Fault::FailAfter),
        Just(Fault::CrashBefore),
        Just(Fault::CrashAfter),
        (1u64..500).prop_map(|ms| Fault::Delay(Duration::from_millis(ms))),
    ];
    prop::collection::vec((0usize..40, fault), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn i1_to_i5_hold_on_any_graph_with_any_faults(
        case in any_case(),
        plans in prop::collection::vec(any_plan(), 0..4),
        n_runs in 1usize..4,
    ) {
        check(&case, &plans, n_runs);
    }
}

fn shapes() -> Vec<(&'static str, Case)> {
    let plain = CaseNode::plain;
    let failing = CaseNode { fails: 2, max_attempts: 2, ..plain() };
    let mut caught = Case::of(vec![failing, plain(), plain()], &[]);
    caught.edges = vec![
        CaseEdge { from: 0, to: 1, on: "failure", when: None },
        CaseEdge { from: 0, to: 2, on: "success", when: None },
    ];
    vec![
        ("one node", Case::of(vec![plain()], &[])),
        ("a chain", Case::of(vec![plain(), plain(), plain()], &[(0, 1), (1, 2)])),
        ("a diamond", Case::of(vec![plain(), plain(), plain(), plain()], &[(0, 1), (0, 2), (1, 3), (2, 3)])),
        (
            "a fan wider than the concurrency",
            Case::of(vec![plain(); 6], &[(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]),
        ),
        ("a retry", Case::of(vec![CaseNode { fails: 1, max_attempts: 3, ..plain() }, plain()], &[(0, 1)])),
        ("a failure", Case::of(vec![CaseNode { fails: 1, ..plain() }, plain()], &[(0, 1)])),
        ("a failure that an edge catches", caught),
        ("a long wait", Case::of(vec![CaseNode { waits_ms: 5000, ..plain() }, plain()], &[(0, 1)])),
        ("somebody acts soon", Case::of(vec![CaseNode { acts_ms: 1, ..plain() }, plain()], &[(0, 1)])),
        ("somebody acts late", Case::of(vec![CaseNode { acts_ms: 5000, ..plain() }, plain()], &[(0, 1)])),
        (
            "somebody acts as the run is parked",
            Case::of(
                vec![CaseNode { acts_ms: 300, ..plain() }, CaseNode { acts_ms: 301, ..plain() }, plain()],
                &[(0, 2), (1, 2)],
            ),
        ),
    ]
}

#[test]
fn i1_to_i5_hold_at_every_crash_point_of_every_basic_shape() {
    for (name, case) in shapes() {
        let n_calls = check(&case, &[vec![]], 1);
        assert!(n_calls > 2, "{name}: {n_calls}");
        for call in 0..n_calls {
            for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::FailBefore, Fault::FailAfter] {
                println!("{name}: {fault:?} at call {call}");
                check(&case, &[vec![(call, fault)]], 1);
            }
        }
    }
}

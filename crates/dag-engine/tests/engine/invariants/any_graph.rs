//! Random graphs under random faults.
//!
//! A failing case is shrunk and printed with its graph and its faults, after the seed: `GATHERING_TEST_SEED` repeats the
//! whole search.

use std::time::Duration;

use gathering_dag_engine::EffectClass;
use gathering_dag_engine::testing::Fault;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::is_soak;
use super::support::{
    Case, CaseBreaker, CaseEdge, CaseNode, Ending, Episode, Failing, Kind, Meddling, ProcessPlan, When, check,
};

fn any_node() -> impl Strategy<Value = CaseNode> {
    let time = || prop_oneof![4 => Just(0u64), 1 => 10u64..2000];
    let kind = prop_oneof![
        8 => Just(Kind::Work),
        2 => any::<bool>().prop_map(Kind::Decide),
        1 => prop_oneof![3 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)].prop_map(Kind::Ask),
        1 => (1u32..3).prop_map(|depth| Kind::Call { depth }),
        1 => (0u32..4, 1u32..3).prop_map(|(n_items, max_concurrency)| Kind::Map { n_items, max_concurrency }),
    ];
    let breaker = prop_oneof![
        6 => Just(None),
        1 => (1u32..4, 10u64..2000)
            .prop_map(|(threshold, reset_ms)| Some(CaseBreaker { threshold, reset_ms })),
    ];
    let failing = prop_oneof![4 => Just(Failing::Retryable), 1 => Just(Failing::Permanent), 1 => Just(Failing::Hanging)];
    let effect = prop_oneof![
        4 => Just(None),
        1 => prop_oneof![Just(EffectClass::Pure), Just(EffectClass::Idempotent), Just(EffectClass::Unsafe)]
            .prop_map(Some),
    ];
    let idempotent = prop_oneof![6 => Just(true), 1 => Just(false)];
    let behaviour = (kind, any::<bool>(), failing, effect, idempotent, breaker);
    (behaviour, 0u32..3, 1u32..4, 0u64..30, time(), time()).prop_map(
        |(
            (kind, join_all, failing, effect, idempotent, breaker),
            fails,
            max_attempts,
            takes_ms,
            waits_ms,
            acts_ms,
        )| {
            CaseNode {
                kind,
                join_all,
                // Most nodes succeed; otherwise few runs would get far.
                fails: if fails == 2 { max_attempts } else { fails.min(max_attempts - 1) },
                failing,
                max_attempts,
                takes_ms,
                waits_ms,
                // The time of a node that hangs would also count for its wait for somebody.
                acts_ms: if failing == Failing::Hanging { 0 } else { acts_ms },
                idempotent,
                // The time of a node that hangs would also count for the announcement of its effect.
                effect: effect.filter(|_| failing != Failing::Hanging),
                breaker,
            }
        },
    )
}

fn any_case() -> impl Strategy<Value = Case> {
    let rarely = |time| prop_oneof![5 => Just(None), 1 => (0..time).prop_map(Some)];
    let meddling = (rarely(3000u64), rarely(3000u64), any::<bool>()).prop_map(
        |(cancel_after_ms, timeout_ms, is_announced)| Meddling { cancel_after_ms, timeout_ms, is_announced },
    );
    let nodes = prop::collection::vec(any_node(), 1..9);
    let fail_fast = prop_oneof![2 => Just(true), 1 => Just(false)];
    (nodes, 1usize..4, meddling, any::<bool>(), fail_fast).prop_flat_map(
        |(nodes, max_concurrency, meddling, by_tree, fail_fast)| {
            let pairs: Vec<(usize, usize)> =
                (0..nodes.len()).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
            let edge = (
                prop_oneof![2 => Just(false), 1 => Just(true)],
                prop_oneof![Just("success"), Just("failure"), Just("always"), Just("always")],
                prop_oneof![
                    12 => Just(When::Absent),
                    4 => any::<bool>().prop_map(When::Is),
                    1 => Just(When::Fails),
                ],
            );
            prop::collection::vec(edge, pairs.len()).prop_map(move |drawn| Case {
                nodes: nodes.clone(),
                edges: pairs
                    .iter()
                    .zip(drawn)
                    .filter(|(_, (present, ..))| *present)
                    .map(|(&(from, to), (_, on, when))| CaseEdge { from, to, on, when })
                    .collect(),
                max_concurrency,
                fail_fast,
                meddling,
                by_tree,
            })
        },
    )
}

fn any_process() -> impl Strategy<Value = ProcessPlan> {
    let fault = prop_oneof![
        Just(Fault::FailBefore),
        Just(Fault::FailAfter),
        Just(Fault::CrashBefore),
        Just(Fault::CrashAfter),
        (1u64..500).prop_map(|ms| Fault::Delay(Duration::from_millis(ms))),
    ];
    let ending = prop_oneof![
        Just(Ending::Killed),
        Just(Ending::Stopped),
        Just(Ending::Fenced),
        Just(Ending::TakenForDead),
    ];
    (prop::collection::vec((0usize..40, fault), 0..6), ending)
        .prop_map(|(faults, ending)| ProcessPlan { faults, ending })
}

fn any_episode() -> impl Strategy<Value = Episode> {
    let lasts = prop_oneof![1 => Just(None), 1 => (0u64..3000).prop_map(Some)];
    (prop::collection::vec(any_process(), 1..4), lasts)
        .prop_map(|(processes, lasts_ms)| Episode { processes, lasts_ms })
}

#[test]
fn i1_to_i5_hold_on_any_graph_with_any_faults() {
    let seed = match std::env::var("GATHERING_TEST_SEED") {
        Ok(seed) => seed.parse().expect("GATHERING_TEST_SEED is a number"),
        Err(_) => rand_seed(),
    };
    println!("GATHERING_TEST_SEED={seed} repeats this search");
    let cases = if is_soak() { 20_000 } else { 400 };
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Default::default()
    };
    let episodes = prop::collection::vec(any_episode(), 0..4);
    let outcome =
        TestRunner::new(config).run(&(any_case(), episodes, 1usize..4), |(case, episodes, n_runs)| {
            check(&case, &episodes, n_runs);
            Ok(())
        });
    outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

/// Another number each time.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

//! What the journals must contain at the end.

use std::collections::{BTreeMap, HashMap};

use gathering_dag_engine::testing::StoredRun;
use gathering_dag_engine::{JournalEntry, JournalEvent, NodeRun, NodeState};
use gathering_domain::{NodeId, RunId, RunState};
use serde_json::json;

use super::case::Kind;
use super::witness::index_of;
use super::world::World;

/// Why a node fails for good although it would not have failed by itself.
const INTERRUPTIONS: &[&str] = &["interrupted", "effect_unknown", "circuit_open"];

impl World {
    /// Checks the observations and the journals.
    pub fn judge(&self) {
        let witness = self.witness.lock().unwrap();
        assert!(witness.violations().is_empty(), "{:#?}", witness.violations());
        for stored in self.store.runs() {
            let run = stored.new.id;
            let journal = self.store.journal(run);
            for (place, entry) in journal.iter().enumerate() {
                assert_eq!(entry.seq, place as i64 + 1, "the journal has no gaps");
            }
            self.judge_order(&journal);
            let nodes = NodeRun::fold(&journal).unwrap();
            for (id, node) in &nodes {
                self.judge_node(id, node, &journal);
                self.judge_children(run, id, node);
            }
            judge_end(&stored, &nodes);
            if let Some(index) = self.runs.iter().position(|id| *id == run) {
                self.judge_outcome(&stored, index, &nodes);
            }
        }
    }

    /// I3 in the journal: every predecessor is resolved before a node starts.
    fn judge_order(&self, journal: &[JournalEntry]) {
        let mut nodes: HashMap<NodeId, NodeRun> = HashMap::new();
        for entry in journal {
            let Some(id) = &entry.record.node else { continue };
            let index = index_of(id);
            if matches!(entry.record.event, JournalEvent::Started | JournalEvent::Skipped) {
                for edge in self.case.edges.iter().filter(|edge| Some(edge.to) == index) {
                    let from: NodeId = format!("n{}", edge.from).parse().unwrap();
                    let resolved = nodes.get(&from).is_some_and(|node| node.state.is_resolved());
                    assert!(resolved, "I3: {id} is {} before {from} is resolved", entry.record.event.kind());
                }
            }
            let node = nodes.entry(id.clone()).or_default();
            node.apply(&entry.record.event, entry.record.attempt, entry.at).unwrap();
        }
    }

    /// I1 in the journal: one start and at most one end per attempt, and nothing after the node's end.
    fn judge_node(&self, id: &NodeId, node: &NodeRun, journal: &[JournalEntry]) {
        let of_node: Vec<_> = journal
            .iter()
            .map(|entry| &entry.record)
            .filter(|record| record.node.as_ref() == Some(id))
            .collect();
        let count = |attempt: i32, is: fn(&JournalEvent) -> bool| {
            of_node.iter().filter(|record| record.attempt == attempt && is(&record.event)).count()
        };
        for attempt in 1..=node.attempt {
            let starts = count(attempt, |event| *event == JournalEvent::Started);
            assert_eq!(starts, 1, "I1: attempt {attempt} of {id} has {starts} starts");
            let ends = count(attempt, ends_an_attempt);
            assert!(ends <= 1, "I1: attempt {attempt} of {id} has {ends} results");
        }
        let last = of_node.iter().position(|record| ends_the_node(&record.event));
        assert!(last.is_none_or(|last| last + 1 == of_node.len()), "I1: something follows the end of {id}");
        let Some(spec) = index_of(id).map(|index| &self.case.nodes[index]) else { return };
        if spec.may_time_out() {
            return;
        }
        if node.state == NodeState::Succeeded {
            assert_eq!(node.failures, spec.n_failures(), "{id}: an interrupted attempt is no failure");
        }
        if !spec.idempotent && spec.fails == 0 {
            assert!(node.attempt <= 1, "{id} is not idempotent and was attempted {} times", node.attempt);
        }
    }

    /// Each child of a node was started once and in its turn, and those of a node that succeeded did before it.
    fn judge_children(&self, run: RunId, id: &NodeId, node: &NodeRun) {
        let Some(spec) = index_of(id).map(|index| &self.case.nodes[index]) else { return };
        let mut rounds: BTreeMap<u32, Vec<StoredRun>> = BTreeMap::new();
        for child in self.store.runs() {
            let Some(place) = child.place.clone().filter(|at| at.parent.run == run && at.parent.node == *id)
            else {
                continue;
            };
            assert_eq!(child.new.id, place.parent.child(place.item));
            rounds.entry(place.parent.round).or_default().push(child);
        }
        for (round, children) in &mut rounds {
            assert!(*round <= node.failures, "{id}: round {round} though it failed {} times", node.failures);
            let item = |child: &StoredRun| child.place.as_ref().map_or(0, |place| place.item);
            children.sort_by_key(item);
            let items: Vec<u32> = children.iter().map(item).collect();
            let n_items = items.len() as u32;
            assert_eq!(items, (0..n_items).collect::<Vec<_>>(), "{id}: each is started once, in order");
            assert!(n_items <= spec.n_children(), "{id} started {n_items}");
            if matches!(spec.kind, Kind::Map { .. }) {
                let given: Vec<_> = children.iter().map(|child| child.new.input["item"].clone()).collect();
                let expected: Vec<_> = (0..n_items).map(|item| json!(spec.item(item))).collect();
                assert_eq!(given, expected, "{id}: each item of the list once");
            }
        }
        if node.state == NodeState::Succeeded {
            let last = rounds.remove(&node.failures).unwrap_or_default();
            assert_eq!(last.len() as u32, spec.n_children(), "{id} succeeded without its children");
            assert!(
                last.iter().all(|child| child.state == RunState::Succeeded),
                "{id} did not wait: {last:?}"
            );
        }
        let kind = node.failure.as_ref().map_or("", |failure| failure.kind.as_str());
        assert_ne!(kind, "child_cancelled", "{id}: what was cancelled because of a failure is not the cause");
    }

    fn judge_outcome(&self, run: &StoredRun, index: usize, nodes: &HashMap<NodeId, NodeRun>) {
        let meddling = self.case.meddling;
        match run.state {
            RunState::Cancelled => assert!(index == 0 && meddling.cancel_after_ms.is_some(), "nobody asked"),
            RunState::TimedOut => assert!(index == 0 && meddling.timeout_ms.is_some(), "it had time"),
            RunState::Succeeded | RunState::Failed => {
                let expected = self.case.expected(&self.interruptions(nodes));
                let succeeds = expected.n_failures == 0;
                assert_eq!(run.state == RunState::Succeeded, succeeds, "{:?} {nodes:?}", run.end);
                if !succeeds && !self.case.fail_fast {
                    let error = run.end.as_ref().and_then(|end| end.result.error()).unwrap();
                    assert_eq!(
                        error.failures.len(),
                        expected.n_failures,
                        "every failure is listed: {error:?}"
                    );
                }
                for (index, state) in expected.states.into_iter().flatten().enumerate() {
                    let node: NodeId = format!("n{index}").parse().unwrap();
                    assert_eq!(nodes[&node].state, state, "{node}");
                }
            }
            state => assert!(state.is_terminal(), "I4: a run is {state}"),
        }
    }

    /// The nodes that failed because of faults around them, each with a kind that allows it.
    fn interruptions(&self, nodes: &HashMap<NodeId, NodeRun>) -> HashMap<usize, NodeState> {
        let mut interrupted = HashMap::new();
        for (id, node) in nodes {
            let Some(index) = index_of(id) else { continue };
            let spec = &self.case.nodes[index];
            let kind = node.failure.as_ref().map(|failure| failure.kind.as_str()).unwrap_or_default();
            if node.state == NodeState::Failed && INTERRUPTIONS.contains(&kind) {
                let may = match kind {
                    "interrupted" => !spec.idempotent,
                    "circuit_open" => spec.breaker.is_some() && spec.may_fail(),
                    _ => spec.has_unsafe_effect(),
                };
                assert!(may, "{id} must not fail as {kind}");
                interrupted.insert(index, NodeState::Failed);
            }
            if node.state == NodeState::TimedOut && spec.may_time_out() {
                interrupted.insert(index, NodeState::TimedOut);
            }
        }
        interrupted
    }
}

/// I4 and I5 of any run: it ended, and so did its nodes.
fn judge_end(run: &StoredRun, nodes: &HashMap<NodeId, NodeRun>) {
    assert!(run.state.is_terminal(), "I4: a run is {}", run.state);
    // One that took over earlier work and never began is not open.
    let has_begun = |node: &NodeRun| node.state != NodeState::Pending;
    let open = nodes.iter().filter(|(_, node)| has_begun(node) && !node.state.is_resolved());
    let open: Vec<_> = open.collect();
    assert!(open.is_empty(), "I5: {open:?} are open in a run that is {}", run.state);
}

/// A node may also be cancelled while it waits for its next attempt.
fn ends_an_attempt(event: &JournalEvent) -> bool {
    matches!(event, JournalEvent::Succeeded { .. } | JournalEvent::Failed(_) | JournalEvent::Retrying { .. })
}

fn ends_the_node(event: &JournalEvent) -> bool {
    matches!(
        event,
        JournalEvent::Succeeded { .. }
            | JournalEvent::Failed(_)
            | JournalEvent::Skipped
            | JournalEvent::Cancelled(_)
    )
}

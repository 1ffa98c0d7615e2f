//! A witness that reads the journal whenever an attempt executes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{Attempt, EffectClass, JournalEvent, NodeRun, NodeState};
use gathering_domain::{InstanceId, NodeId, RunId};

use super::case::Case;

/// The observations of executing nodes, and the checks of what must never happen.
#[derive(Default)]
pub struct Witness {
    active: HashMap<RunId, HashSet<(InstanceId, NodeId, i32)>>,
    /// How often each node performed an effect that must not be repeated silently.
    unsafe_acts: HashMap<(RunId, NodeId), usize>,
    /// Processes that were declared dead: they may continue for a while, but nothing of it counts.
    undead: HashSet<InstanceId>,
    violations: Vec<String>,
}

impl Witness {
    pub fn declare_dead(&mut self, instance: InstanceId) {
        self.undead.insert(instance);
        self.active.values_mut().for_each(|active| active.retain(|(of, ..)| *of != instance));
    }

    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// The executing attempts of a run that count.
    pub fn executing(&self, run: RunId) -> Vec<String> {
        let active = self.active.get(&run).into_iter().flatten();
        active.map(|(instance, node, attempt)| format!("{node} attempt {attempt} on {instance}")).collect()
    }

    fn saw(&mut self, instance: InstanceId, violation: String) {
        if !self.undead.contains(&instance) {
            self.violations.push(violation);
        }
    }
}

/// The observations of one process: each of its node types reports its attempts here.
#[derive(Clone)]
pub struct Eyes {
    pub case: Arc<Case>,
    pub store: MemoryStore,
    pub instance: InstanceId,
    pub witness: Arc<Mutex<Witness>>,
}

impl Eyes {
    pub fn node_runs(&self, run: RunId) -> HashMap<NodeId, NodeRun> {
        NodeRun::fold(&self.store.journal(run)).expect("the journal can be folded")
    }

    /// Notes that an attempt executes, until the answer is dropped.
    pub fn enter(&self, attempt: &Attempt) -> Leave {
        let runs = self.node_runs(attempt.run);
        let mut witness = self.witness.lock().unwrap();
        let me = format!("{} attempt {}", attempt.node, attempt.attempt);
        match runs.get(&attempt.node) {
            Some(run) if run.state == NodeState::Running && run.attempt == attempt.attempt => {}
            Some(run) if run.state.is_resolved() => {
                let violation = format!("I1: {me} executes although the node is {}", run.state);
                witness.saw(self.instance, violation);
            }
            other => {
                let violation = format!("I3: {me} executes before its start is durable: {other:?}");
                witness.saw(self.instance, violation);
            }
        }
        let index = index_of(&attempt.node);
        for edge in self.case.edges.iter().filter(|edge| Some(edge.to) == index) {
            let from: NodeId = format!("n{}", edge.from).parse().unwrap();
            if !runs.get(&from).is_some_and(|run| run.state.is_resolved()) {
                let violation = format!("I3: {me} executes before {from} is durably resolved");
                witness.saw(self.instance, violation);
            }
        }
        let run = self.store.run(attempt.run).expect("a run that executes is there");
        if run.state.is_terminal() {
            witness.saw(self.instance, format!("I5: {me} executes in a terminal run"));
        }
        if run.is_end_heard {
            let violation = format!("I5: {me} begins though its driver heard that the run is to end");
            witness.saw(self.instance, violation);
        }
        let key = (self.instance, attempt.node.clone(), attempt.attempt);
        if !witness.undead.contains(&self.instance) {
            let active = witness.active.entry(attempt.run).or_default();
            let twice = active.iter().any(|(on, node, _)| *on != self.instance || *node == attempt.node);
            active.insert(key.clone());
            if twice {
                witness.saw(self.instance, format!("I2: {me} executes while the run executes elsewhere"));
            }
        }
        Leave { run: attempt.run, key, witness: Arc::clone(&self.witness) }
    }

    /// Notes that a node performs an effect.
    pub fn see_act(&self, attempt: &Attempt, class: EffectClass) {
        let journal = self.store.journal(attempt.run);
        let of_node = || journal.iter().filter(|entry| entry.record.node.as_ref() == Some(&attempt.node));
        let mut witness = self.witness.lock().unwrap();
        if of_node().any(|entry| matches!(entry.record.event, JournalEvent::EffectDone { .. })) {
            let violation = format!("I1: {} repeats an effect that is recorded as done", attempt.node);
            witness.saw(self.instance, violation);
        }
        if class != EffectClass::Unsafe || witness.undead.contains(&self.instance) {
            return;
        }
        if !of_node().any(|entry| matches!(entry.record.event, JournalEvent::EffectStarted(_))) {
            let violation = format!("{} does an unsafe effect that is not durably announced", attempt.node);
            witness.saw(self.instance, violation);
        }
        let acts = witness.unsafe_acts.entry((attempt.run, attempt.node.clone())).or_default();
        *acts += 1;
        if *acts > 1 {
            witness.saw(self.instance, format!("{} repeats an unsafe effect", attempt.node));
        }
    }
}

/// Marks the end of an execution, also when it is dropped.
pub struct Leave {
    run: RunId,
    key: (InstanceId, NodeId, i32),
    witness: Arc<Mutex<Witness>>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(active) = self.witness.lock().unwrap().active.get_mut(&self.run) {
            active.remove(&self.key);
        }
    }
}

/// The place of a node in the case; those of children have none.
pub fn index_of(node: &NodeId) -> Option<usize> {
    node.as_str().strip_prefix('n')?.parse().ok()
}

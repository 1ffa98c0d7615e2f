//! Node types that do what their config says, while a witness looks at the journal.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    Attempt, EffectClass, Fields, JournalEvent, NodeFailure, NodeRun, NodeState, NodeType, Outcome,
    RunnerHandle, Shape, Wait,
};
use gathering_domain::{InstanceId, NodeId, RunId, WaitingFor};
use serde_json::json;
use tokio::task::JoinSet;

use super::case::Case;

/// What was seen while nodes executed, and what must never be.
#[derive(Default)]
pub struct Witness {
    active: HashMap<RunId, HashSet<(InstanceId, NodeId, i32)>>,
    /// How often each node did what must not be repeated silently.
    unsafe_acts: HashMap<(RunId, NodeId), usize>,
    /// Processes that everybody else takes for dead: they may go on for a while, but nothing of it counts.
    undead: HashSet<InstanceId>,
    violations: Vec<String>,
}

impl Witness {
    pub fn declare_undead(&mut self, instance: InstanceId) {
        self.undead.insert(instance);
        self.active.values_mut().for_each(|active| active.retain(|(of, ..)| *of != instance));
    }

    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// What executes of a run, as far as it counts.
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

/// A node type that does what its config says.
pub struct Work {
    pub case: Arc<Case>,
    pub store: MemoryStore,
    pub instance: InstanceId,
    pub witness: Arc<Mutex<Witness>>,
    pub people: People,
    pub decides: bool,
}

#[async_trait]
impl NodeType for Work {
    fn check(&self, config: &mut Fields<'_>) {
        for field in ["fails", "takes_ms", "waits_ms", "acts_ms"] {
            config.required(field, Shape::Whole(0, 1_000_000));
        }
        config.required("how", Shape::OneOf(&["retryable", "permanent", "hanging"]));
        config.required("result", Shape::Bool);
        config.optional("effect", Shape::OneOf(&["pure", "idempotent", "unsafe"]));
    }

    fn decides_edges(&self) -> bool {
        self.decides
    }

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let _active = self.enter(&attempt);
        let number = |field: &str| attempt.config[field].as_u64().unwrap();
        tokio::time::sleep(Duration::from_millis(number("takes_ms"))).await;
        let failures = self.node_runs(attempt.run)[&attempt.node].failures;
        if u64::from(failures) < number("fails") {
            return match attempt.config["how"].as_str() {
                Some("permanent") => Err(NodeFailure::permanent("planned", "as planned")),
                Some("hanging") => std::future::pending().await,
                _ => Err(NodeFailure::retryable("planned", "as planned")),
            };
        }
        self.act_outside(&attempt).await?;
        match number("waits_ms") {
            0 => {}
            _ if attempt.woken => {}
            wait => return Ok(Outcome::Wait(Wait::until(attempt.now + Duration::from_millis(wait)))),
        }
        match number("acts_ms") {
            0 => Ok(Outcome::Done(json!({"result": attempt.config["result"]}))),
            after => {
                self.people.act_after(Duration::from_millis(after), attempt.run, &attempt.node, &self.store);
                Ok(Outcome::Wait(Wait { on: WaitingFor::Approval, until: None }))
            }
        }
    }

    async fn look(&self, attempt: Attempt) -> Result<Option<Outcome>, NodeFailure> {
        let has_acted = self.people.have_acted(attempt.run, &attempt.node);
        Ok(has_acted.then(|| Outcome::Done(json!({"result": attempt.config["result"]}))))
    }
}

impl Work {
    fn node_runs(&self, run: RunId) -> HashMap<NodeId, NodeRun> {
        NodeRun::fold(&self.store.journal(run)).expect("the journal can be folded")
    }

    fn enter(&self, attempt: &Attempt) -> Leave {
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
        let index: usize = attempt.node.as_str()[1..].parse().unwrap();
        for edge in self.case.edges.iter().filter(|edge| edge.to == index) {
            let from: NodeId = format!("n{}", edge.from).parse().unwrap();
            if !runs.get(&from).is_some_and(|run| run.state.is_resolved()) {
                let violation = format!("I3: {me} executes before {from} is durably resolved");
                witness.saw(self.instance, violation);
            }
        }
        if self.store.run(attempt.run).is_some_and(|run| run.state.is_terminal()) {
            witness.saw(self.instance, format!("I5: {me} executes in a terminal run"));
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

    /// Does the node's effect, if it has one, through the ledger.
    async fn act_outside(&self, attempt: &Attempt) -> Result<(), NodeFailure> {
        let class = match attempt.config["effect"].as_str() {
            None => return Ok(()),
            Some("pure") => EffectClass::Pure,
            Some("idempotent") => EffectClass::Idempotent,
            Some(_) => EffectClass::Unsafe,
        };
        let request = json!({"node": attempt.node.as_str()});
        let act = || async {
            self.see_act(attempt, class);
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok(json!("done"))
        };
        attempt.effects.once("act", class, &request, act).await.map(|_| ())
    }

    fn see_act(&self, attempt: &Attempt, class: EffectClass) {
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
struct Leave {
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

/// People who act on runs, whatever becomes of the processes.
#[derive(Clone, Default)]
pub struct People {
    acts: Arc<Mutex<HashSet<(RunId, NodeId)>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    /// Who hears of it at once.
    told: Arc<Mutex<Vec<RunnerHandle>>>,
}

impl People {
    pub fn tell(&self, handle: RunnerHandle) {
        self.told.lock().unwrap().push(handle);
    }

    pub fn cancel_after(&self, time: Duration, run: RunId, store: &MemoryStore) {
        let store = store.clone();
        self.after(time, move || store.request_cancel(run));
    }

    fn act_after(&self, time: Duration, run: RunId, node: &NodeId, store: &MemoryStore) {
        let (acts, act, store) = (Arc::clone(&self.acts), (run, node.clone()), store.clone());
        self.after(time, move || {
            acts.lock().unwrap().insert(act);
            store.act_on(run);
        });
    }

    fn after(&self, time: Duration, act: impl FnOnce() + Send + 'static) {
        let told = Arc::clone(&self.told);
        self.tasks.lock().unwrap().spawn(async move {
            tokio::time::sleep(time).await;
            act();
            told.lock().unwrap().iter().for_each(RunnerHandle::look_for_acts);
        });
    }

    fn have_acted(&self, run: RunId, node: &NodeId) -> bool {
        self.acts.lock().unwrap().contains(&(run, node.clone()))
    }

    /// Everybody goes home.
    pub async fn leave(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        tasks.shutdown().await;
    }
}

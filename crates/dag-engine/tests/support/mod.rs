//! A small world: one store in memory, instances that come and die, and a witness that watches every execution.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed check is a failed test")]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::{Fault, Faults, MemoryStore, VirtualClock};
use gathering_dag_engine::{
    Attempt, Engine, EngineSettings, Fields, JournalEvent, NodeFailure, NodeRun, NodeState, NodeType,
    NodeTypes, Outcome, RunStore, Runner, RunnerSettings, Shape, Wait,
};
use gathering_domain::{Digest, InstanceId, NodeId, ProjectId, RunId, RunState, WaitingFor};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// One graph, how its nodes behave, and what must come of it.
#[derive(Debug, Clone)]
pub struct Case {
    pub nodes: Vec<CaseNode>,
    pub edges: Vec<CaseEdge>,
}

#[derive(Debug, Clone)]
pub struct CaseNode {
    pub join_all: bool,
    /// The first so many attempts fail.
    pub fails: u32,
    pub max_attempts: u32,
    pub takes_ms: u64,
    /// Waits durably before it ends, if not 0.
    pub waits_ms: u64,
    /// Waits before it ends until somebody acts, so long after its first execution, if not 0.
    pub acts_ms: u64,
}

#[derive(Debug, Clone)]
pub struct CaseEdge {
    pub from: usize,
    pub to: usize,
    pub on: &'static str,
    pub when: Option<bool>,
}

impl CaseNode {
    pub fn plain() -> Self {
        Self { join_all: false, fails: 0, max_attempts: 1, takes_ms: 0, waits_ms: 0, acts_ms: 0 }
    }
}

impl Case {
    pub fn of(nodes: Vec<CaseNode>, edges: &[(usize, usize)]) -> Self {
        let edges =
            edges.iter().map(|&(from, to)| CaseEdge { from, to, on: "success", when: None }).collect();
        Self { nodes, edges }
    }

    pub fn definition(&self) -> Value {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| {
                json!({
                    "id": format!("n{index}"),
                    "type": "work",
                    "config": {"fails": node.fails, "takes_ms": node.takes_ms, "waits_ms": node.waits_ms, "acts_ms": node.acts_ms},
                    "join": if node.join_all { "all" } else { "any" },
                    "retry": {"max_attempts": node.max_attempts, "initial_backoff_ms": 50, "jitter": 0.5},
                })
            })
            .collect();
        let edges: Vec<Value> = self
            .edges
            .iter()
            .map(|edge| {
                let mut value =
                    json!({"from": format!("n{}", edge.from), "to": format!("n{}", edge.to), "on": edge.on});
                if let Some(when) = edge.when {
                    value["when"] = json!(when.to_string());
                }
                value
            })
            .collect();
        json!({"nodes": nodes, "edges": edges, "max_concurrency": 3})
    }

    /// The state of every node if the run succeeds; absent if it must fail. The plain rules, written a second time.
    fn expected(&self) -> Option<Vec<NodeState>> {
        let mut states: Vec<NodeState> = Vec::new();
        let mut fails = false;
        for (index, node) in self.nodes.iter().enumerate() {
            let incoming: Vec<bool> = self
                .edges
                .iter()
                .filter(|edge| edge.to == index)
                .map(|edge| taken(edge, states[edge.from]))
                .collect();
            let runs = incoming.is_empty()
                || if node.join_all { incoming.iter().all(|&taken| taken) } else { incoming.contains(&true) };
            let state = match (runs, node.fails >= node.max_attempts) {
                (false, _) => NodeState::Skipped,
                (true, true) => NodeState::Failed,
                (true, false) => NodeState::Succeeded,
            };
            let caught = self.edges.iter().any(|edge| edge.from == index && taken(edge, state));
            fails |= state == NodeState::Failed && !caught;
            states.push(state);
        }
        (!fails).then_some(states)
    }
}

fn taken(edge: &CaseEdge, from: NodeState) -> bool {
    let on = match from {
        NodeState::Succeeded => edge.on != "failure",
        NodeState::Failed => edge.on != "success",
        _ => false,
    };
    on && edge.when != Some(false)
}

/// What was seen while nodes executed, and what must never be.
#[derive(Default)]
struct Witness {
    active: HashMap<RunId, HashSet<(InstanceId, String, i32)>>,
    violations: Vec<String>,
}

/// A node type that does what its config says, while the witness looks at the journal.
struct Work {
    case: Arc<Case>,
    store: MemoryStore,
    instance: InstanceId,
    witness: Arc<Mutex<Witness>>,
    actors: Actors,
}

#[async_trait]
impl NodeType for Work {
    fn check(&self, config: &mut Fields<'_>) {
        for field in ["fails", "takes_ms", "waits_ms", "acts_ms"] {
            config.required(field, Shape::Whole(0, 1_000_000));
        }
    }

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let _active = self.enter(&attempt);
        tokio::time::sleep(Duration::from_millis(attempt.config["takes_ms"].as_u64().unwrap())).await;
        let failures = self.node_runs(attempt.run)[&attempt.node].failures;
        if u64::from(failures) < attempt.config["fails"].as_u64().unwrap() {
            return Err(NodeFailure::retryable("planned", "as planned"));
        }
        match attempt.config["waits_ms"].as_u64().unwrap() {
            0 => {}
            _ if attempt.woken => {}
            wait => return Ok(Outcome::Wait(Wait::until(attempt.now + Duration::from_millis(wait)))),
        }
        match attempt.config["acts_ms"].as_u64().unwrap() {
            0 => Ok(Outcome::Done(json!(attempt.node.as_str()))),
            after => {
                self.actors.act_after(Duration::from_millis(after), attempt.run, &attempt.node, &self.store);
                Ok(Outcome::Wait(Wait { on: WaitingFor::Approval, until: None }))
            }
        }
    }

    async fn look(&self, attempt: Attempt) -> Result<Option<Outcome>, NodeFailure> {
        let has_acted = self.actors.have_acted(attempt.run, &attempt.node);
        Ok(has_acted.then(|| Outcome::Done(json!(attempt.node.as_str()))))
    }
}

/// People who act on runs, whatever becomes of the processes.
#[derive(Clone, Default)]
struct Actors {
    acts: Arc<Mutex<HashSet<(RunId, NodeId)>>>,
}

impl Actors {
    fn act_after(&self, time: Duration, run: RunId, node: &NodeId, store: &MemoryStore) {
        let (acts, act, store) = (Arc::clone(&self.acts), (run, node.clone()), store.clone());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            acts.lock().unwrap().insert(act);
            store.act_on(run);
        });
    }

    fn have_acted(&self, run: RunId, node: &NodeId) -> bool {
        self.acts.lock().unwrap().contains(&(run, node.clone()))
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
                witness.violations.push(format!("I1: {me} executes although the node is {}", run.state));
            }
            other => {
                witness.violations.push(format!("I3: {me} executes before its start is durable: {other:?}"))
            }
        }
        let index: usize = attempt.node.as_str()[1..].parse().unwrap();
        for edge in self.case.edges.iter().filter(|edge| edge.to == index) {
            let from: NodeId = format!("n{}", edge.from).parse().unwrap();
            if !runs.get(&from).is_some_and(|run| run.state.is_resolved()) {
                witness.violations.push(format!("I3: {me} executes before {from} is durably resolved"));
            }
        }
        if self.store.run(attempt.run).is_some_and(|run| run.state.is_terminal()) {
            witness.violations.push(format!("I5: {me} executes in a terminal run"));
        }
        let key = (self.instance, attempt.node.to_string(), attempt.attempt);
        let active = witness.active.entry(attempt.run).or_default();
        let second = active.iter().any(|(instance, node, _)| *instance != self.instance || *node == key.1);
        active.insert(key.clone());
        if second {
            witness.violations.push(format!("I2: {me} executes while the run executes elsewhere"));
        }
        Leave { run: attempt.run, key, witness: Arc::clone(&self.witness) }
    }
}

/// Marks the end of an execution, also when it is dropped.
struct Leave {
    run: RunId,
    key: (InstanceId, String, i32),
    witness: Arc<Mutex<Witness>>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(active) = self.witness.lock().unwrap().active.get_mut(&self.run) {
            active.remove(&self.key);
        }
    }
}

/// One process: an engine and a claim loop on the shared store.
struct Process {
    id: InstanceId,
    faults: Arc<Faults>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

struct World {
    store: MemoryStore,
    clock: VirtualClock,
    case: Arc<Case>,
    witness: Arc<Mutex<Witness>>,
    actors: Actors,
}

impl World {
    fn start(&self, plan: &[(usize, Fault)]) -> Process {
        let id = InstanceId::new();
        let faults = Arc::new(Faults::planned(plan.iter().copied()));
        let store: Arc<dyn RunStore> = Arc::new(self.store.seen_with(Arc::clone(&faults)));
        let work = Work {
            case: Arc::clone(&self.case),
            store: self.store.clone(),
            instance: id,
            witness: Arc::clone(&self.witness),
            actors: self.actors.clone(),
        };
        let types = NodeTypes::builtin().with("work", work);
        // Short, so that runs are parked and taken up again.
        let settings = EngineSettings { park_after: Duration::from_millis(300), ..EngineSettings::default() };
        let (engine, service) = Engine::new(store, types, Arc::new(self.clock), settings);
        let settings = RunnerSettings { grace: Duration::from_millis(200), ..RunnerSettings::default() };
        let runner = Runner::new(engine, id, settings);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(service.run(CancellationToken::new()));
        tasks.spawn(runner.run(stop.clone(), CancellationToken::new()));
        Process { id, faults, tasks, stop }
    }

    /// Waits until every run has ended or the process died; answers whether it died.
    async fn watch(&self, process: &Process, runs: &[RunId]) -> bool {
        let crashed = process.faults.crashed();
        let all_ended = async {
            while !runs.iter().all(|run| self.store.run(*run).is_some_and(|run| run.state.is_terminal())) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let limit = Duration::from_secs(3600);
        tokio::select! {
            biased;
            () = crashed.cancelled() => true,
            () = all_ended => false,
            () = tokio::time::sleep(limit) => panic!("I4: after an hour a run has not ended: {:?}", runs.iter().map(|run| (self.store.run(*run), self.store.journal(*run))).collect::<Vec<_>>()),
        }
    }

    async fn bury(&self, mut process: Process) {
        process.tasks.shutdown().await;
        self.store.kill(process.id);
    }
}

/// Drives `n_runs` runs of the case through processes that each suffer their plan, one after the other and the last two
/// at once, then through one that does not; checks the invariants and the outcome. Answers with the calls that the
/// first process made.
pub fn check(case: &Case, plans: &[Vec<(usize, Fault)>], n_runs: usize) -> usize {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(check_in_virtual_time(case, plans, n_runs))
}

async fn check_in_virtual_time(case: &Case, plans: &[Vec<(usize, Fault)>], n_runs: usize) -> usize {
    let clock = VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let store = MemoryStore::new(Arc::new(clock));
    let world = World {
        store,
        clock,
        case: Arc::new(case.clone()),
        witness: Arc::default(),
        actors: Actors::default(),
    };
    let definition = case.definition();
    let graph = Digest::of_json(&definition);
    world.store.ensure_graph(graph, &definition).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..n_runs {
        let run = gathering_dag_engine::NewRun {
            id: RunId::new(),
            project: ProjectId::new(),
            graph,
            input: json!({}),
            priority: 5,
            available_at: None,
            timeout: None,
        };
        runs.push(run.id);
        world.store.enqueue(run).await.unwrap();
    }
    let mut n_calls = None;
    for plan in plans {
        // A second, healthy process shares the queue while this one suffers.
        let companion = (n_runs > 1).then(|| world.start(&[]));
        let process = world.start(plan);
        let died = world.watch(&process, &runs).await;
        n_calls.get_or_insert(process.faults.n_calls());
        if !died {
            process.stop.cancel();
        }
        world.bury(process).await;
        if let Some(companion) = companion {
            companion.stop.cancel();
            world.bury(companion).await;
        }
    }
    let last = world.start(&[]);
    world.watch(&last, &runs).await;
    world.bury(last).await;
    for run in runs {
        world.judge(run);
    }
    n_calls.unwrap_or(0)
}

impl World {
    fn judge(&self, id: RunId) {
        let witness = self.witness.lock().unwrap();
        assert!(witness.violations.is_empty(), "{:#?}", witness.violations);
        assert!(witness.active.values().all(HashSet::is_empty), "I5: something executes after the end");
        let run = self.store.run(id).unwrap();
        let journal = self.store.journal(id);
        let nodes = NodeRun::fold(&journal).unwrap();
        for (place, entry) in journal.iter().enumerate() {
            assert_eq!(entry.seq, place as i64 + 1, "the journal has no gaps");
        }
        for id in nodes.keys() {
            let ends =
                journal.iter().filter(|entry| entry.record.node.as_ref() == Some(id)).filter(|entry| {
                    matches!(
                        entry.record.event,
                        JournalEvent::Succeeded { .. } | JournalEvent::Failed(_) | JournalEvent::Skipped
                    )
                });
            assert!(ends.count() <= 1, "I1: {id} has more than one result");
        }
        match self.case.expected() {
            None => assert_eq!(run.state, RunState::Failed),
            Some(expected) => {
                assert_eq!(run.state, RunState::Succeeded, "{:?}", run.end);
                for (index, state) in expected.into_iter().enumerate() {
                    let node: NodeId = format!("n{index}").parse().unwrap();
                    assert_eq!(nodes[&node].state, state, "{node}");
                }
            }
        }
    }
}

//! One graph, how its nodes behave, and the expected outcome: the plain rules, written a second time.

use std::collections::HashMap;

use gathering_dag_engine::{EffectClass, NodeState};
use serde_json::{Value, json};

/// True for the input. If keys came in random order, it would be true in one of four evaluations.
const FIRST_KEY_IS_A: &str = "input.m.map(k, k)[0] == 'a'";

/// One graph, how its nodes behave, and what people decide meanwhile.
#[derive(Debug, Clone)]
pub struct Case {
    pub nodes: Vec<CaseNode>,
    pub edges: Vec<CaseEdge>,
    pub max_concurrency: usize,
    pub fail_fast: bool,
    pub meddling: Meddling,
    /// Whether each process claims only the tree of one run, instead of the whole queue.
    pub by_tree: bool,
}

/// Events from outside, in milliseconds after the first run was accepted. They concern the first run only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meddling {
    pub cancel_after_ms: Option<u64>,
    pub timeout_ms: Option<u64>,
    /// Whether the instances get a wake-up for them at once, or find them by polling.
    pub is_announced: bool,
}

#[derive(Debug, Clone)]
pub struct CaseNode {
    pub kind: Kind,
    pub join_all: bool,
    /// The first so many attempts fail.
    pub fails: u32,
    pub failing: Failing,
    pub max_attempts: u32,
    pub takes_ms: u64,
    /// Waits durably before it ends, if not 0.
    pub waits_ms: u64,
    /// Waits before it ends for an event so long after its first execution, if not 0.
    pub acts_ms: u64,
    pub idempotent: bool,
    /// The effect that it performs before it ends.
    pub effect: Option<EffectClass>,
    pub breaker: Option<CaseBreaker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaseBreaker {
    pub threshold: u32,
    pub reset_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Work,
    /// The edges out of it are taken by this result.
    Decide(bool),
    /// Waits for this decision; if there is none, until its time-out.
    Ask(Option<bool>),
    /// Starts a child run, or a chain of nested ones, and waits for it. The innermost run takes the node's time and waits
    /// for it, and the first so many rounds fail.
    Call {
        depth: u32,
    },
    /// A child run for each of so many items, each of which takes and waits as long. If it fails, its last item does.
    Map {
        n_items: u32,
        max_concurrency: u32,
    },
}

impl Kind {
    pub fn has_children(self) -> bool {
        matches!(self, Kind::Call { .. } | Kind::Map { .. })
    }

    /// Whether the node itself does what the case says of it.
    fn is_work(self) -> bool {
        matches!(self, Kind::Work | Kind::Decide(_))
    }
}

/// How an attempt fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// A retry may help.
    Retryable,
    /// A retry does not help.
    Permanent,
    /// It hangs until its time-out; a retry may help.
    Hanging,
}

#[derive(Debug, Clone)]
pub struct CaseEdge {
    pub from: usize,
    pub to: usize,
    pub on: &'static str,
    pub when: When,
}

/// The `when` of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Absent,
    Is(bool),
    /// It has no value.
    Fails,
}

impl CaseEdge {
    pub fn of(from: usize, to: usize) -> Self {
        Self { from, to, on: "success", when: When::Absent }
    }
}

impl CaseNode {
    pub fn plain() -> Self {
        Self {
            kind: Kind::Work,
            join_all: false,
            fails: 0,
            failing: Failing::Retryable,
            max_attempts: 1,
            takes_ms: 0,
            waits_ms: 0,
            acts_ms: 0,
            idempotent: true,
            effect: None,
            breaker: None,
        }
    }

    /// How it ends without faults around it.
    fn end(&self) -> NodeState {
        let fails = match self.kind {
            Kind::Ask(Some(true)) => false,
            Kind::Ask(Some(false)) => return NodeState::Failed,
            Kind::Ask(None) => return NodeState::TimedOut,
            Kind::Map { n_items, .. } => self.fails > 0 && n_items > 0,
            // Another round may help every time.
            Kind::Call { .. } => self.fails >= self.max_attempts,
            Kind::Work | Kind::Decide(_) => {
                self.fails >= self.max_attempts || (self.fails > 0 && self.failing == Failing::Permanent)
            }
        };
        match (fails, self.failing) {
            (false, _) => NodeState::Succeeded,
            (true, Failing::Hanging) => NodeState::TimedOut,
            (true, _) => NodeState::Failed,
        }
    }

    /// How many failures its journal holds when it succeeds without faults around it.
    pub fn n_failures(&self) -> u32 {
        match (self.kind, self.failing) {
            (Kind::Ask(_) | Kind::Map { .. }, _) => 0,
            (Kind::Work | Kind::Decide(_), Failing::Permanent) => self.fails.min(1),
            _ => self.fails.min(self.max_attempts),
        }
    }

    /// Whether faults around it can make it time out: the time of a node that waits, for runs or for a time, passes while no
    /// instance drives it.
    pub fn may_time_out(&self) -> bool {
        self.failing == Failing::Hanging && (self.kind.has_children() || self.waits_ms > 0)
    }

    /// Whether an attempt may fail in a way that its breaker counts.
    pub fn may_fail(&self) -> bool {
        self.end() != NodeState::Succeeded
            || self.n_failures() > 0
            || self.may_time_out()
            || self.has_unsafe_effect()
    }

    pub fn has_unsafe_effect(&self) -> bool {
        self.kind.is_work() && self.effect == Some(EffectClass::Unsafe)
    }

    /// How many child runs one round of it starts.
    pub fn n_children(&self) -> u32 {
        match self.kind {
            Kind::Call { .. } => 1,
            Kind::Map { n_items, .. } => n_items,
            _ => 0,
        }
    }
}

impl Case {
    pub fn of(nodes: Vec<CaseNode>, edges: &[(usize, usize)]) -> Self {
        let edges = edges.iter().map(|&(from, to)| CaseEdge::of(from, to)).collect();
        let meddling = Meddling::default();
        Self { nodes, edges, max_concurrency: 3, fail_fast: true, meddling, by_tree: false }
    }

    /// The nodes end one after the other, so that every end of a node has its own checkpoint.
    pub fn in_turns(n: usize, edges: &[(usize, usize)]) -> Self {
        let nodes = (0..n).map(|node| CaseNode { takes_ms: 1 + node as u64, ..CaseNode::plain() });
        Self::of(nodes.collect(), edges)
    }

    pub fn definition(&self) -> Value {
        let nodes: Vec<Value> =
            self.nodes.iter().enumerate().map(|(index, node)| node.definition(index)).collect();
        let edges: Vec<Value> = self
            .edges
            .iter()
            .map(|edge| {
                let mut value =
                    json!({"from": format!("n{}", edge.from), "to": format!("n{}", edge.to), "on": edge.on});
                match edge.when {
                    When::Absent => {}
                    When::Is(true) => value["when"] = json!(FIRST_KEY_IS_A),
                    When::Is(false) => value["when"] = json!(format!("!({FIRST_KEY_IS_A})")),
                    When::Fails => value["when"] = json!("input.nothing == 1"),
                }
                value
            })
            .collect();
        let (max_concurrency, fail_fast) = (self.max_concurrency, self.fail_fast);
        json!({"nodes": nodes, "edges": edges, "max_concurrency": max_concurrency, "fail_fast": fail_fast})
    }

    pub fn has_breakers(&self) -> bool {
        self.nodes.iter().any(|node| node.breaker.is_some())
    }

    /// The input of the runs.
    pub fn input() -> Value {
        json!({"yes": true, "m": {"d": 1, "c": 2, "b": 3, "a": 4}})
    }

    /// The outcome of a run. `otherwise` are nodes that failed for good because of faults around them.
    pub fn expected(&self, otherwise: &HashMap<usize, NodeState>) -> Expected {
        let mut states: Vec<NodeState> = Vec::new();
        let mut n_failures = 0;
        for (index, node) in self.nodes.iter().enumerate() {
            let incoming: Vec<bool> = self
                .edges
                .iter()
                .filter(|edge| edge.to == index)
                .map(|edge| self.is_taken(edge, states[edge.from]))
                .collect();
            let runs = incoming.is_empty()
                || if node.join_all { incoming.iter().all(|&taken| taken) } else { incoming.contains(&true) };
            let state = match (runs, otherwise.get(&index)) {
                (false, _) => NodeState::Skipped,
                (true, Some(&state)) => state,
                (true, None) => node.end(),
            };
            let failed = matches!(state, NodeState::Failed | NodeState::TimedOut)
                || self.has_broken_edge(index, state);
            let mut out = self.edges.iter().filter(|edge| edge.from == index && edge.on != "success");
            n_failures += usize::from(failed && !out.any(|edge| self.is_taken(edge, state)));
            states.push(state);
        }
        Expected { n_failures, states: (n_failures == 0 || !self.fail_fast).then_some(states) }
    }

    /// Whether an edge that follows the success of this node has no value; only then does its failure have a place to go.
    fn has_broken_edge(&self, node: usize, state: NodeState) -> bool {
        let mut out = self.edges.iter().filter(|edge| edge.from == node && edge.on != "failure");
        state == NodeState::Succeeded && out.any(|edge| edge.when == When::Fails)
    }

    fn is_taken(&self, edge: &CaseEdge, from: NodeState) -> bool {
        let on = match from {
            NodeState::Succeeded => edge.on != "failure" || self.has_broken_edge(edge.from, from),
            NodeState::Failed | NodeState::TimedOut => edge.on != "success",
            _ => false,
        };
        let decided = match (self.nodes[edge.from].kind, edge.when) {
            (_, When::Is(when)) => when,
            (_, When::Fails) => false,
            (Kind::Decide(result), When::Absent) => result || edge.on != "success",
            (_, When::Absent) => true,
        };
        on && decided
    }
}

/// The outcome of a run by the plain rules.
pub struct Expected {
    /// How many failures no edge handles.
    pub n_failures: usize,
    /// The states of the nodes; absent if a failure ended the run before some of them.
    pub states: Option<Vec<NodeState>>,
}

impl CaseNode {
    fn definition(&self, index: usize) -> Value {
        let (node_type, config) = match self.kind {
            Kind::Work => ("work", self.work(json!(self.fails), true)),
            Kind::Decide(result) => ("decide", self.work(json!(self.fails), result)),
            Kind::Ask(decision) => {
                // The witness knows who decides, and when.
                let limit = if decision.is_none() { json!(0.4) } else { Value::Null };
                ("ask", json!({"message": "May it?", "timeout_seconds": limit}))
            }
            Kind::Call { depth } => ("call", self.call(depth, json!(self.fails))),
            Kind::Map { n_items, max_concurrency } => {
                // A map whose keys are not in their order; its values are in that of the keys.
                let entry = |item| format!("'i{item}': {}", self.item(item));
                let entries: Vec<String> = (0..n_items).rev().map(entry).collect();
                let map = format!("{{{}}}", entries.join(", "));
                let graph = self.child_graph("work", self.work(json!("${{ item }}"), true));
                let items = format!("{map}.map(k, {map}[k])");
                ("each", json!({"items": items, "max_concurrency": max_concurrency, "graph": graph}))
            }
        };
        let mut node = json!({
            "id": format!("n{index}"),
            "type": node_type,
            "config": config,
            "join": if self.join_all { "all" } else { "any" },
            "retry": {"max_attempts": self.max_attempts, "initial_backoff_ms": 50, "jitter": 0.5},
            "idempotent": self.idempotent,
        });
        if self.failing == Failing::Hanging && !matches!(self.kind, Kind::Ask(_)) {
            node["timeout_seconds"] = json!(0.2);
        }
        if let (Some(effect), true) = (self.effect, self.kind.is_work()) {
            node["config"]["effect"] = json!(effect);
        }
        if let Some(CaseBreaker { threshold, reset_ms }) = self.breaker {
            let reset_seconds = reset_ms as f64 / 1000.0;
            node["circuit_breaker"] = json!({"failure_threshold": threshold, "reset_seconds": reset_seconds});
        }
        node
    }

    /// An item of its list: how often its run fails.
    pub fn item(&self, item: u32) -> u32 {
        match self.kind {
            Kind::Map { n_items, .. } => u32::from(self.fails > 0 && item + 1 == n_items),
            _ => 0,
        }
    }

    fn work(&self, fails: Value, result: bool) -> Value {
        let how = match self.failing {
            Failing::Retryable => "retryable",
            Failing::Permanent => "permanent",
            Failing::Hanging => "hanging",
        };
        let (takes, waits, acts) = (self.takes_ms, self.waits_ms, self.acts_ms);
        json!({"fails": fails, "how": how, "takes_ms": takes, "waits_ms": waits, "acts_ms": acts, "result": result})
    }

    fn call(&self, depth: u32, fails: Value) -> Value {
        let fails_below = json!("${{ input.fails }}");
        let graph = match depth {
            0 | 1 => self.child_graph("work", self.work(fails_below, true)),
            _ => self.child_graph("call", self.call(depth - 1, fails_below)),
        };
        json!({"fails": fails, "graph": graph})
    }

    fn child_graph(&self, node_type: &str, config: Value) -> Value {
        json!({"nodes": [{"id": "c0", "type": node_type, "config": config}]})
    }
}

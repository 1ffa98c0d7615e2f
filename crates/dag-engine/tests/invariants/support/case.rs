//! One graph, how its nodes behave, and what must come of it: the plain rules, written a second time.

use std::collections::HashMap;

use gathering_dag_engine::{EffectClass, NodeState};
use serde_json::{Value, json};

/// One graph, how its nodes behave, and what people do meanwhile.
#[derive(Debug, Clone)]
pub struct Case {
    pub nodes: Vec<CaseNode>,
    pub edges: Vec<CaseEdge>,
    pub max_concurrency: usize,
    pub meddling: Meddling,
}

/// What comes from outside, in milliseconds after the first run was accepted. It concerns the first run only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meddling {
    pub cancel_after_ms: Option<u64>,
    pub timeout_ms: Option<u64>,
    /// Whether the instances are told at once when somebody acted, or find out by themselves.
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
    /// Waits before it ends until somebody acts, so long after its first execution, if not 0.
    pub acts_ms: u64,
    pub idempotent: bool,
    /// What it does outside before it ends.
    pub effect: Option<EffectClass>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Work,
    /// The edges out of it are taken by this result.
    Decide(bool),
}

/// How an attempt fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// It may be tried again.
    Retryable,
    /// It must not.
    Permanent,
    /// It hangs until its time is over, and may be tried again.
    Hanging,
}

#[derive(Debug, Clone)]
pub struct CaseEdge {
    pub from: usize,
    pub to: usize,
    pub on: &'static str,
    pub when: Option<bool>,
}

impl CaseEdge {
    pub fn of(from: usize, to: usize) -> Self {
        Self { from, to, on: "success", when: None }
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
        }
    }

    /// Whether it fails for good when nothing goes wrong around it.
    fn fails_for_good(&self) -> bool {
        self.fails >= self.max_attempts || (self.fails > 0 && self.failing == Failing::Permanent)
    }

    /// How many failures its journal holds when nothing goes wrong around it.
    pub fn n_failures(&self) -> u32 {
        match self.failing {
            Failing::Permanent => self.fails.min(1),
            _ => self.fails.min(self.max_attempts),
        }
    }
}

impl Case {
    pub fn of(nodes: Vec<CaseNode>, edges: &[(usize, usize)]) -> Self {
        let edges = edges.iter().map(|&(from, to)| CaseEdge::of(from, to)).collect();
        Self { nodes, edges, max_concurrency: 3, meddling: Meddling::default() }
    }

    /// The nodes end one after the other, so that every end of a node is a checkpoint of its own.
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
                if let Some(when) = edge.when {
                    value["when"] = json!(if when { "input.yes" } else { "!input.yes" });
                }
                value
            })
            .collect();
        json!({"nodes": nodes, "edges": edges, "max_concurrency": self.max_concurrency})
    }

    /// What the runs are started with.
    pub fn input() -> Value {
        json!({"yes": true})
    }

    /// The state of every node if the run succeeds; absent if it must fail. `otherwise` are nodes that failed for good
    /// because of what happened around them.
    pub fn expected(&self, otherwise: &HashMap<usize, NodeState>) -> Option<Vec<NodeState>> {
        let mut states: Vec<NodeState> = Vec::new();
        let mut fails = false;
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
                (true, None) if !node.fails_for_good() => NodeState::Succeeded,
                (true, None) if node.failing == Failing::Hanging => NodeState::TimedOut,
                (true, None) => NodeState::Failed,
            };
            let failed = matches!(state, NodeState::Failed | NodeState::TimedOut);
            let caught = self.edges.iter().any(|edge| edge.from == index && self.is_taken(edge, state));
            fails |= failed && !caught;
            states.push(state);
        }
        (!fails).then_some(states)
    }

    fn is_taken(&self, edge: &CaseEdge, from: NodeState) -> bool {
        let on = match from {
            NodeState::Succeeded => edge.on != "failure",
            NodeState::Failed | NodeState::TimedOut => edge.on != "success",
            _ => false,
        };
        let decided = match (self.nodes[edge.from].kind, edge.when) {
            (_, Some(when)) => when,
            (Kind::Decide(result), None) => result || edge.on != "success",
            (Kind::Work, None) => true,
        };
        on && decided
    }
}

impl CaseNode {
    fn definition(&self, index: usize) -> Value {
        let (node_type, result) = match self.kind {
            Kind::Work => ("work", true),
            Kind::Decide(result) => ("decide", result),
        };
        let mut node = json!({
            "id": format!("n{index}"),
            "type": node_type,
            "config": {
                "fails": self.fails,
                "how": match self.failing {
                    Failing::Retryable => "retryable",
                    Failing::Permanent => "permanent",
                    Failing::Hanging => "hanging",
                },
                "takes_ms": self.takes_ms,
                "waits_ms": self.waits_ms,
                "acts_ms": self.acts_ms,
                "result": result,
            },
            "join": if self.join_all { "all" } else { "any" },
            "retry": {"max_attempts": self.max_attempts, "initial_backoff_ms": 50, "jitter": 0.5},
            "idempotent": self.idempotent,
        });
        if self.failing == Failing::Hanging {
            node["timeout_seconds"] = json!(0.2);
        }
        if let Some(effect) = self.effect {
            node["config"]["effect"] = json!(effect);
        }
        node
    }
}

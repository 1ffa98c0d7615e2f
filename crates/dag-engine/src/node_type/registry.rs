//! Node types by name: specs for validation, and specs with their executors for the engine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::approval::{Approval, ApprovalSpec};
use super::map::{MapNode, MapSpec};
use super::{NodeExecutor, NodeSpec, builtin};
use crate::children::ChildRuns;
use crate::decisions::Decisions;

/// The node types that a definition may use.
#[derive(Clone, Default)]
pub struct NodeSpecs(BTreeMap<String, Arc<dyn NodeSpec>>);

impl NodeSpecs {
    /// The engine's own types: `trigger`, `condition`, `parallel`, `delay`, `map` and `approval`.
    pub fn builtin() -> Self {
        Self::default()
            .with("trigger", builtin::Trigger)
            .with("condition", builtin::Condition)
            .with("parallel", builtin::Parallel)
            .with("delay", builtin::Delay)
            .with("fail", builtin::Fail)
            .with("map", MapSpec)
            .with("approval", ApprovalSpec)
    }

    /// Adds a type, or replaces the type of this name.
    #[must_use]
    pub fn with(mut self, name: &str, spec: impl NodeSpec) -> Self {
        self.0.insert(name.to_owned(), Arc::new(spec));
        self
    }

    /// The spec that validation gives a node of an unknown type, so that it can go on with the rest of the graph.
    pub(crate) fn stand_in() -> Arc<dyn NodeSpec> {
        Arc::new(builtin::Parallel)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<dyn NodeSpec>> {
        self.0.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for NodeSpecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// The node types that an engine executes: each spec has its executor.
#[derive(Clone, Default)]
pub struct NodeTypes {
    specs: NodeSpecs,
    executors: BTreeMap<String, Arc<dyn NodeExecutor>>,
}

impl NodeTypes {
    /// The types that need nothing but the engine: `trigger`, `condition`, `parallel`, `delay` and `fail`.
    /// [`with_map`](Self::with_map) and [`with_approval`](Self::with_approval) add the two that need a store.
    pub fn builtin() -> Self {
        Self::default()
            .with("trigger", builtin::Trigger)
            .with("condition", builtin::Condition)
            .with("parallel", builtin::Parallel)
            .with("delay", builtin::Delay)
            .with("fail", builtin::Fail)
    }

    /// Adds a type whose spec and executor are one value, or replaces the type of this name.
    #[must_use]
    pub fn with(self, name: &str, node_type: impl NodeSpec + NodeExecutor) -> Self {
        let node_type = Arc::new(node_type);
        self.insert(name, Arc::clone(&node_type) as _, node_type)
    }

    /// Adds a type whose spec and executor are two values, or replaces the type of this name.
    #[must_use]
    pub fn with_parts(self, name: &str, spec: impl NodeSpec, executor: impl NodeExecutor) -> Self {
        self.insert(name, Arc::new(spec), Arc::new(executor))
    }

    /// Adds `map`, whose items are child runs in `children`.
    #[must_use]
    pub fn with_map(self, children: Arc<dyn ChildRuns>) -> Self {
        self.with_parts("map", MapSpec, MapNode::new(children))
    }

    /// Adds `approval`, which waits for decisions in `decisions`.
    #[must_use]
    pub fn with_approval(self, decisions: Arc<dyn Decisions>) -> Self {
        self.with_parts("approval", ApprovalSpec, Approval::new(decisions))
    }

    /// The specs of all types.
    pub const fn specs(&self) -> &NodeSpecs {
        &self.specs
    }

    pub(crate) fn executor(&self, name: &str) -> Option<&Arc<dyn NodeExecutor>> {
        self.executors.get(name)
    }

    fn insert(mut self, name: &str, spec: Arc<dyn NodeSpec>, executor: Arc<dyn NodeExecutor>) -> Self {
        self.specs.0.insert(name.to_owned(), spec);
        self.executors.insert(name.to_owned(), executor);
        self
    }
}

impl fmt::Debug for NodeTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.specs.fmt(f)
    }
}

//! The scopes of expressions outside a run.

use serde_json::Value;

use super::Scope;

/// An empty scope.
pub(super) struct Nothing;

/// An event, and nothing of a run.
pub(super) struct OverEvent<'a>(pub(super) &'a Value);

impl Scope for Nothing {
    fn input(&self) -> &Value {
        &Value::Null
    }
    fn node(&self, _: &str) -> Option<Value> {
        None
    }
    fn node_ids(&self) -> Vec<String> {
        Vec::new()
    }
    fn run(&self) -> Value {
        Value::Null
    }
}

impl Scope for OverEvent<'_> {
    fn input(&self) -> &Value {
        &Value::Null
    }
    fn node(&self, _: &str) -> Option<Value> {
        None
    }
    fn node_ids(&self) -> Vec<String> {
        Vec::new()
    }
    fn run(&self) -> Value {
        Value::Null
    }
    fn event(&self) -> Option<&Value> {
        Some(self.0)
    }
}

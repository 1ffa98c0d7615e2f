//! The scope of expressions outside a run.

use serde_json::Value;

use super::Scope;

/// Nothing of a run, but perhaps an event.
pub(super) struct OutsideRuns<'a> {
    pub(super) event: Option<&'a Value>,
}

impl Scope for OutsideRuns<'_> {
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
        self.event
    }
}

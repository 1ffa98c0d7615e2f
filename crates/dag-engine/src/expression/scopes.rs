//! The scope of expressions outside a run.

use serde_json::Value;

use super::Scope;

/// Nothing of a run, but perhaps values with names of their own.
pub(crate) struct OutsideRuns<'a>(pub(crate) &'a [(&'a str, &'a Value)]);

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
    fn named(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

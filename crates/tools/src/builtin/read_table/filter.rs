//! The port to a language of conditions.

use serde_json::Value;

/// Compiles the conditions of `where`. Expressions belong to another crate, which implements this.
pub trait RowFilters: std::fmt::Debug + Send + Sync {
    /// A condition over the object `row`.
    ///
    /// # Errors
    /// What is wrong with `source`.
    fn compile(&self, source: &str) -> Result<Box<dyn RowFilter>, String>;
}

/// A compiled condition.
pub trait RowFilter: Send + Sync {
    /// Whether this row fits. The work of one evaluation is bounded.
    ///
    /// # Errors
    /// Why the condition has no answer for it.
    fn matches(&self, row: &Value) -> Result<bool, String>;
}

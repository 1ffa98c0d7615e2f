//! The expressions of `read_table`, over the object `row`.

use gathering_dag_engine::Expression;
use gathering_tools::{RowFilter, RowFilters};
use serde_json::Value;

/// Compiles the engine's expressions as filters of rows. In scope is `row` alone.
#[derive(Debug, Clone, Copy)]
pub struct RowExpressions;

impl RowFilters for RowExpressions {
    fn compile(&self, source: &str) -> Result<Box<dyn RowFilter>, String> {
        match Expression::compile_over(source, &["row"]) {
            Ok(expression) => Ok(Box::new(RowExpression(expression))),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }
}

struct RowExpression(Expression);

impl RowFilter for RowExpression {
    fn matches(&self, row: &Value) -> Result<bool, String> {
        match self.0.evaluate_over(&[("row", row)]) {
            Ok(Value::Bool(matches)) => Ok(matches),
            Ok(_) => Err(format!("expression `{}`: must be true or false", self.0.source())),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_fits_or_not_or_has_no_answer() {
        let filter = RowExpressions.compile("row.n > 2 && row.name.startsWith('a')").unwrap();
        assert_eq!(filter.matches(&json!({"n": 3, "name": "ab"})), Ok(true));
        assert_eq!(filter.matches(&json!({"n": 2, "name": "ab"})), Ok(false));
        assert!(filter.matches(&json!({"name": "ab"})).unwrap_err().starts_with("expression `row.n > 2"));
        let number = RowExpressions.compile("row.n").unwrap();
        assert_eq!(
            number.matches(&json!({"n": 3})).unwrap_err(),
            "expression `row.n`: must be true or false"
        );
    }

    #[test]
    fn only_the_row_is_in_scope() {
        for source in ["input.x", "nodes.a.output", "1 +", ""] {
            assert!(RowExpressions.compile(source).is_err(), "{source}");
        }
    }
}

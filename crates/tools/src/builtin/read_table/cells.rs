//! The values of CSV cells.

use serde::Deserialize;
use serde_json::Value;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CellType {
    String,
    Integer,
    Number,
    Boolean,
}

impl CellType {
    /// The value of a cell; `None` if it does not fit. An empty cell is null, unless it is a string.
    pub(super) fn read(self, cell: &str) -> Option<Value> {
        let text = cell.trim();
        match self {
            CellType::String => Some(Value::from(cell)),
            _ if text.is_empty() => Some(Value::Null),
            CellType::Integer => text.parse::<i64>().ok().map(Value::from),
            CellType::Number => {
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                number.map(Value::from)
            }
            CellType::Boolean => text.to_ascii_lowercase().parse::<bool>().ok().map(Value::from),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            CellType::String => "a string",
            CellType::Integer => "an integer",
            CellType::Number => "a number",
            CellType::Boolean => "a boolean",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_has_the_value_of_its_type_or_none() {
        for (kind, cell, value) in [
            (CellType::String, " 007 ", Some(json!(" 007 "))),
            (CellType::String, "", Some(json!(""))),
            (CellType::Integer, " 007 ", Some(json!(7))),
            (CellType::Integer, "9223372036854775807", Some(json!(i64::MAX))),
            (CellType::Integer, "9223372036854775808", None),
            (CellType::Integer, "1.0", None),
            (CellType::Integer, "", Some(json!(null))),
            (CellType::Number, "-1.5e3", Some(json!(-1500.0))),
            (CellType::Number, "NaN", None),
            (CellType::Number, "1e999", None),
            (CellType::Boolean, "TRUE", Some(json!(true))),
            (CellType::Boolean, "yes", None),
        ] {
            assert_eq!(kind.read(cell), value, "{kind:?} {cell}");
        }
    }
}

//! Which rows of a table are returned, whatever its format.

use std::time::{Duration, Instant};

use gathering_domain::Pointer;
use serde_json::{Map, Value, json};

use super::filter::RowFilter;
use super::unknown_column;
use crate::tool::ToolError;

/// A row is in memory: 1 MiB.
pub(super) const MAX_ROW_BYTES: u64 = 1024 * 1024;
/// How much one call reads: 256 MiB.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// How much of it one call returns: 2 MiB.
const MAX_RETURNED_BYTES: u64 = 2 * 1024 * 1024;
/// How long one call reads.
pub(super) const MAX_TIME: Duration = Duration::from_secs(10);

/// The rows of a table, one after the other.
pub(super) trait Rows {
    /// The columns, if they are known before the first row.
    fn columns(&self) -> Option<&[String]>;

    /// What the numbers of rows count.
    fn unit(&self) -> &'static str {
        "line"
    }

    /// The next row.
    fn next(&mut self) -> Result<Option<Row>, ToolError>;
}

/// A row and where it is.
pub(super) struct Row {
    pub(super) fields: Map<String, Value>,
    pub(super) line: u64,
    pub(super) size_bytes: u64,
}

/// Which rows and columns to return.
pub(super) struct Query {
    pub(super) filter: Option<Box<dyn RowFilter>>,
    pub(super) columns: Option<Vec<String>>,
    pub(super) limit: usize,
    pub(super) offset: u64,
}

/// What was read so far.
#[derive(Default)]
struct Progress {
    rows: Vec<Value>,
    columns: Vec<String>,
    n_read: u64,
    n_matched: u64,
    read_bytes: u64,
    returned_bytes: u64,
    /// Why rows are left, if they are.
    stopped: Option<&'static str>,
}

impl Query {
    /// Reads rows until there are enough.
    pub(super) fn read(&self, rows: &mut dyn Rows) -> Result<Value, ToolError> {
        let begun = Instant::now();
        let mut progress = Progress { columns: self.columns_of(rows)?, ..Progress::default() };
        while let Some(row) = rows.next()? {
            progress.read_bytes += row.size_bytes;
            progress.stopped = match () {
                () if begun.elapsed() > MAX_TIME => Some("time"),
                () if progress.read_bytes > MAX_BYTES => Some("bytes"),
                () => None,
            };
            if progress.stopped.is_none() {
                self.take(row, rows.unit(), &mut progress)?;
            }
            if progress.stopped.is_some() {
                break;
            }
        }
        let mut result = json!({
            "columns": progress.columns,
            "rows": progress.rows,
            "n_read": progress.n_read,
            "n_matched": progress.n_matched,
            "more": progress.stopped.is_some()
        });
        if let Some(reason) = progress.stopped.filter(|reason| *reason != "limit") {
            result["stopped_by"] = json!(reason);
        }
        Ok(result)
    }

    fn columns_of(&self, rows: &dyn Rows) -> Result<Vec<String>, ToolError> {
        match (&self.columns, rows.columns()) {
            (Some(wanted), Some(known)) => match wanted.iter().position(|name| !known.contains(name)) {
                Some(index) => Err(unknown_column(Pointer::root().join("columns").join(index), known)),
                None => Ok(wanted.clone()),
            },
            (Some(wanted), None) => Ok(wanted.clone()),
            (None, known) => Ok(known.unwrap_or_default().to_vec()),
        }
    }

    /// Counts the row, and keeps it if it is wanted. A row that is one too many is not counted.
    fn take(&self, row: Row, unit: &str, progress: &mut Progress) -> Result<(), ToolError> {
        let Row { fields, line, size_bytes } = row;
        let row = Value::Object(fields);
        let matches = match &self.filter {
            Some(filter) => filter.matches(&row).map_err(|reason| malformed_at(unit, line, &reason))?,
            None => true,
        };
        let is_wanted = matches && progress.n_matched >= self.offset;
        if is_wanted {
            progress.returned_bytes += size_bytes;
            progress.stopped = match () {
                () if progress.rows.len() >= self.limit => Some("limit"),
                () if progress.returned_bytes > MAX_RETURNED_BYTES => Some("bytes"),
                () => None,
            };
            if progress.stopped.is_some() {
                return Ok(());
            }
        }
        progress.n_read += 1;
        progress.n_matched += u64::from(matches);
        if is_wanted {
            let kept = self.project(row, &mut progress.columns);
            progress.rows.push(kept);
        }
        Ok(())
    }

    /// The row with the wanted columns alone. Without a wish, `columns` learns those of this row.
    fn project(&self, row: Value, columns: &mut Vec<String>) -> Value {
        let Value::Object(mut fields) = row else { return row };
        match &self.columns {
            None => {
                for name in fields.keys() {
                    if !columns.contains(name) {
                        columns.push(name.clone());
                    }
                }
                Value::Object(fields)
            }
            Some(wanted) => {
                let kept =
                    wanted.iter().map(|name| (name.clone(), fields.remove(name).unwrap_or(Value::Null)));
                Value::Object(kept.collect())
            }
        }
    }
}

/// The error of a row that cannot be read.
pub(super) fn malformed(line: u64, reason: &str) -> ToolError {
    malformed_at("line", line, reason)
}

fn malformed_at(unit: &str, number: u64, reason: &str) -> ToolError {
    ToolError::Permanent { message: format!("{unit} {number}: {reason}") }
}

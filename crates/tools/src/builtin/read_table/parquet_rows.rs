//! The rows of a Parquet file.
//!
//! Owns where the rows are: row groups, one after the other, and their columns. The library decodes; what a file claims is
//! checked before, so that no file takes more memory than [`pages`] allows, and none makes the library panic.

mod content;
mod footer;
mod leaf;
mod pages;
mod schema;
#[cfg(test)]
mod tests;
mod thrift;
mod values;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value};

use self::leaf::Leaf;
use self::pages::{Bounds, Pages};
use self::schema::{Node, Room};
use super::query::{MAX_TIME, Row, Rows};
use crate::tool::ToolError;

/// What is wrong with a file.
#[derive(Debug)]
struct Malformed(String);

impl Malformed {
    fn new(message: &str) -> Self {
        Self(message.to_owned())
    }

    /// The same, where it is in this column.
    fn in_column(self, name: &str) -> Self {
        Self(format!("column `{name}`: {}", self.0))
    }
}

impl From<std::io::Error> for Malformed {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<ParquetError> for Malformed {
    fn from(error: ParquetError) -> Self {
        Self(match error {
            ParquetError::General(message) => message,
            other => other.to_string(),
        })
    }
}

/// What the library answers. A panic of it is an error of the file.
fn guarded<T>(ask: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Malformed> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Malformed::new("its content contradicts itself")),
    }
}

/// The rows of a file.
pub(super) struct ParquetRows {
    file: Arc<File>,
    metadata: ParquetMetaData,
    /// Where the pages end.
    end: u64,
    names: Vec<String>,
    /// The columns that are read.
    columns: Vec<(String, Node)>,
    /// The leaves of the row group, by number; those that are not read are absent.
    leaves: Vec<Option<Leaf>>,
    bounds: Arc<Bounds>,
    next_group: usize,
    left_in_group: u64,
    row: u64,
}

impl ParquetRows {
    /// The rows with these columns, or with all.
    pub(super) fn open(file: File, wanted: Option<&[String]>) -> Result<Self, ToolError> {
        Self::read(file, wanted)
            .map_err(|error| ToolError::Permanent { message: format!("cannot read the table: {}", error.0) })
    }

    fn read(file: File, wanted: Option<&[String]>) -> Result<Self, Malformed> {
        let (metadata, end) = footer::read(&file)?;
        let described = metadata.file_metadata().schema_descr();
        let mut columns = schema::columns_of(described)?;
        let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                return Err(Malformed(format!("two columns are called `{name}`")));
            }
        }
        columns.retain(|(name, _)| wanted.is_none_or(|wanted| wanted.contains(name)));
        Ok(Self {
            file: Arc::new(file),
            metadata,
            end,
            names,
            columns,
            leaves: Vec::new(),
            bounds: Arc::new(Bounds::new()),
            next_group: 0,
            left_in_group: 0,
            row: 0,
        })
    }

    /// Opens the next row group with rows; false if there is none.
    fn open_group(&mut self) -> Result<bool, Malformed> {
        while self.left_in_group == 0 {
            if self.next_group >= self.metadata.num_row_groups() {
                return Ok(false);
            }
            let group = self.metadata.row_group(self.next_group);
            self.next_group += 1;
            self.left_in_group = u64::try_from(group.num_rows())
                .map_err(|_| Malformed::new("a row group has less than no rows"))?;
            self.leaves.clear();
            self.bounds = Arc::new(Bounds::new());
            let described = self.metadata.file_metadata().schema_descr();
            if group.num_columns() != described.num_columns() {
                return Err(Malformed::new("a row group has other columns than the schema"));
            }
            self.leaves.resize_with(described.num_columns(), || None);
            for leaf in self.columns.iter().flat_map(|(_, node)| node.leaves()) {
                let column = group.column(leaf);
                let pages = Pages::open((Arc::clone(&self.file), self.end), column, Arc::clone(&self.bounds));
                let name = described.column(leaf).path().string();
                let pages = pages.map_err(|error| error.in_column(&name))?;
                self.leaves[leaf] = Some(Leaf::open(described.column(leaf), pages)?);
            }
        }
        Ok(true)
    }

    fn read_row(&mut self) -> Result<Option<Row>, Malformed> {
        if !self.open_group()? {
            return Ok(None);
        }
        self.left_in_group -= 1;
        self.row += 1;
        for leaf in self.leaves.iter_mut().flatten() {
            leaf.begin_row()?;
        }
        let mut room = Room::new();
        let mut fields = Map::new();
        for (name, node) in &self.columns {
            room.take(name.len())?;
            let value: Value = node.read(&mut self.leaves, &mut room)?;
            fields.insert(name.clone(), value);
        }
        for leaf in self.leaves.iter().flatten() {
            leaf.end_row()?;
        }
        self.bounds.end_row();
        Ok(Some(Row { fields, line: self.row, size_bytes: room.used() }))
    }
}

impl Rows for ParquetRows {
    fn columns(&self) -> Option<&[String]> {
        Some(&self.names)
    }

    fn unit(&self) -> &'static str {
        "row"
    }

    fn next(&mut self) -> Result<Option<Row>, ToolError> {
        let row = self.row + 1;
        self.read_row().map_err(|error| ToolError::Permanent { message: format!("row {row}: {}", error.0) })
    }
}

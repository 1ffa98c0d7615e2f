//! CSV by RFC 4180, with a header.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use gathering_domain::Pointer;

use super::cells::CellType;
use super::query::{MAX_ROW_BYTES, Row, Rows, malformed};
use super::unknown_column;
use crate::tool::ToolError;

/// The rows of a CSV file.
pub(super) struct CsvRows {
    reader: Reader<Metered>,
    columns: Vec<String>,
    /// By column.
    types: Vec<CellType>,
    record: StringRecord,
    since_row: Rc<Cell<u64>>,
}

/// Fails when one row takes too much, such as one whose quotes are never closed: a row is in memory.
struct Metered {
    file: File,
    since_row: Rc<Cell<u64>>,
}

/// The reader reads ahead, by less than this.
const AHEAD_BYTES: u64 = 64 * 1024;

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_row.get() > MAX_ROW_BYTES + AHEAD_BYTES {
            return Err(io::Error::other(format!(
                "a row is larger than {MAX_ROW_BYTES} bytes: is a quote not closed?"
            )));
        }
        let n_read = self.file.read(buffer)?;
        self.since_row.set(self.since_row.get() + n_read as u64);
        Ok(n_read)
    }
}

impl CsvRows {
    pub(super) fn open(
        file: File,
        delimiter: u8,
        types: &BTreeMap<String, CellType>,
    ) -> Result<Self, ToolError> {
        let since_row = Rc::new(Cell::new(0));
        let metered = Metered { file, since_row: Rc::clone(&since_row) };
        let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(metered);
        let header = reader.headers().map_err(|error| failed(&error))?;
        let columns: Vec<String> = header.iter().map(str::to_owned).collect();
        for (index, column) in columns.iter().enumerate() {
            if columns[..index].contains(column) {
                return Err(malformed(1, &format!("two columns are called `{column}`")));
            }
        }
        if let Some(name) = types.keys().find(|name| !columns.contains(name)) {
            return Err(unknown_column(Pointer::root().join("types").join(name), &columns));
        }
        let types = columns.iter().map(|name| types.get(name).copied().unwrap_or(CellType::String)).collect();
        Ok(Self { reader, columns, types, record: StringRecord::new(), since_row })
    }
}

impl Rows for CsvRows {
    fn columns(&self) -> Option<&[String]> {
        Some(&self.columns)
    }

    fn next(&mut self) -> Result<Option<Row>, ToolError> {
        let before = self.reader.position().byte();
        if !self.reader.read_record(&mut self.record).map_err(|error| failed(&error))? {
            return Ok(None);
        }
        self.since_row.set(0);
        let line = self.record.position().map_or(0, csv::Position::line);
        let mut fields = serde_json::Map::new();
        for ((cell, column), kind) in self.record.iter().zip(&self.columns).zip(&self.types) {
            let value = kind.read(cell).ok_or_else(|| {
                let shown: String = cell.chars().take(64).collect();
                malformed(line, &format!("`{shown}` in column `{column}` is not {}", kind.name()))
            })?;
            fields.insert(column.clone(), value);
        }
        Ok(Some(Row { fields, line, size_bytes: self.reader.position().byte() - before }))
    }
}

fn failed(error: &csv::Error) -> ToolError {
    let line = |position: &Option<csv::Position>| position.as_ref().map_or(1, csv::Position::line);
    match error.kind() {
        ErrorKind::UnequalLengths { pos, expected_len, len } => {
            malformed(line(pos), &format!("the row has {len} cells, and the header has {expected_len}"))
        }
        ErrorKind::Utf8 { pos, .. } => malformed(line(pos), "the row is not UTF-8"),
        _ => ToolError::Permanent { message: format!("cannot read the table: {error}") },
    }
}

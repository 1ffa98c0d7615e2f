//! JSON Lines: one object a line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use serde_json::{Map, Value};

use super::query::{MAX_ROW_BYTES, Row, Rows, malformed};
use crate::tool::ToolError;

/// The rows of a file of JSON Lines. Empty lines are none.
pub(super) struct JsonRows {
    reader: BufReader<File>,
    line: u64,
    bytes: Vec<u8>,
}

impl JsonRows {
    pub(super) fn open(file: File) -> Self {
        Self { reader: BufReader::new(file), line: 0, bytes: Vec::new() }
    }
}

impl Rows for JsonRows {
    fn columns(&self) -> Option<&[String]> {
        None
    }

    fn next(&mut self) -> Result<Option<Row>, ToolError> {
        loop {
            self.bytes.clear();
            self.line += 1;
            let read = self.reader.by_ref().take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut self.bytes);
            let size_bytes = match read {
                Ok(0) => return Ok(None),
                Ok(size) => size as u64,
                Err(error) => return Err(malformed(self.line, &error.to_string())),
            };
            if size_bytes > MAX_ROW_BYTES {
                return Err(malformed(self.line, &format!("the row is larger than {MAX_ROW_BYTES} bytes")));
            }
            if self.bytes.trim_ascii().is_empty() {
                continue;
            }
            let fields: Map<String, Value> = serde_json::from_slice(&self.bytes)
                .map_err(|error| malformed(self.line, &format!("the row is not a JSON object: {error}")))?;
            return Ok(Some(Row { fields, line: self.line, size_bytes }));
        }
    }
}

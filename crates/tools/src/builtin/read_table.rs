//! `read_table`: rows of a CSV, JSON Lines or Parquet file.

mod cells;
mod csv_rows;
mod filter;
mod json_rows;
mod parquet_rows;
mod query;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use gathering_domain::{EffectClass, Pointer, Problems};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{path_schema, problem_at, read_params, spec};
use crate::spec::ToolSpec;
use crate::tool::{Tool, ToolContext, ToolError};
use crate::workspace::WorkspacePath;
use cells::CellType;
use csv_rows::CsvRows;
pub use filter::{RowFilter, RowFilters};
use json_rows::JsonRows;
use parquet_rows::ParquetRows;
use query::{Query, Rows};

/// The most rows of one call, and those by default.
const MAX_ROWS: usize = 1000;
const DEFAULT_ROWS: usize = 100;

/// Reads a table of the workspace, row by row.
#[derive(Debug)]
pub struct ReadTable {
    spec: ToolSpec,
    filters: Option<Arc<dyn RowFilters>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    path: String,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    delimiter: Option<String>,
    #[serde(default)]
    columns: Option<Vec<String>>,
    #[serde(default)]
    types: BTreeMap<String, CellType>,
    #[serde(default, rename = "where")]
    filter: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    offset: u64,
}

/// How the rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv { delimiter: u8 },
    JsonLines,
    Parquet,
}

impl ReadTable {
    /// The tool. `where` is refused without `filters`.
    pub fn new(filters: Option<Arc<dyn RowFilters>>) -> Self {
        let description = "Reads rows of a table of the workspace: CSV with a header (`.csv`, `.tsv`), JSON Lines \
                           (`.jsonl`, `.ndjson`) or Parquet (`.parquet`). Each row is an object. `more` says whether rows are left.";
        Self { spec: spec("read_table", description, EffectClass::Pure, &["path"], properties()), filters }
    }
}

fn properties() -> Value {
    json!({
        "path": path_schema("The file"),
        "format": {"description": "The format; by the file's extension by default.", "enum": ["csv", "jsonl", "parquet"]},
        "delimiter": {
            "description": "CSV: the character between cells; a comma by default, a tab for `.tsv`.",
            "type": "string", "pattern": "^[ -~\t]$"
        },
        "columns": {
            "description": "The columns to return, in this order; all by default.",
            "type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": "string"}
        },
        "types": {
            "description": "CSV: the types of columns. A cell is a string by default. An empty cell of another type is null.",
            "type": "object", "maxProperties": 1000,
            "additionalProperties": {"enum": ["string", "integer", "number", "boolean"]}
        },
        "where": {
            "description": "Returns only rows for which this expression is true, such as `row.country == 'DE'`.",
            "type": "string", "minLength": 1
        },
        "limit": {
            "description": "The maximum number of rows; 100 by default.",
            "type": "integer", "minimum": 1, "maximum": MAX_ROWS
        },
        "offset": {
            "description": "How many of the matching rows to skip; 0 by default.",
            "type": "integer", "minimum": 0
        }
    })
}

#[async_trait]
impl Tool for ReadTable {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn check(&self, params: &Value) -> Problems {
        let mut problems = Problems::new();
        let path = params["path"].as_str();
        let text = |name: &str| params[name].as_str();
        if let Some(Err(found)) = path.map(|path| format_of(path, text("format"), text("delimiter"))) {
            problems.extend(found);
        }
        if let (Some(filters), Some(source)) = (&self.filters, text("where"))
            && let Err(message) = filters.compile(source)
        {
            problems.extend(problem_at("where", message));
        }
        problems
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let params: Params = read_params(params)?;
        let path: WorkspacePath = params.path.parse()?;
        let format = format_of(&params.path, params.format.as_deref(), params.delimiter.as_deref())
            .map_err(ToolError::InvalidParameters)?;
        let query = Query {
            filter: params.filter.as_deref().map(|source| self.compile(source)).transpose()?,
            columns: params.columns,
            limit: params.limit.unwrap_or(DEFAULT_ROWS),
            offset: params.offset,
        };
        let types = params.types;
        if !matches!(format, Format::Csv { .. }) && !types.is_empty() {
            let message = "is for CSV: JSON and Parquet have types";
            return Err(ToolError::InvalidParameters(problem_at("types", message)));
        }
        let read = context.workspace()?.read_long(&path, move |file| {
            let mut rows: Box<dyn Rows> = match format {
                Format::Csv { delimiter } => Box::new(CsvRows::open(file, delimiter, &types)?),
                Format::JsonLines => Box::new(JsonRows::open(file)),
                Format::Parquet => {
                    // A condition may read every column.
                    let wanted = query.columns.as_deref().filter(|_| query.filter.is_none());
                    Box::new(ParquetRows::open(file, wanted)?)
                }
            };
            query.read(&mut *rows)
        });
        read.await?
    }
}

impl ReadTable {
    fn compile(&self, source: &str) -> Result<Box<dyn RowFilter>, ToolError> {
        let filters = self.filters.as_ref().ok_or_else(|| ToolError::NotConfigured {
            message: "this program filters no rows: leave out `where`".to_owned(),
        })?;
        filters.compile(source).map_err(|message| ToolError::InvalidParameters(problem_at("where", message)))
    }
}

/// The format that the parameters name, or that of the file's extension.
fn format_of(path: &str, format: Option<&str>, delimiter: Option<&str>) -> Result<Format, Problems> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let extension = extension.unwrap_or_default();
    let usual = if extension == "tsv" { b'\t' } else { b',' };
    let csv = Format::Csv { delimiter: delimiter.and_then(|text| text.bytes().next()).unwrap_or(usual) };
    match (format, extension.as_str()) {
        (Some("csv"), _) | (None, "csv" | "tsv") => Ok(csv),
        (Some("jsonl" | "parquet"), _) | (None, "jsonl" | "ndjson" | "parquet") if delimiter.is_some() => {
            Err(problem_at("delimiter", "is for CSV"))
        }
        (Some("jsonl"), _) | (None, "jsonl" | "ndjson") => Ok(Format::JsonLines),
        (Some("parquet"), _) | (None, "parquet") => Ok(Format::Parquet),
        _ => Err(problem_at("format", "is required: the extension of `path` does not tell it")),
    }
}

/// The problem of a column that the table does not have.
fn unknown_column(place: Pointer, columns: &[String]) -> ToolError {
    /// More names help nobody.
    const SHOWN: usize = 50;
    let more = if columns.len() > SHOWN { ", …" } else { "" };
    let known = columns.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let message = format!("the table has no such column; its columns are: {known}{more}");
    ToolError::InvalidParameters(Problems::one(place, message))
}

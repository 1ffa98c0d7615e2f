//! Checks a JSON file against a JSON Schema: `check_a_value SCHEMA.json VALUE.json`.

use std::process::ExitCode;

use gathering_schema::JsonSchema;
use serde_json::Value;

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut files = std::env::args().skip(1);
    let (Some(schema), Some(value), None) = (files.next(), files.next(), files.next()) else {
        eprintln!("usage: check_a_value SCHEMA.json VALUE.json");
        return Ok(ExitCode::from(2));
    };
    let read = |path: &str| -> Result<Value, Box<dyn std::error::Error>> {
        let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        Ok(serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?)
    };
    let schema = JsonSchema::compile(&read(&schema)?)?;
    let value = schema.fill(read(&value)?);
    match schema.check(&value) {
        Ok(()) => {
            println!("{value:#}");
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            problems.into_iter().for_each(|problem| eprintln!("{problem}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

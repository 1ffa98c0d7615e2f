//! JSON Schemas that report everything that is wrong with a value, each problem with its JSON pointer.
//!
//! Owns the messages for violations, the bounds of a schema, and what completes a value. Never knows what the value is
//! for, and never follows a reference out of the schema.

mod bounds;
mod defaults;
mod json_schema;
mod known_fields;

pub use json_schema::{InvalidSchema, JsonSchema, MAX_PROBLEMS, MAX_SCHEMA_BYTES};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

//! Bodies and queries, checked against the schema that documents them and then read by serde.
//!
//! A type derives `Deserialize` and utoipa's `ToSchema` (a body) or `IntoParams` (a query). The schema that utoipa
//! makes for the OpenAPI document is compiled once per type and finds every problem, each with its JSON pointer. What
//! no schema can say, [`Input::judge`] adds. serde reads the value only when nothing is wrong with it.

mod schema;
mod words;

use gathering_domain::{Pointer, Problems};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::problem::ProblemDetails;
pub use schema::Compiled;

/// The type of a request body.
pub trait Input: DeserializeOwned + ToSchema + 'static {
    /// Adds the problems that the schema cannot find. The object is as it was sent, and may be invalid otherwise: so
    /// one answer names every problem. A problem of a place that the schema complains about already is dropped.
    fn judge(_object: &Map<String, Value>, _problems: &mut Problems) {}
}

/// Reads a body.
///
/// # Errors
/// 422 with every problem. A 500 if the schema of the type cannot be compiled, which the tests would show.
pub fn read<T: Input>(value: Value) -> Result<T, ProblemDetails> {
    read_checked(value, &*Compiled::of_body::<T>()?, T::judge)
}

/// Reads a value that fits the schema and `judge`.
///
/// # Errors
/// 422 with every problem, in the order of their places.
pub(super) fn read_checked<T: DeserializeOwned>(
    mut value: Value,
    schema: &Compiled,
    judge: impl FnOnce(&Map<String, Value>, &mut Problems),
) -> Result<T, ProblemDetails> {
    let mut problems = schema.check(&value);
    if let Value::Object(object) = &value {
        let mut judged = Problems::new();
        judge(object, &mut judged);
        problems.extend(judged);
    }
    let mut found: Vec<gathering_domain::Problem> = problems.into_iter().collect();
    found.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    found.dedup_by(|next, kept| next.pointer == kept.pointer);
    if !found.is_empty() {
        let mut problems = Problems::new();
        for problem in found {
            problems.add(problem.pointer, problem.message);
        }
        return Err(ProblemDetails::invalid(problems));
    }
    schema.write_whole_numbers(&mut value);
    serde_json::from_value(value)
        .map_err(|error| ProblemDetails::invalid(Problems::one(Pointer::root(), error.to_string())))
}

#[cfg(test)]
mod tests;

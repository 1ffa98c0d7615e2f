//! What a definition says about its runs as a whole: how long one may take, what its input must be, how many may execute
//! at once.

use std::time::Duration;

use gathering_dag_engine::{InputSchema, RunLimits};
use gathering_domain::{PermitRequest, Pointer, Problems};
use serde_json::Value;

use crate::ControlError;

/// What holds for every run of a definition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunRules {
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// What its input must be.
    pub input: Option<InputSchema>,
    /// How many may execute at once, and start in a second.
    pub limits: Option<RunLimits>,
}

/// What the rules make of the input of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// The input that the run gets.
    pub input: Value,
    /// What the run asks for before it starts.
    pub permit: Option<PermitRequest>,
}

impl RunRules {
    /// The rules of a stored definition, or of an object with only its `timeout_seconds`, `input`, `concurrency` and
    /// `rate_limit`. The rest of the definition is not checked again.
    ///
    /// # Errors
    /// What is wrong with the schema or the limits, by the rules of this version.
    pub fn of_definition(definition: &Value) -> Result<Self, Problems> {
        let timeout = definition.get("timeout_seconds").and_then(Value::as_f64);
        Ok(Self {
            timeout: timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            input: InputSchema::of_definition(definition)?,
            limits: RunLimits::of_definition(definition)?,
        })
    }

    /// The input that a run gets: completed by the schema, and checked against it.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its place in the input.
    pub fn complete_input(&self, input: Value) -> Result<Value, Problems> {
        match &self.input {
            Some(schema) => schema.complete(input),
            None => Ok(input),
        }
    }

    /// The input that a run of a pipeline gets, and what the run asks for before it starts.
    ///
    /// # Errors
    /// As [`complete_input`](Self::complete_input); and if the key of the limits has no value for this input.
    pub fn admit(&self, input: Value) -> Result<Admission, Problems> {
        let input = self.complete_input(input)?;
        let permit = self.limits.as_ref().map(|limits| limits.request(&input)).transpose()?;
        Ok(Admission { input, permit })
    }

    /// As [`admit`](Self::admit), on a thread of its own: a large input takes a while.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] with the places below `input`; [`ControlError::Broken`] only if the check panicked.
    pub(crate) async fn admit_request(&self, input: Value) -> Result<Admission, ControlError> {
        if *self == (Self { timeout: self.timeout, ..Self::default() }) {
            return Ok(Admission { input, permit: None });
        }
        let rules = self.clone();
        let admitted = tokio::task::spawn_blocking(move || rules.admit(input)).await;
        let admitted = admitted.map_err(|panicked| ControlError::Broken(panicked.into()))?;
        admitted.map_err(|problems| ControlError::Invalid(below_input(problems)))
    }

    /// As [`complete_input`](Self::complete_input), on a thread of its own: a large input takes a while.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] with the places below `input`; [`ControlError::Broken`] only if the check panicked.
    pub(crate) async fn complete_input_of_request(&self, input: Value) -> Result<Value, ControlError> {
        let Some(schema) = self.input.clone() else { return Ok(input) };
        let completed = tokio::task::spawn_blocking(move || schema.complete(input)).await;
        let completed = completed.map_err(|panicked| ControlError::Broken(panicked.into()))?;
        completed.map_err(|problems| ControlError::Invalid(below_input(problems)))
    }
}

/// The problems of an input as those of what has it as its field `input`.
pub(crate) fn below_input(problems: Problems) -> Problems {
    problems.below(&Pointer::root().join("input"))
}

#[cfg(test)]
mod tests {
    use gathering_dag_engine::NodeSpecs;
    use serde_json::json;

    use super::*;
    use crate::GraphSummary;

    #[test]
    fn the_rules_of_a_stored_definition_are_those_of_its_graph() {
        for (timeout, schema) in [(Some(1.5), None), (None, Some(json!({"required": ["a"]})))] {
            let mut definition = json!({"nodes": [{"id": "a", "type": "trigger"}]});
            if let Some(timeout) = timeout {
                definition["timeout_seconds"] = json!(timeout);
            }
            if let Some(schema) = schema {
                definition["input"] = json!({ "schema": schema });
            }
            let rules = RunRules::of_definition(&definition).unwrap();
            assert_eq!(rules, GraphSummary::read(&definition, &NodeSpecs::builtin()).unwrap().rules);
            assert_eq!(rules.timeout, timeout.map(Duration::from_secs_f64));
        }
        assert_eq!(
            RunRules::of_definition(&json!({"timeout_seconds": null, "input": null})).unwrap(),
            RunRules::default()
        );
    }

    #[tokio::test]
    async fn the_problems_of_a_request_are_below_its_input() {
        let schema = json!({"schema": {"required": ["a"], "properties": {"b": {"type": "string"}}}});
        let rules = RunRules::of_definition(&json!({ "input": schema })).unwrap();
        let error = rules.complete_input_of_request(json!({"b": 1})).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the request is invalid: /input/a: is required; /input/b: must be of type string"
        );
    }
}

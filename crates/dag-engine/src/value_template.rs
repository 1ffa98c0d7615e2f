//! Values with expressions in them, outside of runs: what a call from outside brings becomes an input or an event.

use gathering_domain::{Pointer, Problems};
use serde_json::Value;

use crate::expression::OutsideRuns;
use crate::template::Template;

/// A JSON value in which some strings are computed out of named values that are not of a run.
#[derive(Debug)]
pub struct ValueTemplate(Template);

impl ValueTemplate {
    /// Reads a value whose expressions are over these names; problems are added at their place below `at`.
    pub fn compile(
        value: &Value,
        names: &'static [&'static str],
        at: &Pointer,
        problems: &mut Problems,
    ) -> Self {
        Self(Template::value(value, Some(names), at, problems))
    }

    /// Its value over named values: those for whose names it was compiled.
    ///
    /// # Errors
    /// The place below `at` and the reason, if an expression has no value there, or the values are too large.
    pub fn resolve(&self, values: &[(&str, &Value)], at: &Pointer) -> Result<Value, String> {
        let resolved = self.0.resolve(&OutsideRuns(values));
        resolved.map(|resolved| resolved.value).map_err(|error| error.failure_at(at).message)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_may_be_over_names_that_are_not_of_a_run() {
        const NAMES: &[&str] = &["body", "headers"];
        let (mut problems, at) = (Problems::new(), Pointer::root().join("map"));
        let value =
            json!({"n": "${{ body.n + 1 }}", "text": "by ${{ headers.from }}", "run": ["${{ input.n }}"]});
        ValueTemplate::compile(&value, NAMES, &at, &mut problems);
        let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["/map/run/0: there is no variable `input`: in scope are `body` and `headers`"]);
        let value = json!({"n": "${{ body.n + 1 }}", "text": ["by ${{ headers.from }}"]});
        let template = ValueTemplate::compile(&value, NAMES, &at, &mut Problems::new());
        let (body, headers) = (json!({"n": 1}), json!({"from": "ada"}));
        let resolved = template.resolve(&[("body", &body), ("headers", &headers)], &at);
        assert_eq!(resolved.unwrap(), json!({"n": 2, "text": ["by ada"]}));
        let missing = template.resolve(&[("body", &body), ("headers", &json!({}))], &at).unwrap_err();
        assert!(missing.starts_with("/map/text/0: "), "{missing}");
    }
}

//! The value of a config: its expressions evaluated in a scope, its references to secrets noted.

use gathering_domain::{FailureKind, Pointer};
use serde_json::{Map, Value};

use super::{Part, Template};
use crate::expression::{EvaluationError, Expression, Scope};
use crate::journal::NodeFailure;
use crate::secret_slots::{SecretSegment, SecretSlots, reference_to};
use crate::values::{Room, ValueLimit, ValueRole};

/// The value of a config.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The value, in which secrets stand as they are written.
    pub value: Value,
    /// Where they stand.
    pub secrets: SecretSlots,
}

/// Why a config has no value.
#[derive(Debug)]
pub struct NoConfig {
    /// The names and indexes that lead to the string, the innermost first.
    path: Vec<String>,
    reason: NoValue,
}

/// Why a string of a config has no value.
#[derive(Debug, thiserror::Error)]
enum NoValue {
    /// An expression in it has none.
    #[error(transparent)]
    Expression(#[from] EvaluationError),
    /// The computed values of the config are too deep or too large.
    #[error("the computed config {0}")]
    Limit(#[from] ValueLimit),
}

impl NoConfig {
    /// The failure of a node whose config is at `at` in the definition; it names the place of the string.
    pub fn failure_at(&self, at: &Pointer) -> NodeFailure {
        let kind = match &self.reason {
            NoValue::Expression(_) => FailureKind::Expression,
            NoValue::Limit(limit) => limit.kind(ValueRole::Config),
        };
        let place = self.path.iter().rev().fold(at.clone(), |place, name| place.join(name));
        NodeFailure::permanent(kind, format!("{place}: {}", self.reason))
    }

    fn below(mut self, name: impl ToString) -> Self {
        self.path.push(name.to_string());
        self
    }
}

impl<E: Into<NoValue>> From<E> for NoConfig {
    fn from(error: E) -> Self {
        Self { path: Vec::new(), reason: error.into() }
    }
}

impl Template {
    /// The config's value in this scope.
    ///
    /// # Errors
    /// [`NoConfig`] if an expression has no value there, or the values are too large.
    pub fn resolve(&self, scope: &dyn Scope) -> Result<Resolved, NoConfig> {
        let mut resolving = Resolving { scope, room: Room::default(), secrets: SecretSlots::default() };
        let value = resolving.value_of(self)?;
        Ok(Resolved { value, secrets: resolving.secrets })
    }
}

/// A config on its way to its value.
struct Resolving<'a> {
    scope: &'a dyn Scope,
    /// What computed values count against, because an expression of ten bytes may have a value of megabytes.
    room: Room,
    secrets: SecretSlots,
}

impl Resolving<'_> {
    fn value_of(&mut self, template: &Template) -> Result<Value, NoConfig> {
        Ok(match template {
            Template::Literal(value) => value.clone(),
            Template::Whole(expression) => self.computed(expression)?,
            Template::Text(parts) => Value::String(self.text_of(parts)?),
            Template::Array(items) => {
                let items = items.iter().enumerate().map(|(index, item)| self.below(index, item));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Template::Object(fields) => {
                let mut object = Map::new();
                for (name, value) in fields {
                    object.insert(name.clone(), self.below(name, value)?);
                }
                Value::Object(object)
            }
        })
    }

    fn below(&mut self, name: impl ToString, template: &Template) -> Result<Value, NoConfig> {
        let n_before = self.secrets.len();
        let value = self.value_of(template).map_err(|error| error.below(name.to_string()))?;
        if self.secrets.len() > n_before {
            self.secrets.place_below(n_before, name);
        }
        Ok(value)
    }

    fn computed(&mut self, expression: &Expression) -> Result<Value, NoConfig> {
        let value = expression.evaluate(self.scope)?;
        self.room.take(&value)?;
        Ok(value)
    }

    fn text_of(&mut self, parts: &[Part]) -> Result<String, NoConfig> {
        let mut text = String::new();
        let mut segments = Vec::new();
        // The start of the text that is in no segment yet.
        let mut rest = 0;
        for part in parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Computed(expression) => match self.computed(expression)? {
                    Value::Null => {}
                    Value::String(value) => text.push_str(&value),
                    value => text.push_str(&value.to_string()),
                },
                Part::Secret(name) => {
                    segments.push(SecretSegment::Text(text[rest..].to_owned()));
                    segments.push(SecretSegment::Secret(name.clone()));
                    text.push_str(&reference_to(name));
                    rest = text.len();
                }
            }
        }
        if !segments.is_empty() {
            segments.push(SecretSegment::Text(text[rest..].to_owned()));
            self.secrets.push(segments);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use gathering_domain::{Problems, SecretName};
    use serde_json::json;

    use super::*;
    use crate::expression::tests::scope;
    use crate::template::SpecialFields;

    #[test]
    fn a_reference_to_a_secret_stays_as_written_and_its_place_is_noted() {
        let config = json!({
            "lone": "${{secrets.A}}",
            "deep": [{"x/y": "n=${{ input.n }} ${{ secrets.B }}:${{ secrets.A }}!"}, "${{ input.n }}"],
            "fake": "${{ '$' + '{{ secrets.A }}' }} $${{ secrets.A }}",
        });
        let mut problems = Problems::new();
        let template = Template::compile(&config, SpecialFields::default(), &Pointer::root(), &mut problems);
        assert!(problems.is_empty(), "{problems}");
        let Resolved { mut value, secrets } = template.resolve(&scope()).unwrap();
        let looks_like_one = "${{ secrets.A }} ${{ secrets.A }}";
        let shown = "n=41 ${{ secrets.B }}:${{ secrets.A }}!";
        let written =
            json!({"lone": "${{ secrets.A }}", "deep": [{"x/y": shown}, 41], "fake": looks_like_one});
        assert_eq!(value, written);
        assert_eq!(secrets.names(), ["A", "B"].map(|name| name.parse().unwrap()).into());
        let value_of = |name: &SecretName| Some(if name.as_str() == "A" { "${{ secrets.B }}" } else { "b" });
        secrets.reveal_in(&mut value, value_of).unwrap();
        let revealed = json!({
            "lone": "${{ secrets.B }}", "deep": [{"x/y": "n=41 b:${{ secrets.B }}!"}, 41], "fake": looks_like_one
        });
        assert_eq!(value, revealed, "no text but the reference itself is replaced, and no value twice");
        assert_eq!(secrets.reveal_in(&mut value, |_| None).unwrap_err().as_str(), "A");
    }
}

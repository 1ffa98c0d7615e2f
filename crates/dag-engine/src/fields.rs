//! Reading an object of a definition field by field, so that everything wrong with it is found in one go.

use std::time::Duration;

use gathering_domain::{Pointer, Problems};
use serde_json::{Map, Value};

use crate::template::is_computed;

/// An object that is being checked. In a config, strings that hold `${{ }}` pass every check of a type, as their value
/// comes later.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    at: Pointer,
    problems: &'a mut Problems,
    known: Vec<&'static str>,
    may_be_computed: bool,
}

/// What a field must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Any JSON value.
    Any,
    /// A string with something in it.
    Text,
    /// `true` or `false`.
    Bool,
    /// A number in this range.
    Number(f64, f64),
    /// A whole number in this range.
    Whole(u64, u64),
    /// An object.
    Object,
    /// An object whose values are strings, numbers or booleans.
    FlatObject,
    /// An array.
    Array,
    /// A string with something in it, or a list of strings.
    Texts,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl Shape {
    fn describe(self) -> String {
        match self {
            Shape::Any => "present".to_owned(),
            Shape::Text => "a string that is not empty".to_owned(),
            Shape::Bool => "true or false".to_owned(),
            Shape::Number(low, high) => format!("a number from {low} to {high}"),
            Shape::Whole(low, high) => format!("a whole number from {low} to {high}"),
            Shape::Object => "an object".to_owned(),
            Shape::FlatObject => "an object of strings, numbers or booleans".to_owned(),
            Shape::Array => "a list".to_owned(),
            Shape::Texts => "a string that is not empty, or a list of strings".to_owned(),
            Shape::OneOf(words) => format!("one of {}", words.join(", ")),
        }
    }

    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Shape::Any, _)
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Object, Value::Object(_))
            | (Shape::Array, Value::Array(_)) => true,
            (Shape::Texts, Value::Array(items)) => items.iter().all(Value::is_string),
            (Shape::Text | Shape::Texts, Value::String(text)) => !text.trim().is_empty(),
            (Shape::OneOf(words), Value::String(text)) => words.contains(&text.as_str()),
            (Shape::Number(low, high), Value::Number(number)) => {
                number.as_f64().is_some_and(|number| (low..=high).contains(&number))
            }
            (Shape::Whole(low, high), Value::Number(number)) => {
                number.as_u64().is_some_and(|number| (low..=high).contains(&number))
            }
            (Shape::FlatObject, Value::Object(fields)) => fields
                .values()
                .all(|value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))),
            _ => false,
        }
    }
}

impl<'a> Fields<'a> {
    /// Begins to check `value`, which must be an object.
    pub fn of(value: &'a Value, at: Pointer, problems: &'a mut Problems) -> Option<Self> {
        Self::begin(value, at, problems, false)
    }

    /// Begins to check the config of a node, where every value may be computed.
    pub fn of_config(value: &'a Value, at: Pointer, problems: &'a mut Problems) -> Option<Self> {
        Self::begin(value, at, problems, true)
    }

    fn begin(
        value: &'a Value,
        at: Pointer,
        problems: &'a mut Problems,
        may_be_computed: bool,
    ) -> Option<Self> {
        match value {
            Value::Object(object) => Some(Self { object, at, problems, known: Vec::new(), may_be_computed }),
            _ => {
                problems.add(at, "must be an object");
                None
            }
        }
    }

    /// A field that must be there, if it is and fits. `null` counts as absent, unless any value will do.
    pub fn required(&mut self, name: &'static str, shape: Shape) -> Option<&'a Value> {
        let is_there = self.object.get(name).is_some_and(|value| shape == Shape::Any || !value.is_null());
        if !is_there {
            self.known.push(name);
            self.problems.add(self.at.join(name), format!("is missing: it must be {}", shape.describe()));
            return None;
        }
        self.optional(name, shape)
    }

    /// A field that may be absent, if it is there and fits. `null` counts as absent.
    pub fn optional(&mut self, name: &'static str, shape: Shape) -> Option<&'a Value> {
        self.known.push(name);
        let value = self.object.get(name).filter(|value| shape == Shape::Any || !value.is_null())?;
        let computed = self.may_be_computed && value.as_str().is_some_and(is_computed);
        if computed || shape.fits(value) {
            Some(value)
        } else {
            self.problems.add(self.at.join(name), format!("must be {}", shape.describe()));
            None
        }
    }

    /// An optional duration in seconds, up to ten years.
    pub fn optional_seconds(&mut self, name: &'static str) -> Option<Duration> {
        let seconds = self.optional(name, Shape::Number(0.001, 315_360_000.0))?.as_f64()?;
        Some(Duration::from_secs_f64(seconds))
    }

    /// An optional duration in milliseconds, up to a day.
    pub fn optional_milliseconds(&mut self, name: &'static str) -> Option<Duration> {
        self.optional(name, Shape::Whole(0, 86_400_000))?.as_u64().map(Duration::from_millis)
    }

    /// Whether the object has this field, fitting or not. `null` counts as absent.
    pub fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    /// Adds a problem of one of the fields.
    pub fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.problems.add(self.at.join(name), message);
    }

    /// The place of the object.
    pub const fn at(&self) -> &Pointer {
        &self.at
    }

    /// The place of one of the fields.
    pub fn place(&self, name: &str) -> Pointer {
        self.at.join(name)
    }

    /// Where problems go that a field's own reader finds.
    pub fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// Ends the check: an unknown field is a problem, since it is most likely a misspelt one.
    pub fn finish(self) {
        for name in self.object.keys() {
            if !self.known.contains(&name.as_str()) {
                let known = self.known.join(", ");
                let message = if known.is_empty() {
                    "is not known here: no field is".to_owned()
                } else {
                    format!("is not known here: the fields are {known}")
                };
                self.problems.add(self.at.join(name), message);
            }
        }
    }
}

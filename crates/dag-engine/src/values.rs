//! How deep and how large a value may be that is stored or handed on: the output of a node or a run, the result of an
//! effect, the input of a run.
//!
//! What is written must be read again, and the parser of JSON stops at 128 levels; a value that is far deeper overflows
//! the stack when it is dropped. So the check itself does not recurse, and stops at the bound.

use std::fmt::Write;

use gathering_domain::FailureKind;
use serde_json::Value;

use crate::journal::NodeFailure;

/// How deep the objects and lists of a value may be nested. What is stored around it has a few levels of its own.
pub const MAX_VALUE_DEPTH: usize = 100;

/// How large a value may be: this many bytes when written as JSON without spaces.
pub const MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;

/// Why a value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueLimit {
    /// See [`MAX_VALUE_DEPTH`].
    #[error("is nested more than {MAX_VALUE_DEPTH} levels deep")]
    TooDeep,
    /// See [`MAX_VALUE_BYTES`].
    #[error("has more than {MAX_VALUE_BYTES} bytes when written as JSON")]
    TooLarge,
}

/// What a value is to its node or run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueRole {
    /// The computed config of a node.
    Config,
    /// The input of a child run.
    Input,
    /// The output of a node or a run, or the result of an effect.
    Output,
}

impl ValueLimit {
    /// The kind of the failure of a node or run with such a value.
    pub const fn kind(self, role: ValueRole) -> FailureKind {
        match (role, self) {
            (ValueRole::Config, ValueLimit::TooDeep) => FailureKind::ConfigTooDeep,
            (ValueRole::Config, ValueLimit::TooLarge) => FailureKind::ConfigTooLarge,
            (ValueRole::Input, ValueLimit::TooDeep) => FailureKind::InputTooDeep,
            (ValueRole::Input, ValueLimit::TooLarge) => FailureKind::InputTooLarge,
            (ValueRole::Output, ValueLimit::TooDeep) => FailureKind::OutputTooDeep,
            (ValueRole::Output, ValueLimit::TooLarge) => FailureKind::OutputTooLarge,
        }
    }

    pub(crate) fn of_output(self) -> NodeFailure {
        NodeFailure::permanent(self.kind(ValueRole::Output), format!("its output {self}"))
    }
}

/// Checks a value that is to be stored or handed on.
///
/// # Errors
/// [`ValueLimit`]: the first limit that it was found to be beyond.
pub fn check_value(value: &Value) -> Result<(), ValueLimit> {
    Room::default().take(value)
}

/// About how many bytes a value has that was [checked](check_value).
pub(crate) fn size_of(value: &Value) -> usize {
    let mut room = Room::default();
    room.take(value).map_or(MAX_VALUE_BYTES, |()| MAX_VALUE_BYTES - room.0)
}

/// What is left of the largest size, where a value is put together out of others: each is counted before it is copied.
#[derive(Debug)]
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MAX_VALUE_BYTES)
    }
}

impl Room {
    /// Counts a value.
    pub(crate) fn take(&mut self, value: &Value) -> Result<(), ValueLimit> {
        let mut open: Vec<Open<'_>> = Vec::new();
        let mut next = Some(value);
        loop {
            match next {
                Some(Value::Array(items)) => open.push(Open::Items(items.iter())),
                Some(Value::Object(fields)) => open.push(Open::Fields(fields.iter())),
                Some(Value::String(text)) => self.spend(written(text))?,
                Some(Value::Number(number)) => {
                    let mut length = Length(0);
                    // Counting does not fail.
                    let _infallible = write!(length, "{number}");
                    self.spend(length.0)?;
                }
                Some(Value::Null | Value::Bool(true)) => self.spend(4)?,
                Some(Value::Bool(false)) => self.spend(5)?,
                None => {}
            }
            if open.len() > MAX_VALUE_DEPTH {
                return Err(ValueLimit::TooDeep);
            }
            let Some(innermost) = open.last_mut() else { return Ok(()) };
            // The bracket that closes it, or the comma behind what comes.
            self.spend(1)?;
            next = match innermost {
                Open::Items(items) => items.next(),
                Open::Fields(fields) => match fields.next() {
                    Some((name, value)) => {
                        self.spend(written(name) + 1)?;
                        Some(value)
                    }
                    None => None,
                },
            };
            if next.is_none() {
                open.pop();
                self.spend(1)?;
            }
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ValueLimit> {
        self.0 = self.0.checked_sub(bytes).ok_or(ValueLimit::TooLarge)?;
        Ok(())
    }
}

/// A list or an object of which something is still to be counted.
enum Open<'a> {
    Items(std::slice::Iter<'a, Value>),
    Fields(serde_json::map::Iter<'a>),
}

/// How many bytes a text has between its quotes and with them.
fn written(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        byte if byte < 0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum::<usize>() + 2
}

struct Length(usize);

impl std::fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(
            json!(1),
            |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) },
        )
    }

    #[test]
    fn a_value_is_taken_up_to_the_depth_that_can_be_read_again() {
        assert_eq!(check_value(&nested(MAX_VALUE_DEPTH)), Ok(()));
        assert_eq!(check_value(&nested(MAX_VALUE_DEPTH + 1)), Err(ValueLimit::TooDeep));
        let text = json!({ "items": [{ "payload": { "output": nested(MAX_VALUE_DEPTH) } }] }).to_string();
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }

    #[test]
    fn the_depth_is_found_without_recursion() {
        // Far deeper than a stack; dropping it would recurse, so it is taken apart level by level.
        let mut deep = nested(0);
        for _ in 0..200_000 {
            deep = Value::Array(vec![deep]);
        }
        assert_eq!(check_value(&deep), Err(ValueLimit::TooDeep));
        while let Value::Array(mut items) = deep {
            deep = items.pop().unwrap_or_default();
        }
    }

    #[test]
    fn the_size_is_about_that_of_the_written_value() {
        for value in [
            json!(null),
            json!([]),
            json!({}),
            json!([true, false, 1, -20, 1.5, 1e300, "a\"b\\\n\u{1}ü"]),
            json!({"a": {"b": [1, 2, 3]}, "c": ["x", "y"]}),
        ] {
            let mut room = Room::default();
            room.take(&value).unwrap();
            let (counted, written) = (MAX_VALUE_BYTES - room.0, value.to_string().len());
            assert!(counted >= written && counted <= 2 * written + 2, "{counted} for {value}");
        }
        assert_eq!(check_value(&json!("x".repeat(MAX_VALUE_BYTES - 2))), Ok(()));
        assert_eq!(check_value(&json!("x".repeat(MAX_VALUE_BYTES - 1))), Err(ValueLimit::TooLarge));
        assert_eq!(check_value(&json!(vec![1; MAX_VALUE_BYTES])), Err(ValueLimit::TooLarge));
    }
}

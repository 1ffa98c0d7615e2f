//! Where the config of an attempt refers to secrets of its project.
//!
//! The engine never has a secret's value. It hands the executor the config with the references as they were written, and
//! this list of their places, which comes from the definition alone. So a text that only looks like a reference, from an
//! input or another node, is text and stays it.

use std::collections::BTreeSet;

use gathering_domain::{Pointer, SecretName};
use serde_json::Value;

/// A piece of a string that refers to secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSegment {
    /// Text, with its expressions evaluated.
    Text(String),
    /// The value of this secret.
    Secret(SecretName),
}

/// A string of a config that refers to secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSlot {
    /// The names and indexes that lead to the string, the innermost first.
    path: Vec<String>,
    segments: Vec<SecretSegment>,
}

/// The strings of a config that refer to secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretSlots(Vec<SecretSlot>);

impl SecretSlots {
    /// Whether nothing refers to a secret.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secrets that are referred to, each once.
    pub fn names(&self) -> BTreeSet<SecretName> {
        let segments = self.0.iter().flat_map(|slot| &slot.segments);
        segments
            .filter_map(|segment| match segment {
                SecretSegment::Secret(name) => Some(name.clone()),
                SecretSegment::Text(_) => None,
            })
            .collect()
    }

    /// Writes the values of the secrets into `config`, a copy of the attempt's that nothing records.
    ///
    /// # Errors
    /// The first secret that `value_of` does not know; `config` is then written in part.
    pub fn reveal_in<'v>(
        &self,
        config: &mut Value,
        value_of: impl Fn(&SecretName) -> Option<&'v str>,
    ) -> Result<(), SecretName> {
        for SecretSlot { path, segments } in &self.0 {
            let mut text = String::new();
            for segment in segments {
                match segment {
                    SecretSegment::Text(literal) => text.push_str(literal),
                    SecretSegment::Secret(name) => {
                        text.push_str(value_of(name).ok_or_else(|| name.clone())?);
                    }
                }
            }
            let place = path.iter().rev().fold(Pointer::root(), |place, name| place.join(name));
            if let Some(string) = config.pointer_mut(place.as_str()) {
                *string = Value::String(text);
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds the string that is being looked at.
    pub(crate) fn push(&mut self, segments: Vec<SecretSegment>) {
        self.0.push(SecretSlot { path: Vec::new(), segments });
    }

    /// Notes that what was added after the first `n_before` stands below `name`.
    pub(crate) fn place_below(&mut self, n_before: usize, name: impl ToString) {
        for slot in &mut self.0[n_before..] {
            slot.path.push(name.to_string());
        }
    }
}

/// The name in `secrets.NAME`, if that is the whole source of an expression; an error if it is no name.
pub(crate) fn reference_of(source: &str) -> Option<Result<SecretName, String>> {
    let name = source.trim().strip_prefix("secrets.")?;
    // Anything else is an expression over secrets, which the expression's own check refuses.
    let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word.then(|| name.parse().map_err(|error| format!("not a secret: {error}")))
}

/// A reference as it is written and recorded.
pub(crate) fn reference_to(name: &SecretName) -> String {
    format!("${{{{ secrets.{name} }}}}")
}

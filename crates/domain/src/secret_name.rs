//! The names of a project's secrets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
const MAX_BYTES: usize = 64;

/// The name of a secret: a letter or `_`, then letters, digits and `_`; at most 64 in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// A text that cannot name a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a secret is a letter or `_`, then letters, digits and `_`: at most {MAX_BYTES} in all")]
pub struct InvalidSecretName;

impl SecretName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = InvalidSecretName;

    fn from_str(text: &str) -> Result<Self, InvalidSecretName> {
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if starts_well && text.len() <= MAX_BYTES && text.bytes().all(is_inside) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSecretName)
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = InvalidSecretName;

    fn try_from(text: String) -> Result<Self, InvalidSecretName> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_identifier_of_bounded_length() {
        for name in ["A", "_", "api_key", "TOKEN_2", &"x".repeat(64)] {
            assert_eq!(name.parse::<SecretName>().map(String::from).as_deref(), Ok(name));
        }
        for text in ["", "2A", "A-B", "A B", "A.B", "Ä", "A\n", &"x".repeat(65)] {
            assert_eq!(text.parse::<SecretName>(), Err(InvalidSecretName), "{text}");
        }
    }
}

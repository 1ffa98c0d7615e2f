//! Idempotency keys: what makes two requests to create something the same.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::Digest;

/// The longest key, in bytes.
const MAX_KEY_LEN: usize = 255;

/// A client's name for one request to create something: what it creates is created once, however often the request is
/// sent.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// A text that is not an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {MAX_KEY_LEN} visible ASCII characters")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The key as the client sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let is_visible = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if is_visible && (1..=MAX_KEY_LEN).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidIdempotencyKey)
        }
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A request that is to take effect once: the client's key, and the digest of everything that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The client's key.
    pub key: IdempotencyKey,
    /// The digest of what the request is about and of its body.
    pub digest: Digest,
}

/// A key, and the digest of the body that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedBody {
    key: IdempotencyKey,
    body: Digest,
}

impl KeyedBody {
    /// The key, with the body as the client sent it: read, but not interpreted.
    pub fn new(key: IdempotencyKey, body: &Value) -> Self {
        Self { key, body: Digest::of_json(body) }
    }

    /// The request that this is, sent to what `about` names: the same key and body mean another request elsewhere.
    pub fn about(&self, about: &Value) -> Once {
        let whole = json!([about, self.body.to_string()]);
        Once { key: self.key.clone(), digest: Digest::of_json(&whole) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_visible_text() {
        assert!("a-1 b".parse::<IdempotencyKey>().is_ok());
        assert!("x".repeat(255).parse::<IdempotencyKey>().is_ok());
        for wrong in ["", "a\nb", "ä", &"x".repeat(256)] {
            assert_eq!(wrong.parse::<IdempotencyKey>(), Err(InvalidIdempotencyKey), "{wrong:?}");
        }
    }

    #[test]
    fn requests_are_the_same_if_they_say_the_same_about_the_same_thing() {
        let key: IdempotencyKey = "k".parse().unwrap();
        let digest = |about: Value, body: Value| KeyedBody::new(key.clone(), &body).about(&about).digest;
        let first = digest(json!({"pipeline_id": 1}), json!({"a": 1, "b": 2}));
        assert_eq!(first, digest(json!({"pipeline_id": 1}), json!({"b": 2, "a": 1})));
        assert_ne!(first, digest(json!({"pipeline_id": 2}), json!({"a": 1, "b": 2})));
        assert_ne!(first, digest(json!({"pipeline_id": 1}), json!({"a": 1})));
    }
}

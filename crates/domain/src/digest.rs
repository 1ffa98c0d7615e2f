//! Digests that address content.

use std::fmt;
use std::str::FromStr;

/// The BLAKE3 digest of some content. Equal content has equal digests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digests these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digests a JSON value. The order of its keys does not matter.
    pub fn of_json(value: &serde_json::Value) -> Self {
        let mut canonical = value.clone();
        canonical.sort_all_objects();
        Self::of(canonical.to_string().as_bytes())
    }

    /// The digest as the database stores it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl FromStr for Digest {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_change_the_digest() {
        let one = Digest::of_json(&json!({"a": {"x": 1, "y": 2}, "b": [1, 2]}));
        let other = Digest::of_json(&json!({"b": [1, 2], "a": {"y": 2, "x": 1}}));
        assert_eq!(one, other);
        assert_ne!(one, Digest::of_json(&json!({"a": {"x": 1, "y": 2}, "b": [2, 1]})));
    }

    #[test]
    fn a_digest_survives_its_text_form() {
        let digest = Digest::of(b"gathering");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    }
}

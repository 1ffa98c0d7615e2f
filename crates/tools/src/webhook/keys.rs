//! The keys of webhooks, and the file that names them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// How the text of a key begins.
const PREFIX: &str = "whsec_";
/// The shortest key that the specification recommends, in bytes.
const LEAST_BYTES: usize = 24;
/// The longest one.
const MOST_BYTES: usize = 64;
/// The longest name of a key, in bytes.
const MAX_NAME_LEN: usize = 64;

/// A symmetric key: 24 to 64 bytes, written as `whsec_` and Base64. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookKey(Box<[u8]>);

/// A text that is not a key. The message does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is `whsec_` followed by the Base64 of {LEAST_BYTES} to {MOST_BYTES} bytes")]
pub struct InvalidWebhookKey;

impl WebhookKey {
    pub(super) const fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for WebhookKey {
    type Err = InvalidWebhookKey;

    fn from_str(text: &str) -> Result<Self, InvalidWebhookKey> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(InvalidWebhookKey)?;
        let bytes = BASE64.decode(encoded).map_err(|_| InvalidWebhookKey)?;
        if (LEAST_BYTES..=MOST_BYTES).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(InvalidWebhookKey)
        }
    }
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKey(..)")
    }
}

/// Keys by name. A name has several keys while one replaces another: each of them signs, and each verifies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookKeys(BTreeMap<String, Vec<WebhookKey>>);

/// A line that is not `name = whsec_...`. The message does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: write `name = whsec_...`; a name has 1 to {MAX_NAME_LEN} letters, digits, `_`, `-` or `.`, and {InvalidWebhookKey}"
)]
pub struct InvalidWebhookKeys {
    /// The line, from 1.
    pub line: usize,
}

impl WebhookKeys {
    /// The keys of this name, in the order in which they were written.
    pub fn find(&self, name: &str) -> Option<&[WebhookKey]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

impl FromStr for WebhookKeys {
    type Err = InvalidWebhookKeys;

    /// Reads lines of `name = whsec_...`. Blank lines and lines that begin with `#` mean nothing.
    fn from_str(text: &str) -> Result<Self, InvalidWebhookKeys> {
        let mut keys: BTreeMap<String, Vec<WebhookKey>> = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = InvalidWebhookKeys { line: at + 1 };
            let (name, key) = line.split_once('=').ok_or(wrong)?;
            let name = name.trim();
            if !is_name(name) {
                return Err(wrong);
            }
            keys.entry(name.to_owned()).or_default().push(key.parse().map_err(|_| wrong)?);
        }
        Ok(Self(keys))
    }
}

fn is_name(name: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(is_inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8, n_bytes: usize) -> String {
        format!("{PREFIX}{}", BASE64.encode(vec![byte; n_bytes]))
    }

    #[test]
    fn a_name_may_have_several_keys() {
        let text =
            format!("# shop\n\nshop = {}\nshop={}\n other.1 = {}\n", key(1, 24), key(2, 64), key(3, 32));
        let keys: WebhookKeys = text.parse().unwrap();
        let found = |name| keys.find(name).unwrap().iter().map(|key| key.bytes()[0]).collect::<Vec<_>>();
        assert_eq!(found("shop"), [1, 2]);
        assert_eq!(found("other.1"), [3]);
        assert!(keys.find("unknown").is_none());
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_not_shown() {
        let hidden = key(7, 23);
        for bad in [
            "shop",
            "= whsec_x",
            "a b = x",
            &format!("shop = {hidden}"),
            &format!("shop = {}", key(7, 65)),
            &format!("shop = {}", key(7, 32).trim_start_matches(PREFIX)),
            "shop = whsec_!!!!",
        ] {
            let wrong = format!("# keys\n{bad}").parse::<WebhookKeys>().unwrap_err();
            assert_eq!(wrong.line, 2, "{bad}");
            assert!(
                wrong.to_string().starts_with("line 2: ") && !wrong.to_string().contains(&hidden),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let shown = format!("{:?}", format!("shop = {}", key(65, 24)).parse::<WebhookKeys>().unwrap());
        assert!(shown.contains("shop") && !shown.contains("65") && !shown.contains("QUFB"), "{shown}");
    }
}

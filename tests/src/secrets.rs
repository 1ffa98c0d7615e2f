//! Every secret that passed through the clients of this process, and the search for them.
//!
//! Owns a bounded record of them. Never knows where they are searched for.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Fields of requests and answers that hold a secret.
const FIELDS: [&str; 7] = [
    "password",
    "current_password",
    "new_password",
    "access_token",
    "refresh_token",
    "secret",
    "authorization",
];

/// Settings that hold a secret.
const SETTINGS: [&str; 6] = [
    "GATHERING_API_KEY",
    "GATHERING_TOKEN_KEY",
    "GATHERING_SECRETS_KEY",
    "GATHERING_SMTP_PASSWORD",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
];

/// A shorter text may be part of something else by chance.
const LEAST_LEN: usize = 8;
/// Of a longer text, the check searches for the beginning.
const MOST_LEN: usize = 512;
/// More than any test process shows.
const MOST_SECRETS: usize = 200_000;
/// The size of the filter in front of the search: with 50,000 secrets it stops nineteen of twenty look-ups.
const FILTER_BITS: u32 = 20;

static KNOWN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Notes a secret, so that it is searched for in the output of every process that ends from now on.
pub fn note_secret(secret: &str) {
    let secret = secret.trim();
    let end = secret.char_indices().nth(MOST_LEN).map_or(secret.len(), |(at, _)| at);
    let secret = secret.split_at(end).0;
    if secret.len() < LEAST_LEN {
        return;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() < MOST_SECRETS && !known.contains(secret) {
        known.insert(secret.to_owned());
        // As a log line in JSON would have it.
        let quoted = Value::from(secret).to_string();
        known.insert(quoted.trim_matches('"').to_owned());
    }
}

/// Notes what a body holds in fields that are secret, however deep.
pub(crate) fn note_secrets_in(body: &Value) {
    match body {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| FIELDS.contains(&name.as_str())) {
                    Some(secret) => note_secret(secret),
                    None => note_secrets_in(value),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(note_secrets_in),
        _ => {}
    }
}

/// Notes the credential of an `Authorization` header.
pub(crate) fn note_authorization(value: &str) {
    note_secret(value.split_once(' ').map_or(value, |(_, credential)| credential));
}

/// Notes the secret settings that a process is started with.
pub(crate) fn note_settings(command: &Command) {
    let settings = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    for (name, value) in settings {
        if SETTINGS.contains(&name) {
            value.split([',', ' ', '\n']).for_each(note_secret);
        }
        if let Some(password) = name.starts_with("DATABASE_").then(|| password_in(value)).flatten() {
            note_secret(password);
        }
    }
}

/// The password of a connection URL.
fn password_in(url: &str) -> Option<&str> {
    let (authority, _) = url.split_once("://")?.1.split_once('@')?;
    Some(authority.split_once(':')?.1)
}

/// Every secret noted so far.
pub fn known_secrets() -> Vec<String> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// The first of `secrets` that `text` holds.
pub fn find_secret<'a>(text: &str, secrets: &'a [String]) -> Option<&'a str> {
    // Each secret is known by eight bytes out of its middle, as tokens of one kind begin and end alike.
    let mut by_middle: HashMap<&[u8], Vec<&'a str>> = HashMap::new();
    let mut is_possible = vec![false; 1 << FILTER_BITS];
    for secret in secrets {
        let Some(middle) = secret.as_bytes().get(middle_of(secret)..).and_then(|rest| rest.get(..LEAST_LEN))
        else {
            continue;
        };
        by_middle.entry(middle).or_default().push(secret);
        is_possible[slot(middle)] = true;
    }
    let text = text.as_bytes();
    let is_here = |secret: &str, at: usize| {
        let start = at.checked_sub(middle_of(secret));
        start.and_then(|start| text.get(start..)).is_some_and(|rest| rest.starts_with(secret.as_bytes()))
    };
    for (at, window) in text.windows(LEAST_LEN).enumerate() {
        if is_possible[slot(window)] {
            let found = by_middle.get(window).into_iter().flatten().find(|secret| is_here(secret, at));
            if found.is_some() {
                return found.copied();
            }
        }
    }
    None
}

/// Where the middle of a secret begins.
fn middle_of(secret: &str) -> usize {
    secret.len().saturating_sub(LEAST_LEN) / 2
}

/// Where the filter keeps the first four bytes of a window, spread by Knuth's multiplicative hash.
fn slot(window: &[u8]) -> usize {
    match window {
        [a, b, c, d, ..] => {
            let spread = u32::from_le_bytes([*a, *b, *c, *d]).wrapping_mul(2_654_435_761);
            (spread >> (u32::BITS - FILTER_BITS)) as usize
        }
        _ => 0,
    }
}

/// The secrets themselves and how their bytes look in a column of bytes: the text's, and what it is base64 of.
pub fn stored_forms(secrets: &[String]) -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let forms = |secret: &String| {
        let mut forms = vec![secret.clone(), hex(secret.as_bytes())];
        let bare = secret.rsplit_once(['_', '.']).map_or(Cow::from(secret), |(_, bare)| bare.into());
        for text in [secret.as_str(), bare.as_ref()] {
            let decoded = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
            if decoded.len() >= 16 {
                forms.push(hex(&decoded));
            }
        }
        forms
    };
    secrets.iter().flat_map(forms).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_found_wherever_it_stands_and_nothing_else_is() {
        let secrets: Vec<String> =
            ["v4.local.AAAABBBB.end", "v4.local.CCCCDDDD.end", "quite secret"].map(str::to_owned).to_vec();
        assert_eq!(find_secret("", &secrets), None);
        assert_eq!(find_secret("a line with v4.local. and .end and quite a secret", &secrets), None);
        assert_eq!(find_secret("x=v4.local.CCCCDDDD.end", &secrets), Some("v4.local.CCCCDDDD.end"));
        assert_eq!(find_secret("quite secret", &secrets), Some("quite secret"));
    }

    #[test]
    fn what_is_secret_in_a_body_is_noted_and_the_rest_is_not() {
        note_secrets_in(&json!({"email": "nobody.special@example.org", "password": "a \"noted\" word"}));
        note_authorization("Bearer noted-credential");
        let known = known_secrets();
        for secret in ["a \"noted\" word", "a \\\"noted\\\" word", "noted-credential"] {
            assert!(known.iter().any(|one| one == secret), "{secret}");
        }
        assert!(!known.iter().any(|one| one.contains("nobody.special")));
        assert_eq!(password_in("postgres://ada:hunter2@db/x"), Some("hunter2"));
        assert_eq!(password_in("postgres://ada@db/x"), None);
    }

    #[test]
    fn a_secret_stored_as_bytes_is_found_too() {
        let forms = stored_forms(&["grk_AAECAwQFBgcICQoLDA0ODw".to_owned()]);
        assert!(forms.contains(&"000102030405060708090a0b0c0d0e0f".to_owned()), "{forms:?}");
    }
}

//! Webhooks from outside: the ways in which well-known senders prove that a message is theirs.
//!
//! Owns which headers each scheme reads and the bytes that it signs. Never knows the time, and never keeps a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use gathering_domain::{ExposeSecret as _, Secret};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{SignedWebhook, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, WebhookKey, verify_webhook};

/// The header of [`WebhookScheme::Token`] where no other is named.
pub const HOOK_TOKEN_HEADER: &str = "x-hook-token";

/// More signatures than any sender has while it replaces a secret.
const MAX_SIGNATURES: usize = 32;
/// The shortest secret that is not a key of Standard Webhooks, in bytes, and the longest.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 8..=512;

/// How a sender proves that a message is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookScheme {
    /// It does not: who knows the address may send.
    None,
    /// The secret itself is in a header.
    Token,
    /// The secret itself is in `X-Gitlab-Token`.
    GitLab,
    /// `X-Hub-Signature-256`: HMAC-SHA256 of the body.
    GitHub,
    /// `Stripe-Signature`: HMAC-SHA256 of time stamp and body.
    Stripe,
    /// `X-Slack-Signature`: HMAC-SHA256 of version, time stamp and body.
    Slack,
    /// Standard Webhooks: HMAC-SHA256 of id, time stamp and body.
    Standard,
}

impl WebhookScheme {
    /// Every scheme.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Token, Self::GitLab, Self::GitHub, Self::Stripe, Self::Slack, Self::Standard];

    /// Its name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token => "token",
            Self::GitLab => "gitlab",
            Self::GitHub => "github",
            Self::Stripe => "stripe",
            Self::Slack => "slack",
            Self::Standard => "standard",
        }
    }

    /// Whether the text can be a secret of this scheme.
    ///
    /// # Errors
    /// What a secret is. The message does not repeat it.
    pub fn check_secret(self, secret: &Secret) -> Result<(), String> {
        let text = secret.expose_secret();
        if self == Self::Standard {
            return text.parse::<WebhookKey>().map(drop).map_err(|error| error.to_string());
        }
        let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
        let is_line = text == text.trim() && !text.chars().any(char::is_control);
        if SECRET_BYTES.contains(&text.len()) && is_line {
            Ok(())
        } else {
            Err(format!("a secret has {least} to {most} bytes on one line, without blanks around it"))
        }
    }
}

impl fmt::Display for WebhookScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WebhookScheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scheme| scheme.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("must be one of {known}")
        })
    }
}

/// The headers of a message: names in lower case, the values of one name joined by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceivedHeaders(BTreeMap<String, String>);

impl ReceivedHeaders {
    /// The value of a header, whose name is given in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Every header, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for ReceivedHeaders {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a [u8])>>(headers: I) -> Self {
        let mut all = BTreeMap::<String, String>::new();
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value);
            let known = all.entry(name.to_ascii_lowercase()).or_default();
            if !known.is_empty() {
                known.push_str(", ");
            }
            known.push_str(&value);
        }
        Self(all)
    }
}

/// A message as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedWebhook<'a> {
    /// Its headers.
    pub headers: &'a ReceivedHeaders,
    /// Its body, byte for byte.
    pub body: &'a [u8],
}

/// Why a message is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UntrustedWebhook {
    /// No proof in it is of one of the secrets.
    #[error("the signature or token is missing, or is of another secret or message")]
    BadSignature,
    /// It was signed too long ago, or in the future.
    #[error("the time stamp is too old, or in the future")]
    TooOld,
}

/// What a scheme needs of a message.
struct Proof<'a> {
    /// The parts that are signed, one after the other.
    signed: Vec<&'a [u8]>,
    /// The signatures that came with it.
    given: Vec<Vec<u8>>,
    /// When it was signed, as it was sent; absent where the scheme has no time stamp.
    at: Option<&'a str>,
}

impl ReceivedWebhook<'_> {
    /// Verifies the message: one of `secrets` signed it at most `tolerance` before or after `now`, in seconds since 1970,
    /// where the scheme has a time stamp. `token_header` is the header of [`WebhookScheme::Token`], in lower case.
    ///
    /// The time that this takes depends on the length of the message and the number of secrets, and tells nothing about
    /// them otherwise.
    ///
    /// # Errors
    /// [`UntrustedWebhook`].
    pub fn verify(
        &self,
        scheme: WebhookScheme,
        token_header: &str,
        secrets: &[Secret],
        now: i64,
        tolerance: Duration,
    ) -> Result<(), UntrustedWebhook> {
        match scheme {
            WebhookScheme::None => Ok(()),
            WebhookScheme::Token => self.verify_token(token_header, secrets),
            WebhookScheme::GitLab => self.verify_token("x-gitlab-token", secrets),
            WebhookScheme::Standard => self.verify_standard(secrets, now, tolerance),
            WebhookScheme::GitHub => self.github().verify(secrets, now, tolerance),
            WebhookScheme::Stripe => self.stripe().verify(secrets, now, tolerance),
            WebhookScheme::Slack => self.slack().verify(secrets, now, tolerance),
        }
    }

    /// What an unknown receiver does, so that its answer takes as long as that of a known one.
    pub fn verify_nothing(&self) {
        let _no_secret = self.github().verify(&[Secret::from("of nobody")], 0, Duration::MAX);
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_default()
    }

    /// Compares codes of both, which takes the same time whatever they have in common.
    fn verify_token(&self, header: &str, secrets: &[Secret]) -> Result<(), UntrustedWebhook> {
        const OF_BOTH: &[u8] = b"a token of a webhook";
        let given = code(OF_BOTH, &[self.header(header).as_bytes()]);
        let matching = secrets.iter().filter(|secret| {
            let expected = mac(OF_BOTH, &[secret.expose_secret().as_bytes()]);
            expected.is_some_and(|expected| expected.verify_slice(&given).is_ok())
        });
        if matching.count() > 0 { Ok(()) } else { Err(UntrustedWebhook::BadSignature) }
    }

    fn verify_standard(
        &self,
        secrets: &[Secret],
        now: i64,
        tolerance: Duration,
    ) -> Result<(), UntrustedWebhook> {
        let keys: Vec<WebhookKey> =
            secrets.iter().filter_map(|secret| secret.expose_secret().parse().ok()).collect();
        let timestamp = self.header(WEBHOOK_TIMESTAMP);
        let (id, signature) = (self.header(WEBHOOK_ID), self.header(WEBHOOK_SIGNATURE));
        let message = SignedWebhook { id, timestamp, signature, body: self.body };
        // The signature first, so that a wrong time stamp is not answered sooner.
        verify_webhook(&keys, &message, now, Duration::MAX).map_err(|_| UntrustedWebhook::BadSignature)?;
        check_age(timestamp, now, tolerance)
    }

    /// `sha256=` and the code in hexadecimal. There is no time stamp.
    fn github(&self) -> Proof<'_> {
        let given = self.header("x-hub-signature-256").strip_prefix("sha256=").and_then(bytes_of_hex);
        Proof { signed: vec![self.body], given: given.into_iter().collect(), at: None }
    }

    /// `t=` and the time stamp, and `v1=` and the code in hexadecimal, the latter for each secret; with commas between.
    fn stripe(&self) -> Proof<'_> {
        let fields = || {
            let fields = self.header("stripe-signature").split(',');
            fields.filter_map(|field| field.trim().split_once('='))
        };
        let at = fields().find(|(name, _)| *name == "t").map_or("", |(_, value)| value);
        let given = fields().filter(|(name, _)| *name == "v1").filter_map(|(_, code)| bytes_of_hex(code));
        let given = given.take(MAX_SIGNATURES).collect();
        Proof { signed: vec![at.as_bytes(), b".", self.body], given, at: Some(at) }
    }

    /// `v0=` and the code in hexadecimal; the time stamp is in a header of its own.
    fn slack(&self) -> Proof<'_> {
        let at = self.header("x-slack-request-timestamp");
        let given = self.header("x-slack-signature").strip_prefix("v0=").and_then(bytes_of_hex);
        let signed = vec![b"v0:".as_slice(), at.as_bytes(), b":", self.body];
        Proof { signed, given: given.into_iter().collect(), at: Some(at) }
    }
}

impl Proof<'_> {
    fn verify(&self, secrets: &[Secret], now: i64, tolerance: Duration) -> Result<(), UntrustedWebhook> {
        let is_signed_with = |secret: &&Secret| {
            let Some(mac) = mac(secret.expose_secret().as_bytes(), &self.signed) else { return false };
            self.given.iter().any(|given| mac.clone().verify_slice(given).is_ok())
        };
        // Every secret is tried, whichever fits.
        if secrets.iter().filter(is_signed_with).count() == 0 {
            return Err(UntrustedWebhook::BadSignature);
        }
        self.at.map_or(Ok(()), |at| check_age(at, now, tolerance))
    }
}

/// Whether a time stamp, in seconds since 1970, is at most `tolerance` before or after `now`.
fn check_age(timestamp: &str, now: i64, tolerance: Duration) -> Result<(), UntrustedWebhook> {
    let is_number =
        (1..=18).contains(&timestamp.len()) && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let at: i64 = timestamp.parse().ok().filter(|_| is_number).ok_or(UntrustedWebhook::BadSignature)?;
    if at.abs_diff(now) <= tolerance.as_secs() { Ok(()) } else { Err(UntrustedWebhook::TooOld) }
}

/// HMAC takes keys of every length, so this is never `None`.
fn mac(key: &[u8], parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(mac)
}

fn code(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    mac(key, parts).map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |place: usize| u8::from_str_radix(text.get(place..place + 2)?, 16).ok();
    is_hex.then(|| (0..text.len()).step_by(2).map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests;

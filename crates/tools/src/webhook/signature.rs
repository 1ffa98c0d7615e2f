//! Signatures of the Standard Webhooks specification, version 1: HMAC-SHA256 over `id.timestamp.body`.
//!
//! Owns the bytes that are signed. Never knows the time: its callers tell it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::WebhookKey;

/// The header with the id of a message, the same each time that the message is sent.
pub const WEBHOOK_ID: &str = "webhook-id";
/// The header with the time of this attempt, in seconds since 1970.
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures.
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// The version of symmetric signatures.
const VERSION: &str = "v1";
/// More signatures than any sender has while it replaces a key.
const MAX_SIGNATURES: usize = 32;

/// A message as it arrived: its three headers, and the body, byte for byte.
#[derive(Debug, Clone, Copy)]
pub struct SignedWebhook<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Why a message is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebhookSignature {
    /// The timestamp is no number of seconds.
    #[error("`webhook-timestamp` must be a number of seconds since 1970")]
    Timestamp,
    /// The message was signed too long ago.
    #[error("`webhook-timestamp` is too old")]
    TooOld,
    /// The message was signed in the future.
    #[error("`webhook-timestamp` is in the future")]
    TooNew,
    /// No signature is of one of the keys over this id, timestamp and body.
    #[error("no signature in `webhook-signature` matches")]
    NoMatch,
}

/// The value of `webhook-signature`: one signature for each key, separated by blanks.
pub fn sign_webhook(keys: &[WebhookKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let signed = keys.iter().filter_map(|key| {
        let signature = mac(key, id, &timestamp, body)?.finalize().into_bytes();
        Some(format!("{VERSION},{}", BASE64.encode(signature)))
    });
    signed.collect::<Vec<_>>().join(" ")
}

/// Verifies that one of `keys` signed the message at most `tolerance` before or after `now`, in seconds since 1970. The
/// time that a comparison takes tells nothing about the right signature.
///
/// # Errors
/// [`InvalidWebhookSignature`].
pub fn verify_webhook(
    keys: &[WebhookKey],
    message: &SignedWebhook<'_>,
    now: i64,
    tolerance: Duration,
) -> Result<(), InvalidWebhookSignature> {
    let is_number = (1..=18).contains(&message.timestamp.len())
        && message.timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let at: i64 =
        message.timestamp.parse().ok().filter(|_| is_number).ok_or(InvalidWebhookSignature::Timestamp)?;
    let tolerance = i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX);
    if at < now.saturating_sub(tolerance) {
        return Err(InvalidWebhookSignature::TooOld);
    }
    if at > now.saturating_add(tolerance) {
        return Err(InvalidWebhookSignature::TooNew);
    }
    let signatures = message.signature.split(' ').take(MAX_SIGNATURES).filter_map(|signature| {
        let (version, encoded) = signature.split_once(',')?;
        BASE64.decode(encoded).ok().filter(|_| version == VERSION)
    });
    let is_signed = |signature: Vec<u8>| {
        keys.iter().any(|key| {
            let mac = mac(key, message.id, message.timestamp, message.body);
            mac.is_some_and(|mac| mac.verify_slice(&signature).is_ok())
        })
    };
    if signatures.into_iter().any(is_signed) { Ok(()) } else { Err(InvalidWebhookSignature::NoMatch) }
}

/// HMAC takes keys of every length, so this is never `None`.
fn mac(key: &WebhookKey, id: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).ok()?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key, the message and the signature that the reference libraries test with.
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    const TOLERANCE: Duration = Duration::from_secs(300);

    fn key(text: &str) -> WebhookKey {
        text.parse().unwrap()
    }

    fn other_key() -> WebhookKey {
        key(&format!("whsec_{}", BASE64.encode([7; 32])))
    }

    fn message(signature: &str) -> SignedWebhook<'_> {
        SignedWebhook { id: ID, timestamp: "1614265330", signature, body: BODY }
    }

    #[test]
    fn the_vector_of_the_specification_is_signed_and_verified() {
        assert_eq!(sign_webhook(&[key(KEY)], ID, AT, BODY), SIGNATURE);
        assert_eq!(verify_webhook(&[key(KEY)], &message(SIGNATURE), AT, TOLERANCE), Ok(()));
    }

    #[test]
    fn any_change_of_the_message_is_noticed() {
        let right = message(SIGNATURE);
        let keys = [key(KEY)];
        for changed in [
            SignedWebhook { id: "msg_other", ..right },
            SignedWebhook { timestamp: "1614265331", ..right },
            SignedWebhook { timestamp: "01614265330", ..right },
            SignedWebhook { body: br#"{"test": 2432232315}"#, ..right },
            SignedWebhook { body: br#"{"test":2432232314}"#, ..right },
            SignedWebhook { signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=", ..right },
            SignedWebhook { signature: "v1,g0hM9SsE", ..right },
            SignedWebhook { signature: "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", ..right },
            SignedWebhook { signature: "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", ..right },
            SignedWebhook { signature: "v1,", ..right },
            SignedWebhook { signature: "", ..right },
        ] {
            assert_eq!(
                verify_webhook(&keys, &changed, AT, TOLERANCE),
                Err(InvalidWebhookSignature::NoMatch),
                "{changed:?}"
            );
        }
        assert_eq!(
            verify_webhook(&[other_key()], &right, AT, TOLERANCE),
            Err(InvalidWebhookSignature::NoMatch)
        );
        assert_eq!(verify_webhook(&[], &right, AT, TOLERANCE), Err(InvalidWebhookSignature::NoMatch));
    }

    #[test]
    fn while_a_key_is_replaced_both_sides_may_know_either() {
        let (old, new) = (key(KEY), other_key());
        let both = sign_webhook(&[old.clone(), new.clone()], ID, AT, BODY);
        assert_eq!(both.split(' ').count(), 2);
        for known in [vec![old.clone()], vec![new.clone()], vec![new.clone(), old.clone()]] {
            assert_eq!(verify_webhook(&known, &message(&both), AT, TOLERANCE), Ok(()));
        }
        let signed = sign_webhook(std::slice::from_ref(&new), ID, AT, BODY);
        let with_others = format!("v1a,AAAA nonsense v2,{SIGNATURE} {signed}");
        assert_eq!(verify_webhook(&[old, new], &message(&with_others), AT, TOLERANCE), Ok(()));
    }

    #[test]
    fn a_message_is_valid_only_around_its_time() {
        let keys = [key(KEY)];
        let at = |now| verify_webhook(&keys, &message(SIGNATURE), now, TOLERANCE);
        assert_eq!((at(AT + 300), at(AT - 300)), (Ok(()), Ok(())));
        assert_eq!(at(AT + 301), Err(InvalidWebhookSignature::TooOld));
        assert_eq!(at(AT - 301), Err(InvalidWebhookSignature::TooNew));
        for timestamp in
            ["", "now", "-1", "+1614265330", "1614265330.0", " 1614265330", "99999999999999999999"]
        {
            let wrong = SignedWebhook { timestamp, ..message(SIGNATURE) };
            assert_eq!(
                verify_webhook(&keys, &wrong, AT, TOLERANCE),
                Err(InvalidWebhookSignature::Timestamp),
                "{timestamp}"
            );
        }
    }

    #[test]
    fn the_number_of_signatures_is_bounded() {
        let many = format!("{} {SIGNATURE}", ["v1,AAAA"; MAX_SIGNATURES].join(" "));
        assert_eq!(
            verify_webhook(&[key(KEY)], &message(&many), AT, TOLERANCE),
            Err(InvalidWebhookSignature::NoMatch)
        );
    }
}

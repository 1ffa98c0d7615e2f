//! Access tokens: PASETO v4.local, short-lived, with the key's id in the footer.
//!
//! Owns the content and lifetime of a token. Never knows whether its session was revoked since; the store does.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_domain::{Secret, UserId};
use pasetors::Local;
use pasetors::token::UntrustedToken;
use pasetors::version4::{LocalToken, V4};
use serde::{Deserialize, Serialize};

use crate::{KeyRing, SessionId, TokenId};

/// Binds a token to its use: text encrypted with the same key for another purpose is not an access token.
const PURPOSE: &[u8] = b"gathering/access-token/1";

/// Our tokens have about 400 characters; a longer text is not decoded.
const MAX_LENGTH: usize = 1024;

/// Issues and verifies access tokens.
#[derive(Debug)]
pub struct Tokens {
    keys: KeyRing,
    lifetime: Duration,
}

/// The content of a valid access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// The token's own id.
    #[serde(rename = "jti")]
    pub id: TokenId,
    /// The account.
    #[serde(rename = "sub")]
    pub user: UserId,
    /// The session in which it was issued.
    #[serde(rename = "sid")]
    pub session: SessionId,
    /// The time of issue, in UTC, by the clock of the issuing instance.
    #[serde(rename = "iat")]
    pub issued_at: DateTime<Utc>,
    /// The time from which it is invalid, in UTC.
    #[serde(rename = "exp")]
    pub expires_at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
struct Footer<'a> {
    #[serde(borrow)]
    kid: &'a str,
}

/// Why a text is not a valid access token. For logs only; a client learns only that it is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidToken {
    /// It is not a PASETO v4.local token of ours.
    #[error("the text is not an access token")]
    Malformed,
    /// Its key is not in the ring.
    #[error("the access token names a key that is not in use")]
    UnknownKey,
    /// It was changed, or encrypted with another key or for another purpose.
    #[error("the access token does not decrypt under the key that it names")]
    Forged,
    /// It has expired.
    #[error("the access token has expired")]
    Expired,
}

impl Tokens {
    /// Issues and verifies tokens with these keys and this lifetime.
    pub const fn new(keys: KeyRing, lifetime: Duration) -> Self {
        Self { keys, lifetime }
    }

    /// The lifetime of an access token.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new token for `user` in `session`, issued at `now`. `None` if the system provides no randomness.
    pub(crate) fn issue(&self, user: UserId, session: SessionId, now: DateTime<Utc>) -> Option<Secret> {
        let token = AccessToken {
            id: TokenId::new(),
            user,
            session,
            issued_at: now,
            expires_at: now.checked_add_signed(chrono::Duration::from_std(self.lifetime).ok()?)?,
        };
        let key = self.keys.current();
        let payload = serde_json::to_vec(&token).ok()?;
        let footer = serde_json::to_vec(&Footer { kid: &key.id }).ok()?;
        LocalToken::encrypt(&key.key, &payload, Some(&footer), Some(PURPOSE)).ok().map(Secret::from)
    }

    /// Verifies a token at `now`: it must be ours, unchanged and not expired.
    ///
    /// The time of issue is not checked, because the clock of the issuing instance may be ahead of ours.
    ///
    /// # Errors
    /// [`InvalidToken`], which says what is wrong.
    pub fn verify(&self, text: &str, now: DateTime<Utc>) -> Result<AccessToken, InvalidToken> {
        if text.len() > MAX_LENGTH {
            return Err(InvalidToken::Malformed);
        }
        let untrusted = UntrustedToken::<Local, V4>::try_from(text).map_err(|_| InvalidToken::Malformed)?;
        let footer: Footer<'_> =
            serde_json::from_slice(untrusted.untrusted_footer()).map_err(|_| InvalidToken::Malformed)?;
        let key = self.keys.find(footer.kid).ok_or(InvalidToken::UnknownKey)?;
        let trusted = LocalToken::decrypt(&key.key, &untrusted, None, Some(PURPOSE))
            .map_err(|_| InvalidToken::Forged)?;
        let token: AccessToken = serde_json::from_str(trusted.payload()).map_err(|_| InvalidToken::Forged)?;
        if token.expires_at <= now { Err(InvalidToken::Expired) } else { Ok(token) }
    }
}

#[cfg(test)]
mod tests {
    use gathering_domain::ExposeSecret;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(900);

    fn issue(tokens: &Tokens, now: DateTime<Utc>) -> String {
        tokens.issue(UserId::new(), SessionId::new(), now).unwrap().expose_secret().to_owned()
    }

    #[test]
    fn a_token_is_valid_until_it_expires() {
        let tokens = Tokens::new(KeyRing::generate().unwrap(), LIFETIME);
        let (user, session, now) = (UserId::new(), SessionId::new(), Utc::now());
        let text = tokens.issue(user, session, now).unwrap();
        let token = tokens.verify(text.expose_secret(), now).unwrap();
        assert_eq!((token.user, token.session), (user, session));
        assert_eq!(tokens.verify(text.expose_secret(), now + LIFETIME), Err(InvalidToken::Expired));
        assert!(tokens.verify(text.expose_secret(), now + LIFETIME - Duration::from_millis(1)).is_ok());
    }

    #[test]
    fn a_clock_that_is_behind_accepts_a_token_from_one_that_is_ahead() {
        let tokens = Tokens::new(KeyRing::generate().unwrap(), LIFETIME);
        let now = Utc::now();
        assert!(tokens.verify(&issue(&tokens, now + Duration::from_secs(5)), now).is_ok());
    }

    #[test]
    fn retired_keys_are_accepted_and_removed_ones_are_not() {
        let now = Utc::now();
        let old = KeyRing::generate().unwrap();
        let same = KeyRing::parse(old.to_text().expose_secret()).unwrap();
        let before = issue(&Tokens::new(old, LIFETIME), now);
        let rotated = Tokens::new(same.rotated().unwrap(), LIFETIME);
        assert!(rotated.verify(&before, now).is_ok());
        assert!(rotated.verify(&issue(&rotated, now), now).is_ok());
        let other = Tokens::new(KeyRing::generate().unwrap(), LIFETIME);
        assert_eq!(other.verify(&before, now), Err(InvalidToken::UnknownKey));
    }

    #[test]
    fn every_changed_character_is_detected() {
        let tokens = Tokens::new(KeyRing::generate().unwrap(), LIFETIME);
        let now = Utc::now();
        let text = issue(&tokens, now);
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(tokens.verify(&changed, now).is_err(), "character {index}");
        }
    }

    #[test]
    fn text_that_is_not_a_token_is_rejected() {
        let tokens = Tokens::new(KeyRing::generate().unwrap(), LIFETIME);
        let now = Utc::now();
        let long = format!("v4.local.{}", "A".repeat(100_000));
        for text in ["", "v4.local.", "v4.local.AAAA", "v4.public.AAAA", "Bearer x", "ä", &long] {
            assert_eq!(tokens.verify(text, now), Err(InvalidToken::Malformed), "{text:.20}");
        }
        let keys = KeyRing::generate().unwrap();
        let key = keys.current();
        let footer = serde_json::to_vec(&Footer { kid: &key.id }).unwrap();
        let other_use = LocalToken::encrypt(&key.key, b"{}", Some(&footer), Some(b"other use")).unwrap();
        assert_eq!(Tokens::new(keys, LIFETIME).verify(&other_use, now), Err(InvalidToken::Forged));
    }
}

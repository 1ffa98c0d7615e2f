//! Refresh tokens: long random texts that are shown once and stored only as digests.

use crate::opaque::opaque_token;

opaque_token! {
    /// A refresh token: `grt_` and 32 random bytes in base64url. `Debug` does not show it.
    RefreshToken, "grt_", pub(crate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_a_round_trip() {
        let token = RefreshToken::generate().unwrap();
        assert_eq!(RefreshToken::parse(token.expose()).unwrap().digest(), token.digest());
        assert_ne!(RefreshToken::generate().unwrap().digest(), token.digest());
        assert!(!format!("{token:?}").contains(token.expose()));
    }

    #[test]
    fn text_that_cannot_be_a_token_is_not_looked_up() {
        let long = format!("{}{}", RefreshToken::PREFIX, "a".repeat(44));
        let wide = format!("{}{}", RefreshToken::PREFIX, "ä".repeat(21) + "a");
        for text in ["", "grt_", "v4.local.abc", &long, &wide] {
            assert!(RefreshToken::parse(text).is_none(), "{text}");
        }
    }
}

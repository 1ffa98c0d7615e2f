//! Tokens of hooks: the secret part of an address that other programs call, shown once and stored only as a digest.

use crate::opaque::opaque_token;

opaque_token! {
    /// The token of a hook: `hook_` and 32 random bytes in base64url. `Debug` does not show it.
    HookToken, "hook_", pub
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_differs_from_other_secrets_and_is_not_shown() {
        let token = HookToken::generate().unwrap();
        assert_eq!(HookToken::parse(token.expose()).unwrap().digest(), token.digest());
        assert!(HookToken::parse(&token.expose().replace("hook_", "grk_")).is_none());
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}

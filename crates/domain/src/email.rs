//! E-mail addresses as account names.

use std::fmt;
use std::str::FromStr;

/// An address, normalised: surrounding blanks gone, lower case throughout, so that one mailbox is one account.
///
/// The check is deliberately loose (something, `@`, a domain with no blanks, at most 254 bytes: RFC 5321 4.5.3.1); only
/// a message that arrives proves an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

/// A text that is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address such as `name@example.org`, of at most 254 bytes")]
pub struct InvalidEmail;

impl Email {
    /// The normalised address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        let clean = !text.chars().any(|char| char.is_whitespace() || char.is_control());
        // Measured in the form that is kept: lower case may be longer.
        let lower = text.to_lowercase();
        if clean && !local.is_empty() && !domain.is_empty() && !local.contains('@') && lower.len() <= 254 {
            Ok(Self(lower))
        } else {
            Err(InvalidEmail)
        }
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mailbox_is_one_account() {
        assert_eq!(" Ada@Example.ORG ".parse::<Email>().unwrap().as_str(), "ada@example.org");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "ada", "@x", "ada@", "a b@x", "a@b@c", "a\0@x", &format!("{}@x", "a".repeat(254))] {
            assert!(bad.parse::<Email>().is_err(), "{bad:?}");
        }
    }
}

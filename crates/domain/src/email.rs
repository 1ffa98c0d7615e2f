//! E-mail addresses as account names.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization as _;

/// An address, normalised: surrounding blanks gone, lower case throughout, composed (Unicode's form NFC), so that one
/// mailbox is one account however it was typed.
///
/// The check is deliberately loose (something, `@`, a domain with no blanks, nothing that cannot be seen, at most 254
/// bytes: RFC 5321 4.5.3.1); only a message that arrives proves an address.
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

    /// An address that was accepted once, maybe by rules that were looser. It is kept as it is.
    pub const fn accepted_before(text: String) -> Self {
        Self(text)
    }

    /// What was typed in the form of an address, whether it is one or not.
    pub fn normalised(text: &str) -> String {
        // Lower case may take a composed letter apart, and letters that are composed only then have another one.
        let lower = text.trim().nfc().collect::<String>().to_lowercase();
        lower.nfc().collect()
    }
}

impl FromStr for Email {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        // Measured in the form that is kept: it may be longer.
        let text = Self::normalised(text);
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        let clean = !text.chars().any(|char| char.is_whitespace() || char.is_control() || is_unseen(char));
        if clean && !local.is_empty() && !domain.is_empty() && !local.contains('@') && text.len() <= 254 {
            Ok(Self(text))
        } else {
            Err(InvalidEmail)
        }
    }
}

/// Whether a character is one of those that Unicode lets disappear (`Default_Ignorable_Code_Point`: of no width, turning
/// the direction of writing, choosing a variant) or of the category `Cf`, formats: two addresses that differ in one of
/// them look the same.
const fn is_unseen(char: char) -> bool {
    matches!(char,
        '\u{AD}' | '\u{34F}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{890}'..='\u{891}'
        | '\u{8E2}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{110BD}' | '\u{110CD}'
        | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}')
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
    fn one_mailbox_is_one_account_however_its_letters_are_put_together() {
        let composed: Email = "jos\u{e9}@example.org".parse().unwrap();
        for typed in ["jose\u{301}@example.org", "JOSE\u{301}@example.org", " JOS\u{c9}@Example.org"] {
            assert_eq!(typed.parse::<Email>().unwrap(), composed, "{typed:?}");
            assert_eq!(Email::normalised(typed), composed.as_str());
        }
        // A letter whose lower case is two, of which the second belongs before another mark.
        for typed in ["\u{130}\u{323}@x", "\u{212b}\u{323}@x", "\u{3a3}@x"] {
            let email: Email = typed.parse().unwrap();
            assert_eq!(email.as_str().parse::<Email>().unwrap(), email, "{typed:?} settles at once");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_in_no_address() {
        for unseen in [
            '\u{0}',
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{34f}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0041}',
            '\u{2028}',
        ] {
            for text in [format!("a{unseen}da@example.org"), format!("ada@exam{unseen}ple.org")] {
                assert!(text.parse::<Email>().is_err(), "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "ada", "@x", "ada@", "a b@x", "a@b@c", "a\0@x", &format!("{}@x", "a".repeat(254))] {
            assert!(bad.parse::<Email>().is_err(), "{bad:?}");
        }
    }
}

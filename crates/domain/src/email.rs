//! E-mail addresses as account names.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization as _;

/// A normalised address: trimmed, in lower case, and composed (Unicode form NFC), so that one mailbox is one account
/// however its address was typed.
///
/// The check is deliberately loose: something, `@`, a domain without blanks, no invisible characters, at most 254 bytes
/// (RFC 5321 4.5.3.1). Only a delivered message proves an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

/// A text that is not an e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address such as `name@example.org`, of at most 254 bytes")]
pub struct InvalidEmail;

impl Email {
    /// The normalised address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An address that was accepted earlier, perhaps by looser rules. It is kept unchanged.
    pub const fn accepted_before(text: String) -> Self {
        Self(text)
    }

    /// Normalises a typed address, valid or not.
    pub fn normalised(text: &str) -> String {
        // Lower case may decompose a letter, and a letter composed only then may have another lower case.
        let lower = text.trim().nfc().collect::<String>().to_lowercase();
        lower.nfc().collect()
    }
}

impl FromStr for Email {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        // The normalised form is measured, because it may be longer.
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

/// Whether a character is invisible: of Unicode's property `Default_Ignorable_Code_Point` (no width, writing direction,
/// variant selectors) or of its category `Cf` (formats). Two addresses that differ only in one of these look the same.
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
    fn one_mailbox_is_one_account_in_every_unicode_form() {
        let composed: Email = "jos\u{e9}@example.org".parse().unwrap();
        for typed in ["jose\u{301}@example.org", "JOSE\u{301}@example.org", " JOS\u{c9}@Example.org"] {
            assert_eq!(typed.parse::<Email>().unwrap(), composed, "{typed:?}");
            assert_eq!(Email::normalised(typed), composed.as_str());
        }
        // A letter whose lower case is two, the second of which sorts before another mark.
        for typed in ["\u{130}\u{323}@x", "\u{212b}\u{323}@x", "\u{3a3}@x"] {
            let email: Email = typed.parse().unwrap();
            assert_eq!(email.as_str().parse::<Email>().unwrap(), email, "{typed:?} settles at once");
        }
    }

    #[test]
    fn an_address_with_invisible_characters_is_rejected() {
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
    fn text_that_is_not_an_address_is_rejected() {
        for bad in ["", "ada", "@x", "ada@", "a b@x", "a@b@c", "a\0@x", &format!("{}@x", "a".repeat(254))] {
            assert!(bad.parse::<Email>().is_err(), "{bad:?}");
        }
    }
}

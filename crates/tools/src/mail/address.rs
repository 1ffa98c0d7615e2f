//! Addresses of e-mail, with the name of a person or without.

use std::fmt;
use std::str::FromStr;

use lettre::Address;
use lettre::message::Mailbox;

/// The longest text, in characters: a name, and an address of at most 254 (RFC 5321, 4.5.3.1).
const MAX_CHARS: usize = 512;
/// The longest address, in bytes.
const MAX_ADDRESS_BYTES: usize = 254;

/// `ada@example.org` or `Ada Lovelace <ada@example.org>`. A domain in other letters than ASCII is kept in its ASCII form
/// (`xn--...`), which every mail server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailAddress(Mailbox);

/// A text that is not an address of e-mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMailAddress {
    /// A line break, or another character that no header may contain.
    #[error("must not contain line breaks or other control characters")]
    Control,
    /// No address.
    #[error("must be one e-mail address, such as `ada@example.org` or `Ada Lovelace <ada@example.org>`")]
    Form,
}

impl MailAddress {
    /// The address without the name.
    pub fn address(&self) -> &str {
        self.0.email.as_ref()
    }

    /// What stands after the `@`.
    pub fn domain(&self) -> &str {
        self.0.email.domain()
    }

    pub(super) const fn mailbox(&self) -> &Mailbox {
        &self.0
    }
}

impl FromStr for MailAddress {
    type Err = InvalidMailAddress;

    fn from_str(text: &str) -> Result<Self, InvalidMailAddress> {
        if text.chars().any(|char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')) {
            return Err(InvalidMailAddress::Control);
        }
        let text = text.trim();
        if text.chars().count() > MAX_CHARS {
            return Err(InvalidMailAddress::Form);
        }
        let (name, address) = match text.strip_suffix('>') {
            Some(rest) => {
                let (name, address) = rest.rsplit_once('<').ok_or(InvalidMailAddress::Form)?;
                (Some(unquoted(name.trim())?), address)
            }
            None => (None, text),
        };
        let (local, domain) = address.rsplit_once('@').ok_or(InvalidMailAddress::Form)?;
        // A quoted local part may hold anything, and few mail servers agree on what it means.
        if local.chars().any(|char| char.is_whitespace() || matches!(char, '"' | '<' | '>' | '(' | ')' | ','))
        {
            return Err(InvalidMailAddress::Form);
        }
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| InvalidMailAddress::Form)?;
        let email = Address::new(local, &domain).map_err(|_| InvalidMailAddress::Form)?;
        if AsRef::<str>::as_ref(&email).len() > MAX_ADDRESS_BYTES {
            return Err(InvalidMailAddress::Form);
        }
        Ok(Self(Mailbox::new(name.filter(|name| !name.is_empty()), email)))
    }
}

/// A name as it is meant: quotes around it, and backslashes in them, are the header's.
fn unquoted(name: &str) -> Result<String, InvalidMailAddress> {
    let Some(inner) = name.strip_prefix('"') else {
        let is_plain = !name.contains(['"', '<', '>', '@', ',', ';', ':']);
        return if is_plain { Ok(name.to_owned()) } else { Err(InvalidMailAddress::Form) };
    };
    let inner = inner.strip_suffix('"').ok_or(InvalidMailAddress::Form)?;
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.push(chars.next().ok_or(InvalidMailAddress::Form)?),
            '"' => return Err(InvalidMailAddress::Form),
            char => plain.push(char),
        }
    }
    Ok(plain.trim().to_owned())
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<String>, String) {
        let address: MailAddress = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        (address.0.name.clone(), address.address().to_owned())
    }

    #[test]
    fn an_address_may_have_a_name() {
        for (text, name, address) in [
            ("ada@example.org", None, "ada@example.org"),
            (" Ada+x@Example.ORG ", None, "Ada+x@example.org"),
            ("<ada@example.org>", None, "ada@example.org"),
            ("Ada Lovelace <ada@example.org>", Some("Ada Lovelace"), "ada@example.org"),
            ("\"Lovelace, Ada \\\"A\\\"\" <ada@example.org>", Some("Lovelace, Ada \"A\""), "ada@example.org"),
            ("Jürgen Groß <j@example.org>", Some("Jürgen Groß"), "j@example.org"),
            ("root@localhost", None, "root@localhost"),
        ] {
            assert_eq!(parsed(text), (name.map(str::to_owned), address.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_domain_in_other_letters_is_kept_in_its_ascii_form() {
        assert_eq!(parsed("info@bücher.example").1, "info@xn--bcher-kva.example");
        assert_eq!(parsed("info@例え.テスト").1, "info@xn--r8jz45g.xn--zckzah");
        assert_eq!(parsed("jürgen@bücher.example").1, "jürgen@xn--bcher-kva.example");
    }

    #[test]
    fn a_line_break_is_refused_wherever_it_stands() {
        for text in [
            "ada@example.org\r\nBcc: eve@example.org",
            "ada\n@example.org",
            "Ada\r\nSubject: x <ada@example.org>",
            "ada@example.org\n",
            "ada@example.org\0",
            "a\u{85}b <ada@example.org>",
            "a\u{2028}b <ada@example.org>",
        ] {
            assert_eq!(text.parse::<MailAddress>(), Err(InvalidMailAddress::Control), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_one_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        let long_domain = format!("a@{}.org", "a".repeat(64));
        for text in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@@example.org",
            "a@b@c",
            "ada@example.org, eve@example.org",
            "ada@example.org eve@example.org",
            "Ada <ada@example.org> <eve@example.org>",
            "Ada <ada@example.org",
            "ada@example.org>",
            "a b@example.org",
            "\"a b\"@example.org",
            "ada@exa mple.org",
            "ada@-x.org",
            "ada@x..org",
            ".ada@example.org",
            "ada.@example.org",
            "ada@[127.0.0.1]",
            "ada@exam%70le.org",
            "x:ada@example.org;",
            "Ada, Eve <ada@example.org>",
            "ada@ex_ample.org>",
            &long,
            &long_domain,
        ] {
            assert_eq!(text.parse::<MailAddress>(), Err(InvalidMailAddress::Form), "{text:?}");
        }
    }
}

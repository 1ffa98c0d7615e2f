//! Taking the values of secrets out of texts, whichever form they come in.
//!
//! One automaton finds all forms of all secrets of a project in one pass. A value is found as it is, as part of JSON or
//! of a URL, in hexadecimal, and in base64 at any place of a longer text. A part of a value is not found, and neither is
//! an encoding of an encoding.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use gathering_domain::{ExposeSecret as _, Secret, SecretName};
use serde_json::Value;

/// A longer form is found by its start, which bounds the automaton.
const MAX_PATTERN: usize = 96;

/// Fewer characters of base64 in the middle of a text stand there by chance.
const MIN_INNER_BASE64: usize = 8;

/// One way in which the value of a secret may be written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Form {
    text: String,
    /// Whether the character before it, or after it, may hold bits of the value: in base64 a character spans bytes.
    is_ragged: (bool, bool),
}

/// Finds the values of a project's secrets.
pub(super) struct Redactor {
    automaton: AhoCorasick,
    /// Those of the automaton's patterns.
    forms: Vec<(Form, SecretName)>,
    /// Whether some value could be a JSON number.
    has_numbers: bool,
}

impl Redactor {
    /// `None` if there is nothing to find.
    pub(super) fn new<'a>(secrets: impl Iterator<Item = (&'a SecretName, &'a Secret)>) -> Option<Self> {
        let (mut forms, mut has_numbers) = (Vec::new(), false);
        for (name, secret) in secrets {
            let value = secret.expose_secret();
            has_numbers |= value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            forms.extend(forms_of(value).into_iter().map(|form| (form, name.clone())));
        }
        if forms.is_empty() {
            return None;
        }
        let patterns =
            forms.iter().map(|(form, _)| &form.text.as_bytes()[..form.text.len().min(MAX_PATTERN)]);
        match AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(patterns) {
            Ok(automaton) => Some(Self { automaton, forms, has_numbers }),
            Err(error) => {
                // The bounds of secrets keep it far from its limits.
                tracing::error!(error = %error, "cannot redact secrets: {error}");
                None
            }
        }
    }

    pub(super) fn redact_text(&self, text: &mut String) {
        if let Some(redacted) = self.redacted(text) {
            *text = redacted;
        }
    }

    pub(super) fn redact(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.redact_text(text),
            Value::Number(number) if self.has_numbers => {
                if let Some(redacted) = self.redacted(&number.to_string()) {
                    *value = Value::String(redacted);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact(item)),
            Value::Object(fields) => {
                fields.values_mut().for_each(|field| self.redact(field));
                if fields.keys().any(|name| self.automaton.is_match(name)) {
                    *fields = std::mem::take(fields).into_iter().map(|field| self.renamed(field)).collect();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn renamed(&self, (mut name, value): (String, Value)) -> (String, Value) {
        self.redact_text(&mut name);
        (name, value)
    }

    /// The text without values; `None` if it has none.
    fn redacted(&self, text: &str) -> Option<String> {
        let mut redacted = String::new();
        let mut rest = 0;
        while let Some(found) = self.automaton.find(Input::new(text).range(rest..)) {
            let (form, name) = self.forms.get(found.pattern().as_usize())?;
            let (start, end) = form.extent(text, found.start());
            redacted.push_str(&text[rest..start.max(rest)]);
            redacted.push_str(&format!("[secret {name}]"));
            rest = end;
        }
        (rest > 0).then(|| redacted + &text[rest..])
    }
}

impl Form {
    /// What of the text shows the value, of which the start was found at `start`.
    fn extent(&self, text: &str, start: usize) -> (usize, usize) {
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        let (bytes, form) = (text.as_bytes(), self.text.as_bytes());
        let mut end = start + bytes[start..].iter().zip(form).take_while(|(one, other)| one == other).count();
        if self.is_ragged.1 && end - start == form.len() {
            end += usize::from(bytes.get(end).is_some_and(is_base64));
        }
        while !text.is_char_boundary(end) {
            end += 1;
        }
        let before = start.checked_sub(1).filter(|&at| self.is_ragged.0 && is_base64(&bytes[at]));
        (before.unwrap_or(start), end)
    }
}

/// The ways in which a value may be written.
fn forms_of(value: &str) -> BTreeSet<Form> {
    let mut texts = BTreeSet::from([value.to_owned()]);
    for json in [json_escaped(value), json_escaped(value).replace('/', "\\/"), ascii_json(value)] {
        texts.insert(json);
    }
    for unreserved in ["-._~", "-_.!~*'()", "*-._"] {
        for upper in [true, false] {
            let encoded = percent_encoded(value, unreserved, upper);
            texts.insert(encoded.replace("%20", "+"));
            texts.insert(encoded);
        }
    }
    for upper in [true, false] {
        texts.insert(value.bytes().map(|byte| hex(byte, upper)).collect());
    }
    let whole = texts.into_iter().map(|text| Form { text, is_ragged: (false, false) });
    let mut forms: BTreeSet<Form> = whole.collect();
    for alphabet in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.insert(Form { text: alphabet.encode(value), is_ragged: (false, false) });
        forms.extend((0..3).filter_map(|n_before| inner_base64(value, n_before, alphabet)));
    }
    forms.retain(|form| !form.text.is_empty());
    forms
}

/// The characters of base64 that the value alone decides, where so many bytes (modulo 3) stand before it.
fn inner_base64(value: &str, n_before: usize, alphabet: &GeneralPurpose) -> Option<Form> {
    let bytes: Vec<u8> = std::iter::repeat_n(0, n_before).chain(value.bytes()).collect();
    let encoded = alphabet.encode(&bytes);
    let (first, last) = ((n_before * 8).div_ceil(6), bytes.len() * 8 / 6);
    let text = encoded.get(first..last).filter(|text| text.len() >= MIN_INNER_BASE64)?;
    let is_ragged = (n_before > 0, !bytes.len().is_multiple_of(3));
    Some(Form { text: text.to_owned(), is_ragged })
}

/// The value as it stands between the quotes of a JSON string.
fn json_escaped(value: &str) -> String {
    let quoted = Value::from(value).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The same with nothing but ASCII.
fn ascii_json(value: &str) -> String {
    let mut escaped = String::new();
    for char in json_escaped(value).chars() {
        if char.is_ascii() {
            escaped.push(char);
        } else {
            let mut units = [0; 2];
            for unit in char.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

fn percent_encoded(value: &str, unreserved: &str, upper: bool) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || unreserved.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex(byte, upper));
        }
    }
    encoded
}

fn hex(byte: u8, upper: bool) -> String {
    if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use serde_json::json;

    use super::*;

    const VALUE: &str = "p\"4s/s wörd+\\?&=\u{1F511}%zzz";

    fn redactor(secrets: &[(&str, &str)]) -> Redactor {
        let secrets: Vec<(SecretName, Secret)> =
            secrets.iter().map(|(name, value)| (name.parse().unwrap(), Secret::from(*value))).collect();
        Redactor::new(secrets.iter().map(|(name, value)| (name, value))).unwrap()
    }

    fn redacted(redactor: &Redactor, text: &str) -> String {
        let mut text = text.to_owned();
        redactor.redact_text(&mut text);
        text
    }

    #[test]
    fn a_value_is_found_in_every_form_and_what_surrounds_it_stays() {
        let redactor = redactor(&[("KEY", VALUE), ("OTHER", "unrelated")]);
        let url = url_encoded(VALUE);
        let hex: String = VALUE.bytes().map(|byte| hex(byte, false)).collect();
        let json = json!(VALUE).to_string();
        let forms = [
            VALUE.to_owned(),
            json[1..json.len() - 1].to_owned(),
            ascii_json(VALUE),
            url.to_lowercase(),
            url.replace("%20", "+"),
            url,
            hex.to_uppercase(),
            hex,
        ];
        for form in forms {
            let text = format!("<ä {form} {form}ö>");
            let found = redacted(&redactor, &text);
            assert_eq!(found, "<ä [secret KEY] [secret KEY]ö>", "{form}");
        }
    }

    fn url_encoded(value: &str) -> String {
        percent_encoded(value, "-._~", true)
    }

    #[test]
    fn a_value_is_found_in_base64_wherever_it_stands_there() {
        let redactor = redactor(&[("KEY", VALUE)]);
        for (before, after) in
            [("", ""), ("u:", ""), ("ab", "c"), ("abc", "de"), ("user:", ":x"), ("a", "bcd")]
        {
            let text = format!("{before}{VALUE}{after}");
            for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text), STANDARD_NO_PAD.encode(&text)] {
                let found = redacted(&redactor, &format!("Basic {encoded}"));
                assert!(found.contains("[secret KEY]"), "{before} {after}: {found}");
                // What is left of it decodes to the neighbours at most.
                let left = found.len() - "Basic [secret KEY]".len();
                let n_around = before.len() + after.len();
                assert!(left <= n_around.div_ceil(3) * 4 + 2, "{found}");
            }
        }
    }

    #[test]
    fn values_are_found_in_names_of_fields_numbers_and_nested_values() {
        let redactor = redactor(&[("PIN", "8675309"), ("KEY", "hunter2-hunter2")]);
        let mut value = json!({
            "a hunter2-hunter2": [8_675_309, 86_753, "pin 8675309", {"x": "hunter2-hunter2hunter2-hunter2"}],
            "b": null, "c": true
        });
        redactor.redact(&mut value);
        let expected = json!({
            "a [secret KEY]": ["[secret PIN]", 86_753, "pin [secret PIN]", {"x": "[secret KEY][secret KEY]"}],
            "b": null, "c": true
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn the_longest_value_wins_where_one_begins_with_another() {
        let redactor = redactor(&[("A", "hunter2"), ("B", "hunter2-and-more")]);
        assert_eq!(redacted(&redactor, "hunter2-and-more, hunter2-and"), "[secret B], [secret A]-and");
    }

    #[test]
    fn a_long_value_is_taken_out_as_far_as_it_goes() {
        let long: String = (0..20_000).map(|n| format!("{n:x}ß")).collect();
        let redactor = redactor(&[("LONG", &long)]);
        assert_eq!(redacted(&redactor, &format!("a{long}b")), "a[secret LONG]b");
        let encoded = STANDARD.encode(format!("u:{long}"));
        assert!(redacted(&redactor, &encoded).len() < 24);
        let cut = &long[..long.char_indices().nth(5000).unwrap().0];
        assert_eq!(redacted(&redactor, &format!("a{cut}!")), "a[secret LONG]!");
    }

    #[test]
    fn short_values_are_found_as_they_are_and_in_whole_base64() {
        let redactor = redactor(&[("S", "abcd")]);
        let encoded = STANDARD_NO_PAD.encode("abcd");
        assert_eq!(redacted(&redactor, &format!("abcd {encoded} abc")), "[secret S] [secret S] abc");
    }
}

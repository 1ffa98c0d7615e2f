//! One message: its fields, and the bytes that are sent of it.

use std::path::Path;

use gathering_domain::Digest;
use lettre::Address;
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, Message, MultiPart, SinglePart};
use uuid::Uuid;

use super::{MailAddress, MailError};

/// A file of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, without a directory.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A message to be sent. The operator's settings say from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The recipients; at least one.
    pub to: Vec<MailAddress>,
    /// More recipients, whom all see.
    pub cc: Vec<MailAddress>,
    /// More recipients, whom nobody sees.
    pub bcc: Vec<MailAddress>,
    /// Where answers go, if not to the sender.
    pub reply_to: Option<MailAddress>,
    /// The subject, without line breaks.
    pub subject: String,
    /// The text.
    pub text: String,
    /// The same as HTML.
    pub html: Option<String>,
    /// Files.
    pub attachments: Vec<Attachment>,
    /// The key of the effect that sends it, the same on every attempt: the `Message-ID` is made of it.
    pub key: Option<String>,
}

impl Mail {
    /// `<key@domain of the sender>`, with a full stop for each `/` of the key. Without a key it is always another one.
    pub(super) fn message_id(&self, from: &MailAddress) -> String {
        let local = match &self.key {
            Some(key) if is_dot_atom(key) => key.replace('/', "."),
            Some(key) => Digest::of(key.as_bytes()).to_string(),
            None => Uuid::now_v7().to_string(),
        };
        format!("<{local}@{}>", from.domain())
    }

    /// Everybody who gets it, each once.
    pub(super) fn recipients(&self) -> Vec<Address> {
        let mut all: Vec<Address> = Vec::new();
        for one in [&self.to, &self.cc, &self.bcc].into_iter().flatten() {
            if !all.contains(&one.mailbox().email) {
                all.push(one.mailbox().email.clone());
            }
        }
        all
    }

    /// The bytes of the message.
    ///
    /// # Errors
    /// [`MailError::Format`] if it has no recipient.
    pub(super) fn format(&self, from: &MailAddress, message_id: &str) -> Result<Vec<u8>, MailError> {
        let sender = from.mailbox().clone();
        let envelope =
            Envelope::new(Some(sender.email.clone()), self.recipients()).map_err(MailError::Format)?;
        // Automatic answers, such as those of people on holiday, are not wanted (RFC 3834).
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let mut message = Message::builder()
            .envelope(envelope)
            .from(sender)
            .subject(self.subject.as_str())
            .message_id(Some(message_id.to_owned()))
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
        for one in &self.to {
            message = message.to(one.mailbox().clone());
        }
        for one in &self.cc {
            message = message.cc(one.mailbox().clone());
        }
        if let Some(one) = &self.reply_to {
            message = message.reply_to(one.mailbox().clone());
        }
        let text = SinglePart::plain(self.text.clone());
        let built = if self.attachments.is_empty() {
            match &self.html {
                None => message.singlepart(text),
                Some(html) => message.multipart(alternatives(text, html)),
            }
        } else {
            let mixed = MultiPart::mixed();
            let mixed = match &self.html {
                None => mixed.singlepart(text),
                Some(html) => mixed.multipart(alternatives(text, html)),
            };
            message.multipart(self.attachments.iter().map(part_of).fold(mixed, MultiPart::singlepart))
        };
        Ok(built.map_err(MailError::Format)?.formatted())
    }
}

fn alternatives(text: SinglePart, html: &str) -> MultiPart {
    MultiPart::alternative().singlepart(text).singlepart(SinglePart::html(html.to_owned()))
}

fn part_of(attachment: &Attachment) -> SinglePart {
    let guessed = mime_guess::from_path(Path::new(&attachment.name)).first_or_octet_stream();
    // A part of these types must not be encoded (RFC 2046, 5), so it is sent as any other file.
    let is_composite = matches!(guessed.type_().as_str(), "message" | "multipart");
    let media = if is_composite { "application/octet-stream" } else { guessed.essence_str() };
    let media = ContentType::parse(media).unwrap_or(ContentType::TEXT_PLAIN);
    let body = Body::new_with_encoding(
        attachment.bytes.clone(),
        lettre::message::header::ContentTransferEncoding::Base64,
    );
    let body = body.unwrap_or_else(Body::new);
    lettre::message::Attachment::new(attachment.name.clone()).body(body, media)
}

/// Whether a text without `/` is what may stand before the `@` of a `Message-ID` (RFC 5322, 3.6.4).
fn is_dot_atom(key: &str) -> bool {
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    key.len() <= 200 && key.split('/').all(|part| !part.is_empty() && part.bytes().all(is_atom))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(key: Option<&str>) -> String {
        let from: MailAddress = "gathering@example.org".parse().unwrap();
        let mail = Mail {
            to: vec![from.clone()],
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: None,
            subject: String::new(),
            text: String::new(),
            html: None,
            attachments: Vec::new(),
            key: key.map(str::to_owned),
        };
        mail.message_id(&from)
    }

    #[test]
    fn one_key_has_one_message_id_and_two_keys_have_two() {
        assert_eq!(id(Some("run-1/tell")), "<run-1.tell@example.org>");
        assert_eq!(id(Some("run-1/tell/tool/2/0")), "<run-1.tell.tool.2.0@example.org>");
        let long = "k".repeat(201);
        let odd = ["a b", "a>\r\nX: y", "a//b", "/", "", "ä", "a.b", &long];
        let ids: BTreeSet<String> = odd.iter().map(|key| id(Some(key))).collect();
        assert_eq!(ids.len(), odd.len());
        for (key, id) in odd.iter().map(|key| (key, id(Some(key)))) {
            let local = id.trim_start_matches('<').trim_end_matches("@example.org>").to_owned();
            assert!(local.len() == 64 && local.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}: {id}");
            assert_eq!(id, self::id(Some(key)));
        }
        assert_ne!(id(None), id(None));
    }
}

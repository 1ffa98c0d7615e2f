//! The channel `email`: one message by the operator's mail server.

use gathering_domain::{Pointer, Problems};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::mail::{Attachment, Mail, MailAddress, MailError, Mailer};
use crate::tool::{ToolContext, ToolError};
use crate::workspace::{WorkspaceError, WorkspacePath};

/// The most recipients of one message, in all three fields together.
const MAX_RECIPIENTS: usize = 100;
/// The longest subject, in characters.
pub(super) const MAX_SUBJECT_CHARS: usize = 500;
/// The most bytes of all attachments together: 16 MiB, which are 22 MiB when they are sent. Many servers take 25.
const MAX_ATTACHED_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    #[serde(rename = "channel")]
    _channel: String,
    to: Texts,
    #[serde(default)]
    cc: Texts,
    #[serde(default)]
    bcc: Texts,
    #[serde(default)]
    reply_to: Option<String>,
    subject: String,
    message: String,
    #[serde(default)]
    html: Option<String>,
    #[serde(default)]
    attachments: Texts,
}

/// One text, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Texts {
    fn as_slice(&self) -> &[String] {
        match self {
            Texts::One(text) => std::slice::from_ref(text),
            Texts::Many(texts) => texts,
        }
    }
}

/// The texts of a field, each with its place. What is no text is passed over.
fn texts<'a>(params: &'a Value, field: &str) -> Vec<(Pointer, &'a str)> {
    let place = Pointer::root().join(field);
    match &params[field] {
        Value::String(text) => vec![(place, text)],
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.filter_map(|(at, item)| Some((place.join(at), item.as_str()?))).collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn check_values(params: &Value) -> Problems {
    let mut problems = Problems::new();
    let mut n_recipients = 0;
    for field in ["to", "cc", "bcc", "reply_to"] {
        for (place, text) in texts(params, field) {
            n_recipients += usize::from(field != "reply_to");
            if let Err(error) = text.parse::<MailAddress>() {
                problems.add(place, error.to_string());
            }
        }
    }
    let to = Pointer::root().join("to");
    if n_recipients > MAX_RECIPIENTS {
        problems.add(
            to.clone(),
            format!("a message has at most {MAX_RECIPIENTS} recipients in `to`, `cc` and `bcc`"),
        );
    }
    if params["to"].as_array().is_some_and(Vec::is_empty) {
        problems.add(to, "must have at least one address");
    }
    if let Some(subject) = params["subject"].as_str() {
        let place = Pointer::root().join("subject");
        if subject.chars().any(|char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')) {
            problems.add(place, "must not contain line breaks or other control characters");
        }
    }
    for field in ["message", "html"] {
        if params[field].as_str().is_some_and(|text| text.contains('\0')) {
            problems.add(Pointer::root().join(field), "must not contain the character NUL");
        }
    }
    for (place, path) in texts(params, "attachments") {
        match path.parse::<WorkspacePath>() {
            Ok(path) if path.is_root() => problems.add(place, "must be the path of a file"),
            Ok(_) => {}
            Err(error) => problems.add(place, error.to_string()),
        }
    }
    problems
}

pub(super) async fn send(
    mailer: Option<&Mailer>,
    params: Params,
    context: &ToolContext,
) -> Result<Value, ToolError> {
    let mailer = mailer.ok_or_else(|| ToolError::NotConfigured {
        message: "no mail server is set up: set GATHERING_SMTP_HOST and GATHERING_SMTP_FROM".to_owned(),
    })?;
    let _turn = mailer.turn().await;
    let mail = Mail {
        to: addresses("to", params.to.as_slice())?,
        cc: addresses("cc", params.cc.as_slice())?,
        bcc: addresses("bcc", params.bcc.as_slice())?,
        reply_to: addresses("reply_to", params.reply_to.as_slice())?.pop(),
        subject: params.subject,
        text: params.message,
        html: params.html,
        attachments: attached(params.attachments.as_slice(), context).await?,
        key: context.idempotency_key.clone(),
    };
    let sent = mailer.send(&mail).await?;
    Ok(json!({
        "delivered": true, "message_id": sent.message_id, "recipients": sent.recipients, "response": sent.response
    }))
}

fn addresses(field: &str, texts: &[String]) -> Result<Vec<MailAddress>, ToolError> {
    let wrong = |error: crate::mail::InvalidMailAddress| {
        ToolError::InvalidParameters(Problems::one(Pointer::root().join(field), error.to_string()))
    };
    texts.iter().map(|text| text.parse().map_err(wrong)).collect()
}

async fn attached(paths: &[String], context: &ToolContext) -> Result<Vec<Attachment>, ToolError> {
    let mut attached = Vec::new();
    let mut left = MAX_ATTACHED_BYTES;
    for text in paths {
        let failed = |source| match source {
            WorkspaceError::TooLarge { .. } => {
                MailError::AttachmentsTooLarge { limit_bytes: MAX_ATTACHED_BYTES }
            }
            source => MailError::Attachment { path: text.clone(), source },
        };
        let path: WorkspacePath = text.parse().map_err(failed)?;
        let bytes = context.workspace()?.read(&path, left).await.map_err(failed)?.bytes;
        left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let name = path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        attached.push(Attachment { name, bytes });
    }
    Ok(attached)
}

//! `send_notification`: notifies another system by webhook, or people by e-mail.

mod email;
mod webhook;

use async_trait::async_trait;
use gathering_domain::{EffectClass, Pointer, Problems};
use serde_json::{Value, json};

use super::read_params;
use crate::mail::Mailer;
use crate::outbound::Outbound;
use crate::spec::{ToolSource, ToolSpec};
use crate::tool::{Tool, ToolContext, ToolError};
use crate::webhook::WebhookKeys;
use crate::workspace::WorkspacePath;

/// What the operator has set up for notifications. By default: no mail server, and no keys of webhooks.
#[derive(Debug, Clone, Default)]
pub struct NotificationChannels {
    /// Sends e-mail.
    pub mailer: Option<Mailer>,
    /// The keys that sign webhooks.
    pub webhook_keys: WebhookKeys,
}

/// Posts JSON to a webhook, or sends e-mail. Delivered is what the other side has confirmed: a status of 200 to 299, or the
/// mail server's answer to the message.
#[derive(Debug)]
pub struct SendNotification {
    spec: ToolSpec,
    outbound: Outbound,
    channels: NotificationChannels,
}

impl SendNotification {
    /// The tool, which posts through `outbound`, and signs and sends e-mail with what `channels` has.
    pub fn new(outbound: Outbound, channels: NotificationChannels) -> Self {
        let spec = ToolSpec {
            name: "send_notification".to_owned(),
            description:
                "Notifies another system: posts JSON to a webhook. The body is the payload, with the message \
                          as its field `message`."
                    .to_owned(),
            parameters: json!({
                "type": "object",
                "additionalProperties": false,
                "required": ["channel"],
                "properties": properties()
            }),
            class: EffectClass::Unsafe,
            source: ToolSource::BuiltIn,
        };
        Self { spec, outbound, channels }
    }

    /// What is wrong with the values of these fields, whatever else a notification needs. Values of the wrong type are
    /// passed over: a schema says that.
    pub fn check_values(params: &Value) -> Problems {
        match params["channel"].as_str() {
            Some("webhook") => webhook::check_values(params),
            Some("email") => email::check_values(params),
            _ => Problems::new(),
        }
    }
}

/// The fields of each channel, besides `channel`.
const WEBHOOK_FIELDS: [&str; 5] = ["url", "message", "payload", "headers", "sign_with"];
const EMAIL_FIELDS: [&str; 8] = ["to", "cc", "bcc", "reply_to", "subject", "message", "html", "attachments"];

fn properties() -> Value {
    json!({
        "channel": {"description": "How to notify.", "enum": ["webhook", "email"]},
        "url": {
            "description": "webhook: its http or https URL.",
            "type": "string", "minLength": 1, "maxLength": 8192
        },
        "message": {"description": "The text.", "type": "string", "maxLength": 65536},
        "payload": {"description": "webhook: fields to send.", "type": "object"},
        "headers": {
            "description": "webhook: headers to send.",
            "type": "object", "maxProperties": 64,
            "additionalProperties": {"type": "string", "maxLength": 16384}
        },
        "sign_with": {
            "description": "webhook: the name of the operator's key that signs it.",
            "type": "string", "minLength": 1, "maxLength": 64
        },
        "to": texts("email: the addresses of its recipients"),
        "cc": texts("email: the addresses of more recipients"),
        "bcc": texts("email: the addresses of more recipients, whom the others do not see"),
        "reply_to": {"description": "email: the address for answers.", "type": "string"},
        "subject": {
            "description": "email: its subject.",
            "type": "string", "minLength": 1, "maxLength": email::MAX_SUBJECT_CHARS
        },
        "html": {"description": "email: the message as HTML.", "type": "string", "maxLength": 1_048_576},
        "attachments": texts("email: files of the workspace to attach, by their paths")
    })
}

/// One text, or a list of them.
fn texts(what: &str) -> Value {
    json!({
        "description": format!("{what}, as a text or a list."),
        "type": ["string", "array"], "minLength": 1, "maxLength": WorkspacePath::MAX_LEN, "maxItems": 100,
        "items": {"type": "string", "minLength": 1, "maxLength": WorkspacePath::MAX_LEN}
    })
}

/// A required field that is not there.
fn require(problems: &mut Problems, params: &Value, name: &str) {
    if params.get(name).is_none() {
        problems.add(Pointer::root().join(name), "is required");
    }
}

#[async_trait]
impl Tool for SendNotification {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn check(&self, params: &Value) -> Problems {
        let mut problems = Self::check_values(params);
        let own: &[&str] = match params["channel"].as_str() {
            Some("webhook") => {
                require(&mut problems, params, "url");
                if params.get("message").is_none() && params.get("payload").is_none() {
                    let place = Pointer::root().join("message");
                    problems.add(place, "is required: give `message`, `payload` or both");
                }
                &WEBHOOK_FIELDS
            }
            Some("email") => {
                for name in ["to", "subject", "message"] {
                    require(&mut problems, params, name);
                }
                &EMAIL_FIELDS
            }
            _ => return problems,
        };
        for name in WEBHOOK_FIELDS.iter().chain(&EMAIL_FIELDS) {
            if !own.contains(name) && params.get(name).is_some() {
                problems.add(Pointer::root().join(name), "belongs to the other channel");
            }
        }
        problems
    }

    /// A webhook that arrives twice, with one key, is better than one that never arrives. Mail servers know no such key.
    fn class_of(&self, params: &Value) -> EffectClass {
        if params["channel"] == "webhook" { EffectClass::Idempotent } else { EffectClass::Unsafe }
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let NotificationChannels { mailer, webhook_keys } = &self.channels;
        if params["channel"] == "email" {
            email::send(mailer.as_ref(), read_params(params)?, context).await
        } else {
            webhook::post(&self.outbound, webhook_keys, read_params(params)?, context).await
        }
    }
}

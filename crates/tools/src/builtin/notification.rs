//! `send_notification`: notifies another system by webhook.

mod webhook;

use async_trait::async_trait;
use gathering_domain::{EffectClass, Pointer, Problems};
use serde_json::{Value, json};

use super::read_params;
use crate::outbound::Outbound;
use crate::spec::{ToolSource, ToolSpec};
use crate::tool::{Tool, ToolContext, ToolError};
use crate::webhook::WebhookKeys;

/// What the operator has set up for notifications. By default: no keys of webhooks.
#[derive(Debug, Clone, Default)]
pub struct NotificationChannels {
    /// The keys that sign webhooks.
    pub webhook_keys: WebhookKeys,
}

/// Posts a message or a payload to a webhook. Only a status of 200 to 299 counts as delivered.
#[derive(Debug)]
pub struct SendNotification {
    spec: ToolSpec,
    outbound: Outbound,
    channels: NotificationChannels,
}

impl SendNotification {
    /// The tool, which posts through `outbound` and signs with the keys of `channels`.
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
            // A notification that arrives twice, with one key, is better than one that never arrives.
            class: EffectClass::Idempotent,
            source: ToolSource::BuiltIn,
        };
        Self { spec, outbound, channels }
    }

    /// What is wrong with the values of these fields, whatever else a notification needs. Values of the wrong type are
    /// passed over: a schema says that.
    pub fn check_values(params: &Value) -> Problems {
        match params["channel"].as_str() {
            Some("webhook") => webhook::check_values(params),
            _ => Problems::new(),
        }
    }
}

fn properties() -> Value {
    json!({
        "channel": {"description": "How to notify.", "enum": ["webhook"]},
        "url": {
            "description": "The webhook's http or https URL.",
            "type": "string", "minLength": 1, "maxLength": 8192
        },
        "message": {"description": "The text.", "type": "string", "maxLength": 65536},
        "payload": {"description": "Fields to send.", "type": "object"},
        "headers": {
            "description": "Headers to send.",
            "type": "object", "maxProperties": 64,
            "additionalProperties": {"type": "string", "maxLength": 16384}
        },
        "sign_with": {
            "description": "The name of the operator's key that signs the webhook.",
            "type": "string", "minLength": 1, "maxLength": 64
        }
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
        if params["channel"] == "webhook" {
            require(&mut problems, params, "url");
            if params.get("message").is_none() && params.get("payload").is_none() {
                let place = Pointer::root().join("message");
                problems.add(place, "is required: give `message`, `payload` or both");
            }
        }
        problems
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        webhook::post(&self.outbound, &self.channels.webhook_keys, read_params(params)?, context).await
    }
}

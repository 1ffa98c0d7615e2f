//! `send_notification`: notifies another system by webhook.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::read_params;
use crate::outbound::{Outbound, OutboundRequest};
use crate::spec::{ToolSource, ToolSpec};
use crate::tool::{Tool, ToolContext, ToolError};
use gathering_domain::EffectClass;

/// Posts a message or a payload to a webhook. Only a status of 200 to 299 counts as delivered.
#[derive(Debug)]
pub struct SendNotification {
    spec: ToolSpec,
    outbound: Outbound,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(rename = "channel")]
    _channel: String,
    url: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    payload: Map<String, Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl SendNotification {
    /// The tool, which sends through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        let spec = ToolSpec {
            name: "send_notification".to_owned(),
            description:
                "Notifies another system: posts JSON to a webhook. The body is the payload, with the message \
                          as its field `message`."
                    .to_owned(),
            parameters: json!({
                "type": "object",
                "additionalProperties": false,
                "required": ["channel", "url"],
                "anyOf": [{"required": ["message"]}, {"required": ["payload"]}],
                "properties": {
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
                    }
                }
            }),
            // A notification that arrives twice, with one key, is better than one that never arrives.
            class: EffectClass::Idempotent,
            source: ToolSource::BuiltIn,
        };
        Self { spec, outbound }
    }
}

#[async_trait]
impl Tool for SendNotification {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let mut params: Params = read_params(params)?;
        if let Some(message) = params.message.take() {
            params.payload.insert("message".to_owned(), Value::String(message));
        }
        let mut request = OutboundRequest::new("POST", &params.url)?;
        for (name, value) in &params.headers {
            request = request.header(name, value)?;
        }
        if let Some(key) = &context.idempotency_key {
            request = request.idempotency_key(key)?;
        }
        let host = request.host();
        let answer = self.outbound.send(request.body(&Value::Object(params.payload))).await?;
        if answer.is_success() {
            Ok(json!({"delivered": true, "status": answer.status}))
        } else {
            Err(ToolError::Status { host, status: answer.status })
        }
    }
}

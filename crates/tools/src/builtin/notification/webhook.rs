//! The channel `webhook`: JSON by POST, with the headers of the Standard Webhooks specification.

use std::collections::BTreeMap;

use chrono::Utc;
use gathering_domain::{Pointer, Problems};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::outbound::{Outbound, OutboundError, OutboundRequest};
use crate::tool::{ToolContext, ToolError};
use crate::webhook::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, WebhookKeys, sign_webhook};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    #[serde(rename = "channel")]
    _channel: String,
    url: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    payload: Map<String, Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    sign_with: Option<String>,
}

/// Headers that say what the message is and who sent it. A caller that sets one would break the signature.
fn is_reserved(name: &str) -> bool {
    [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE].iter().any(|own| name.eq_ignore_ascii_case(own))
}

pub(super) fn check_values(params: &Value) -> Problems {
    let mut problems = Problems::new();
    if let Some(Err(error)) = params["url"].as_str().map(|url| OutboundRequest::new("POST", url)) {
        problems.add(Pointer::root().join("url"), reason_of(&error));
    }
    for (name, value) in params["headers"].as_object().into_iter().flatten() {
        let place = Pointer::root().join("headers").join(name);
        if is_reserved(name) {
            problems.add(place, "GatheRing sets this header; remove it");
            continue;
        }
        let set = OutboundRequest::new("POST", "http://localhost/")
            .and_then(|request| request.header(name, value.as_str().unwrap_or_default()));
        if let Err(error) = set {
            problems.add(place, reason_of(&error));
        }
    }
    problems
}

fn reason_of(error: &OutboundError) -> String {
    match error {
        OutboundError::InvalidRequest { reason } => reason.clone(),
        other => other.to_string(),
    }
}

/// Posts a notification. The bytes that are signed are the bytes that are sent.
pub(super) async fn post(
    outbound: &Outbound,
    keys: &WebhookKeys,
    mut params: Params,
    context: &ToolContext,
) -> Result<Value, ToolError> {
    if let Some(message) = params.message.take() {
        params.payload.insert("message".to_owned(), Value::String(message));
    }
    let mut request = OutboundRequest::new("POST", &params.url)?.body(&Value::Object(params.payload));
    for (name, value) in &params.headers {
        request = request.header(name, value)?;
    }
    if let Some(key) = &context.idempotency_key {
        request = request.idempotency_key(key)?;
    }
    let id = webhook_id(context);
    let now = Utc::now().timestamp();
    if let Some(name) = &params.sign_with {
        let found = keys.find(name).ok_or_else(|| ToolError::NotConfigured {
            message: format!(
                "no key has the name `{name}`: add a line to the file of GATHERING_WEBHOOK_KEYS_FILE, and restart the server"
            ),
        })?;
        let signature = sign_webhook(found, &id, now, request.body_bytes());
        request = request.header(WEBHOOK_SIGNATURE, &signature)?;
    }
    request = request.header(WEBHOOK_ID, &id)?.header(WEBHOOK_TIMESTAMP, &now.to_string())?;
    let host = request.host();
    let answer = outbound.send(request).await?;
    if answer.is_success() {
        Ok(json!({"delivered": true, "status": answer.status}))
    } else {
        Err(ToolError::Status { host, status: answer.status })
    }
}

/// The idempotency key of the call, so that each attempt has the same id. The signed text separates the id by a full
/// stop, so an id has none.
fn webhook_id(context: &ToolContext) -> String {
    let key = context.idempotency_key.as_ref();
    key.map_or_else(|| format!("msg_{}", Uuid::now_v7().simple()), |key| key.replace('.', "_"))
}

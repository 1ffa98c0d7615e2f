//! `resources/…`: what can be read at an address.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::reply::listed;
use super::request::Request;
use super::{McpOffer, OfferError};
use crate::message::RpcError;

/// The code of an absent resource until 2025-11-25; since then it is a wrong parameter.
const LEGACY_NOT_FOUND: i64 = -32002;

/// None is listed: there are as many as files and runs. Their forms are.
pub(super) fn list(request: &Request) -> Value {
    listed(request, json!({"resources": []}))
}

pub(super) fn list_templates<O: McpOffer>(offer: &O, request: &Request) -> Value {
    let shown = |template: super::ResourceTemplate| {
        let mut shown = json!({
            "uriTemplate": template.uri_template,
            "name": template.name,
            "description": template.description,
        });
        if let Some(mime_type) = template.mime_type {
            shown["mimeType"] = json!(mime_type);
        }
        shown
    };
    let templates: Vec<Value> = offer.resource_templates().into_iter().map(shown).collect();
    listed(request, json!({ "resourceTemplates": templates }))
}

pub(super) async fn read<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    request: &Request,
) -> Result<Value, RpcError> {
    let uri = request.text("uri")?;
    let content = match offer.read_resource(caller, uri).await {
        Err(OfferError::NotFound(message)) if !request.is_modern => {
            return Err(RpcError::new(LEGACY_NOT_FOUND, &message));
        }
        read => read?,
    };
    let mut shown = json!({"uri": uri, "mimeType": content.mime_type});
    match String::from_utf8(content.bytes) {
        Ok(text) => shown["text"] = json!(text),
        Err(binary) => shown["blob"] = json!(STANDARD.encode(binary.as_bytes())),
    }
    Ok(listed(request, json!({"contents": [shown]})))
}

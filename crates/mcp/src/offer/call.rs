//! `tools/list` and `tools/call`.

use gathering_domain::EffectClass;
use serde_json::{Value, json};

use super::error::{INVALID_PARAMS, OfferError};
use super::reply::listed;
use super::request::Request;
use super::{Called, McpOffer, OfferedCall, OfferedResult, OfferedTool, tasks};
use crate::message::RpcError;

pub(super) async fn list<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    request: &Request,
) -> Result<Value, RpcError> {
    let page = offer.list_tools(caller, request.cursor()).await?;
    let tools: Vec<Value> = page.tools.into_iter().map(|tool| shown(tool, request.is_modern)).collect();
    let mut list = json!({ "tools": tools });
    if let Some(cursor) = page.next_cursor {
        list["nextCursor"] = json!(cursor);
    }
    Ok(listed(request, list))
}

fn shown(tool: OfferedTool, is_modern: bool) -> Value {
    let OfferedTool { name, title, description, input_schema, class, may_be_task } = tool;
    let mut shown = json!({
        "name": name,
        "description": description,
        "annotations": {
            "readOnlyHint": class == EffectClass::Pure,
            "idempotentHint": class != EffectClass::Unsafe,
            "destructiveHint": class == EffectClass::Unsafe,
            "openWorldHint": true,
        },
    });
    // Moved, as `json!` would copy it: schemas are most of a long list.
    shown["inputSchema"] = input_schema;
    if let Some(title) = title {
        shown["title"] = json!(title);
    }
    // Since 2026-07-28 the server decides which call becomes a task, and the tool says nothing of it.
    if may_be_task && !is_modern {
        shown["execution"] = json!({"taskSupport": "optional"});
    }
    shown
}

pub(super) async fn call<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    request: &Request,
) -> Result<Value, RpcError> {
    let tool = request.text("name")?.to_owned();
    let arguments = match &request.params["arguments"] {
        Value::Null => json!({}),
        arguments @ Value::Object(_) => arguments.clone(),
        _ => return Err(RpcError::new(INVALID_PARAMS, "`params.arguments` must be an object")),
    };
    let may_be_task = tasks::follows(request);
    match offer.call_tool(caller, OfferedCall { tool, arguments, may_be_task }).await {
        Ok(Called::Ended(result)) => Ok(result.shown()),
        Ok(Called::Task(task)) => Ok(tasks::created(&task, request)),
        // A model can correct what it did wrong, if it reads of it.
        Err(error @ (OfferError::Invalid(_) | OfferError::Forbidden(_) | OfferError::Conflict(_))) => {
            Ok(OfferedResult::failed(error.to_string()).shown())
        }
        Err(error) => Err(error.into()),
    }
}

impl OfferedResult {
    /// As both generations show it: as text, and an object also as what it is.
    pub(super) fn shown(&self) -> Value {
        let text = match &self.output {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut shown = json!({"content": [{"type": "text", "text": text}], "isError": self.is_error});
        if self.output.is_object() {
            shown["structuredContent"] = self.output.clone();
        }
        shown
    }
}

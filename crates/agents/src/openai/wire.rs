//! The protocol's JSON.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::chat::{ChatReply, ChatRequest, FinishReason, Message, ToolCall, Usage};

/// The body of a request. OpenAI's newer models use another name for the token limit than all other servers.
pub(super) fn request(request: &ChatRequest, official: bool) -> Value {
    let system = (!request.system.is_empty()).then(|| json!({"role": "system", "content": request.system}));
    let messages: Vec<Value> = system.into_iter().chain(request.messages.iter().map(message)).collect();
    let mut body = json!({"model": request.model, "messages": messages, "stream": false});
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| json!({"type": "function", "function": tool}));
        body["tools"] = tools.collect();
    }
    if let Some(temperature) = request.temperature {
        body["temperature"] = json!(temperature);
    }
    if let Some(max_tokens) = request.max_tokens {
        body[if official { "max_completion_tokens" } else { "max_tokens" }] = json!(max_tokens);
    }
    body
}

fn message(message: &Message) -> Value {
    match message {
        Message::User { content } => json!({"role": "user", "content": content}),
        Message::Assistant { content, tool_calls } => {
            let mut said = json!({"role": "assistant", "content": content});
            if !tool_calls.is_empty() {
                said["tool_calls"] = tool_calls.iter().map(tool_call).collect();
            }
            said
        }
        Message::Tool { call_id, result } => {
            let content = match &result.content {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            json!({"role": "tool", "tool_call_id": call_id, "content": content})
        }
    }
}

/// Arguments that are no object do not go back as they came: some servers read them again, and fail for good (llama.cpp
/// with status 500). The result of the call says what was wrong with them.
fn tool_call(call: &ToolCall) -> Value {
    let arguments = if call.arguments.is_object() { call.arguments.to_string() } else { "{}".to_owned() };
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}

#[derive(Deserialize)]
struct WireReply {
    #[serde(default)]
    model: Option<String>,
    choices: Vec<WireChoice>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireChoice {
    message: WireMessage,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<WireToolCall>>,
}

#[derive(Deserialize)]
struct WireToolCall {
    #[serde(default)]
    id: Option<String>,
    function: WireFunction,
}

#[derive(Deserialize)]
struct WireFunction {
    name: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// Reads an answer. The error says what is wrong and repeats nothing of the answer.
pub(super) fn reply(body: &[u8], provider: &str, asked_model: &str) -> Result<ChatReply, String> {
    let reply: WireReply = serde_json::from_slice(body).map_err(|error| {
        format!("it is not a chat completion (line {}, column {})", error.line(), error.column())
    })?;
    let choice = reply.choices.into_iter().next().ok_or("it has no choice")?;
    let calls = choice.message.tool_calls.unwrap_or_default();
    let tool_calls: Vec<ToolCall> =
        calls.into_iter().enumerate().map(|(at, call)| read_call(at, call)).collect();
    let refused = choice.message.refusal.is_some();
    let finish_reason = match choice.finish_reason.as_deref() {
        Some("length") => FinishReason::Length,
        Some("content_filter") => FinishReason::Refused,
        _ if refused => FinishReason::Refused,
        // Whatever the server calls it.
        _ if !tool_calls.is_empty() => FinishReason::ToolCalls,
        Some("stop") | None => FinishReason::Stop,
        Some(_) => FinishReason::Other,
    };
    let usage = reply.usage.map_or(Usage::default(), |usage| Usage {
        input_tokens: usage.prompt_tokens,
        output_tokens: usage.completion_tokens,
    });
    Ok(ChatReply {
        content: choice.message.content.or(choice.message.refusal).unwrap_or_default(),
        tool_calls,
        usage,
        finish_reason,
        provider: provider.to_owned(),
        model: reply.model.filter(|model| !is_path(model)).unwrap_or_else(|| asked_model.to_owned()),
    })
}

/// Whether a server names its model by the place of its file, as llama.cpp does without an alias. Names have slashes, too.
fn is_path(model: &str) -> bool {
    model.starts_with(['/', '.', '~']) || model.contains('\\')
}

fn read_call(at: usize, call: WireToolCall) -> ToolCall {
    // The protocol sends the arguments as JSON in a string. Some servers send the value itself, or nothing.
    let arguments = match call.function.arguments {
        Value::Null => Value::Object(Map::new()),
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        value => value,
    };
    let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{at}"));
    ToolCall { id, name: call.function.name, arguments }
}

/// The message of an error response: `error.message`, `error` or `message`.
pub(super) fn error_message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let found = [body.pointer("/error/message"), body.get("error"), body.get("message")];
    found.into_iter().flatten().find_map(|value| value.as_str().map(str::to_owned))
}

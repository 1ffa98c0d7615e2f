//! The protocol's JSON.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call_ids::CallIds;
use super::schema;
use crate::chat::{ChatReply, ChatRequest, FinishReason, Message, ToolCall, ToolDescription, Usage};

/// How an answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) streaming: Streaming,
    /// Whether the schema of the answer is a field of the request. The model reads it in any case.
    pub(super) has_schema: bool,
}

/// Whether an answer comes in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streaming {
    /// As a stream that ends with the usage.
    WithUsage,
    /// As a stream.
    Plain,
    /// At once.
    Off,
}

impl Form {
    /// The form to ask for once more, if the server refuses this one. OpenAI lets only some callers stream some models.
    pub(super) fn simpler(self, status: u16, body: &[u8], said: &Value) -> Option<Form> {
        if !matches!(status, 400 | 422) {
            return None;
        }
        let param = said.pointer("/error/param").and_then(Value::as_str);
        if self.streaming != Streaming::Off && param == Some("stream") {
            return Some(Form { streaming: Streaming::Off, ..self });
        }
        let text = String::from_utf8_lossy(body);
        if self.streaming == Streaming::WithUsage && text.contains("stream_options") {
            return Some(Form { streaming: Streaming::Plain, ..self });
        }
        let names_schema =
            ["response_format", "schema"].iter().any(|name| text.to_lowercase().contains(name));
        (self.has_schema && names_schema).then_some(Form { has_schema: false, ..self })
    }
}

/// The body of a request. OpenAI's newer models use another name for the token limit than all other servers.
///
/// The answer is streamed, because most servers generate an answer that nobody reads to its end, unless they write to a
/// connection that is closed.
pub(super) fn request(request: &ChatRequest, official: bool, form: Form) -> Value {
    let system = system(request);
    let system = (!system.is_empty()).then(|| json!({"role": "system", "content": system}));
    let mut ids = CallIds::default();
    let messages = request.messages.iter().map(|said| message(said, &mut ids));
    let messages: Vec<Value> = system.into_iter().chain(messages).collect();
    let mut body =
        json!({"model": request.model, "messages": messages, "stream": form.streaming != Streaming::Off});
    if form.streaming == Streaming::WithUsage {
        body["stream_options"] = json!({"include_usage": true});
    }
    if !request.tools.is_empty() {
        body["tools"] = request.tools.iter().map(tool).collect();
    }
    let output = request.output_schema.as_ref().filter(|_| form.has_schema);
    if let Some(output) = output.and_then(schema::of_answer) {
        // Not strict: that takes only schemas without optional fields. The answer is checked in any case.
        let answer = json!({"name": "answer", "schema": output});
        body["response_format"] = json!({"type": "json_schema", "json_schema": answer});
    }
    if let Some(temperature) = request.temperature {
        body["temperature"] = json!(temperature);
    }
    // Without a bound, a small model may repeat itself until its time is over. OpenAI's own models have one each, and
    // count their reasoning.
    let bound = request.max_tokens.or((!official).then_some(ChatRequest::ANSWER_TOKENS));
    if let Some(max_tokens) = bound {
        body[if official { "max_completion_tokens" } else { "max_tokens" }] = json!(max_tokens);
    }
    body
}

/// The system prompt. Servers that keep a model to the schema do not tell it the schema.
fn system(request: &ChatRequest) -> String {
    let Some(output) = &request.output_schema else { return request.system.clone() };
    let told = format!("Your answer must be only JSON that fits this JSON Schema: {output}");
    if request.system.is_empty() { told } else { format!("{}\n\n{told}", request.system) }
}

fn tool(tool: &ToolDescription) -> Value {
    let parameters = schema::of_parameters(&tool.parameters);
    let function = json!({"name": tool.name, "description": tool.description, "parameters": parameters});
    json!({"type": "function", "function": function})
}

fn message(message: &Message, ids: &mut CallIds) -> Value {
    match message {
        Message::User { content } => json!({"role": "user", "content": content}),
        Message::Assistant { content, tool_calls } => {
            let mut said = json!({"role": "assistant", "content": content});
            let ids = ids.of_reply(tool_calls);
            if !tool_calls.is_empty() {
                said["tool_calls"] =
                    tool_calls.iter().zip(ids).map(|(call, id)| tool_call(call, &id)).collect();
            }
            said
        }
        Message::Tool { call_id, result } => {
            let content = match &result.content {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            json!({"role": "tool", "tool_call_id": ids.of_result(call_id), "content": content})
        }
    }
}

/// Arguments that are no object do not go back as they came: some servers read them again, and fail for good (llama.cpp
/// with status 500). The result of the call says what was wrong with them.
fn tool_call(call: &ToolCall, id: &str) -> Value {
    let arguments = if call.arguments.is_object() { call.arguments.to_string() } else { "{}".to_owned() };
    json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}

/// An answer.
#[derive(Deserialize)]
pub(super) struct WireReply {
    #[serde(default)]
    pub(super) model: Option<String>,
    pub(super) choices: Vec<WireChoice>,
    #[serde(default)]
    pub(super) usage: Option<WireUsage>,
}

#[derive(Deserialize)]
pub(super) struct WireChoice {
    pub(super) message: WireMessage,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct WireMessage {
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) refusal: Option<String>,
    #[serde(default)]
    pub(super) tool_calls: Option<Vec<WireToolCall>>,
}

#[derive(Deserialize)]
pub(super) struct WireToolCall {
    #[serde(default)]
    pub(super) id: Option<String>,
    pub(super) function: WireFunction,
}

#[derive(Deserialize)]
pub(super) struct WireFunction {
    pub(super) name: String,
    #[serde(default)]
    pub(super) arguments: Value,
}

#[derive(Deserialize)]
pub(super) struct WireUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// Why there is no answer, although the server accepted the request.
pub(super) enum Fault {
    /// It violates the protocol. The reason repeats nothing of it.
    Malformed(String),
    /// It is an error: what the server says in its `error`.
    Said(Value),
}

/// Reads an answer that is not streamed.
pub(super) fn reply(body: &[u8], provider: &str, asked_model: &str) -> Result<ChatReply, Fault> {
    if let Some(error) = said_instead(body) {
        return Err(Fault::Said(error));
    }
    let reply: WireReply = serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Fault::Malformed(format!("it is not a chat completion ({place})"))
    })?;
    reply.into_chat(provider, asked_model)
}

/// The error that a server gives instead of an answer, and with the status of one.
fn said_instead(body: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Instead {
        object: Option<Value>,
        error: Option<Value>,
    }
    let Instead { object, error } = serde_json::from_slice(body).ok()?;
    match object {
        // Older servers of vLLM.
        Some(object) if object == "error" => serde_json::from_slice(body).ok(),
        _ => error.filter(says_something),
    }
}

/// Whether there is an error: some servers send an empty one with every answer.
pub(super) fn says_something(error: &Value) -> bool {
    match error {
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => false,
    }
}

impl WireReply {
    /// The answer as everybody reads it.
    pub(super) fn into_chat(self, provider: &str, asked_model: &str) -> Result<ChatReply, Fault> {
        let choice = self.choices.into_iter().next();
        let choice = choice.ok_or_else(|| Fault::Malformed("it has no choice".to_owned()))?;
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
        let usage = self.usage.map_or(Usage::default(), |usage| Usage {
            input_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
        });
        Ok(ChatReply {
            content: choice.message.content.or(choice.message.refusal).unwrap_or_default(),
            tool_calls,
            usage,
            finish_reason,
            provider: provider.to_owned(),
            model: self.model.filter(|model| !is_path(model)).unwrap_or_else(|| asked_model.to_owned()),
        })
    }
}

/// Whether a server names its model by the place of its file, as llama.cpp does without an alias. Names have slashes, too.
fn is_path(model: &str) -> bool {
    let is_file = model.to_ascii_lowercase().ends_with(".gguf");
    is_file || model.starts_with(['/', '.', '~']) || model.contains('\\')
}

fn read_call(at: usize, call: WireToolCall) -> ToolCall {
    // The protocol sends the arguments as JSON in a string. Some servers send the value itself, or nothing.
    let arguments = match call.function.arguments {
        Value::Null => Value::Object(Map::new()),
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        // A text stays as it is written, so that one can tell whether it is JSON.
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::String(_)) | Err(_) => Value::String(text),
            Ok(value) => value,
        },
        value => value,
    };
    let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{at}"));
    ToolCall { id, name: call.function.name, arguments }
}

/// The message of an error response: `error.message`, `error` or `message`.
pub(super) fn error_message(body: &Value) -> Option<String> {
    let found = [body.pointer("/error/message"), body.get("error"), body.get("message")];
    found.into_iter().flatten().find_map(|value| value.as_str().map(str::to_owned))
}

/// What the operator can do about a refusal with these words.
pub(super) fn advice(words: &str) -> &'static str {
    match ["max_tokens", "max_completion_tokens"].iter().any(|name| words.contains(name)) {
        true => ": set the right `max_answer_tokens` in the agent's `limits`",
        false => "",
    }
}

/// The status that an error in an answer stands for. Its code is a number, or a text; whatever says nothing about the
/// request is a failure of the server.
pub(super) fn status_of(error: &Value) -> u16 {
    let code = error.get("code").or_else(|| error.get("status"));
    let code = code.and_then(|code| code.as_u64().or_else(|| code.as_str()?.trim().parse().ok()));
    if let Some(code) =
        code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..500).contains(code))
    {
        return code;
    }
    let says = |words: [&str; 2]| {
        let named = ["code", "type"].iter().filter_map(|name| error.get(name)?.as_str());
        named.into_iter().any(|name| words.iter().any(|word| name.contains(word)))
    };
    match () {
        () if says(["rate_limit", "too_many_requests"]) => 429,
        () if says(["invalid_request", "context_length"]) => 400,
        () => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_server_bounds_its_models_and_has_its_own_name_for_a_bound() {
        let asked = |max_tokens, official| {
            let (model, system, messages) = ("m".to_owned(), String::new(), Vec::new());
            let tools = Vec::new();
            let asked = ChatRequest {
                model,
                system,
                messages,
                tools,
                temperature: None,
                max_tokens,
                output_schema: None,
            };
            let body = request(&asked, official, Form { streaming: Streaming::Plain, has_schema: false });
            ["max_tokens", "max_completion_tokens"].map(|name| body.get(name).and_then(Value::as_u64))
        };
        assert_eq!(asked(None, true), [None, None]);
        assert_eq!(asked(Some(7), true), [None, Some(7)]);
        assert_eq!(asked(None, false), [Some(4096), None]);
        assert_eq!(asked(Some(9000), false), [Some(9000), None]);
    }
}

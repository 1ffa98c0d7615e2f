//! The provider `scripted`, which answers without a model and always gives the same answer to the same question.
//!
//! Owns two ways to answer: from a list of replies, for tests; or from the text of the prompt, for demos and for
//! installations without a model. Every reply names `scripted` as its provider.

mod directive;
mod text;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;

use crate::chat::{ChatReply, ChatRequest, FinishReason, Message, ToolCall, Usage};
use crate::model::{ChatModel, ModelError};
use directive::{Directives, Style};

/// The name of the provider, and of the model in its replies.
const NAME: &str = "scripted";

/// Answers without a model.
///
/// [`Scripted::from_prompt`] composes its answer from sentences of the prompt. Lines in the agent's instructions
/// control it. Each stands on its own line, anywhere in the instructions:
///
/// | line | effect |
/// |---|---|
/// | `scripted: summary` | the most central sentences in their order, the topics, and the length of the text (the
/// default) |
/// | `scripted: keywords` | the most frequent keywords with their counts |
/// | `scripted: outline` | the headings, or the first sentence of each paragraph, as a list |
/// | `scripted: combine` | each part (a heading with its text, or a paragraph) in one sentence, then the common topics
/// |
/// | `scripted: call TOOL {JSON}` | first calls the tool, one such line per turn; `"$prompt"` and `"$answer"` as whole
/// values stand for the prompt and the answer |
/// | `scripted: wait MS` | waits that many milliseconds before each reply, at most 60000 |
///
/// Tokens are counted as words.
#[derive(Debug)]
pub struct Scripted {
    script: Option<Script>,
}

#[derive(Debug)]
struct Script {
    left: Mutex<VecDeque<Scene>>,
    total: usize,
}

#[derive(Debug)]
struct Scene {
    content: String,
    tool_calls: Vec<ToolCall>,
}

impl Scripted {
    /// Answers from the prompt.
    pub const fn from_prompt() -> Self {
        Self { script: None }
    }

    /// Answers with these texts, one per call, whatever the request.
    pub fn replies<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        let scenes = texts.into_iter().map(|text| Scene { content: text.into(), tool_calls: Vec::new() });
        Self::of(scenes.collect())
    }

    /// Requests these tools, one list per call, and then answers `answer`.
    pub fn tools_then(turns: impl IntoIterator<Item = Vec<ToolCall>>, answer: impl Into<String>) -> Self {
        let calls = turns.into_iter().map(|tool_calls| Scene { content: String::new(), tool_calls });
        let last = Scene { content: answer.into(), tool_calls: Vec::new() };
        Self::of(calls.chain([last]).collect())
    }

    fn of(scenes: VecDeque<Scene>) -> Self {
        let total = scenes.len();
        Self { script: Some(Script { left: Mutex::new(scenes), total }) }
    }
}

impl Script {
    fn next(&self) -> Result<Scene, ModelError> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.pop_front().ok_or(ModelError::ScriptEnded { call: self.total + 1 })
    }
}

#[async_trait]
impl ChatModel for Scripted {
    fn provider(&self) -> &str {
        NAME
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let scene = match &self.script {
            Some(script) => script.next()?,
            None => {
                let directives = Directives::read(&request.system);
                tokio::time::sleep(directives.wait).await;
                improvise(request, &directives)
            }
        };
        Ok(reply(request, scene))
    }
}

/// The next call of the instructions, or the answer after the last call.
fn improvise(request: &ChatRequest, directives: &Directives) -> Scene {
    let prompt = prompt_of(request);
    let content = match directives.style {
        Style::Summary => text::summary(&prompt),
        Style::Keywords => text::keywords(&prompt),
        Style::Outline => text::outline(&prompt),
        Style::Combine => text::combine(&prompt),
    };
    let replied =
        request.messages.iter().filter(|message| matches!(message, Message::Assistant { .. })).count();
    match directives.calls.get(replied) {
        Some(call) => {
            let id = format!("scripted_{}", replied + 1);
            let arguments = filled_in(&call.arguments, &prompt, &content);
            Scene {
                content: String::new(),
                tool_calls: vec![ToolCall { id, name: call.tool.clone(), arguments }],
            }
        }
        None => Scene { content: content + &failures(request), tool_calls: Vec::new() },
    }
}

/// Reports failed tools, so that an answer without their text does not look complete.
fn failures(request: &ChatRequest) -> String {
    let told = request.messages.iter().filter_map(|message| match message {
        Message::Tool { result, .. } if result.is_error => {
            Some(match result.content.pointer("/error/message") {
                Some(Value::String(reason)) => format!("\n\nA tool call failed: {reason}"),
                _ => format!("\n\nA tool call failed: {}", result.content),
            })
        }
        _ => None,
    });
    told.collect()
}

/// The user's text, and the tools' results for it.
fn prompt_of(request: &ChatRequest) -> String {
    let mut parts = Vec::new();
    for message in &request.messages {
        match message {
            Message::User { content } => parts.push(content.clone()),
            Message::Tool { result, .. } => parts.extend(text_of(&result.content)),
            Message::Assistant { .. } => {}
        }
    }
    parts.join("\n\n")
}

/// The prose in a tool's result: the result itself, or its `content` or `body` if that is a text.
fn text_of(answer: &Value) -> Option<String> {
    let found = [Some(answer), answer.get("content"), answer.get("body")];
    found.into_iter().flatten().find_map(|value| value.as_str().map(str::to_owned))
}

fn filled_in(arguments: &Value, prompt: &str, answer: &str) -> Value {
    match arguments {
        Value::String(text) if text == "$prompt" => Value::String(prompt.to_owned()),
        Value::String(text) if text == "$answer" => Value::String(answer.to_owned()),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), filled_in(value, prompt, answer))).collect()
        }
        Value::Array(items) => items.iter().map(|item| filled_in(item, prompt, answer)).collect(),
        other => other.clone(),
    }
}

fn reply(request: &ChatRequest, scene: Scene) -> ChatReply {
    let words = |text: &str| text.split_whitespace().count() as u64;
    let read: u64 = request
        .messages
        .iter()
        .map(|message| match message {
            Message::User { content } | Message::Assistant { content, .. } => words(content),
            Message::Tool { result, .. } => words(&result.content.to_string()),
        })
        .sum();
    let written: u64 = scene.tool_calls.iter().map(|call| words(&call.arguments.to_string()) + 1).sum();
    let usage =
        Usage { input_tokens: words(&request.system) + read, output_tokens: words(&scene.content) + written };
    let finish_reason =
        if scene.tool_calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
    ChatReply {
        content: scene.content,
        tool_calls: scene.tool_calls,
        usage,
        finish_reason,
        provider: NAME.to_owned(),
        model: NAME.to_owned(),
    }
}

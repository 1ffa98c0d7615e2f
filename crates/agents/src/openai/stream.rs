//! A streamed answer, assembled from the chunks of its stream.
//!
//! Never knows a connection or a time.

use serde::Deserialize;
use serde_json::Value;

use super::MAX_REPLY_BYTES;
use super::events::{Event, EventReader};
use super::wire::{
    Fault, WireChoice, WireFunction, WireMessage, WireReply, WireToolCall, WireUsage, says_something,
};
use crate::chat::ChatReply;

/// More calls of tools than an agent can make.
const MAX_CALLS: usize = 10_001;

/// What there is of an answer.
#[derive(Default)]
pub(super) struct Assembly {
    model: Option<String>,
    usage: Option<WireUsage>,
    content: Option<String>,
    refusal: Option<String>,
    calls: Vec<PartialCall>,
    finish_reason: Option<String>,
    size_bytes: usize,
    has_choice: bool,
    has_delta: bool,
    is_done: bool,
}

#[derive(Default)]
struct PartialCall {
    index: Option<u64>,
    id: String,
    name: String,
    text: String,
    /// Arguments that came as JSON, and not as a text.
    value: Option<Value>,
}

#[derive(Deserialize)]
struct Chunk {
    model: Option<String>,
    choices: Option<Vec<ChunkChoice>>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    index: Option<u64>,
    delta: Option<Delta>,
    message: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<DeltaCall>>,
}

#[derive(Deserialize)]
struct DeltaCall {
    index: Option<u64>,
    id: Option<String>,
    function: Option<DeltaFunction>,
}

#[derive(Deserialize)]
struct DeltaFunction {
    name: Option<String>,
    arguments: Option<Value>,
}

/// Reads a stream that is there as a whole.
pub(super) fn whole(body: &[u8], provider: &str, asked_model: &str) -> Result<ChatReply, Fault> {
    let (mut events, mut assembly) = (EventReader::default(), Assembly::default());
    assembly.read(&mut events, body)?;
    assembly.end(&mut events, provider, asked_model)
}

impl Assembly {
    /// Continues with the events that end in `chunk`; those after the last one mean nothing.
    pub(super) fn read(&mut self, events: &mut EventReader, chunk: &[u8]) -> Result<(), Fault> {
        let too_long = |_| Fault::Malformed(format!("it is larger than {MAX_REPLY_BYTES} bytes"));
        for event in events.read(chunk).map_err(too_long)? {
            if self.is_done {
                break;
            }
            self.add(&event)?;
        }
        Ok(())
    }

    /// The answer at the end of the stream.
    pub(super) fn end(
        mut self,
        events: &mut EventReader,
        provider: &str,
        asked_model: &str,
    ) -> Result<ChatReply, Fault> {
        // A last event that is no JSON was cut off, as the whole then is.
        if let Some(last) = events.end()
            && !self.is_done
            && let Err(fault @ Fault::Said(_)) = self.add(&last)
        {
            return Err(fault);
        }
        self.into_reply(provider, asked_model)
    }

    fn add(&mut self, event: &Event) -> Result<(), Fault> {
        if event.data.trim_ascii() == b"[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        if event.is_error {
            return Err(Fault::Said(error_of(&event.data)));
        }
        let chunk: Chunk = serde_json::from_slice(&event.data).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Fault::Malformed(format!(
                "its stream has an event that is no chunk of a chat completion ({place})"
            ))
        })?;
        if let Some(error) = chunk.error.filter(says_something) {
            return Err(Fault::Said(error));
        }
        self.model = chunk.model.filter(|model| !model.is_empty()).or_else(|| self.model.take());
        // Some servers count in every chunk; the last count is the whole.
        self.usage = chunk.usage.or_else(|| self.usage.take());
        chunk.choices.into_iter().flatten().try_for_each(|choice| self.add_choice(choice))
    }

    /// Whether the server said that this is all.
    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether the answer is complete; its usage may be missing.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_done || self.finish_reason.is_some()
    }

    fn into_reply(self, provider: &str, asked_model: &str) -> Result<ChatReply, Fault> {
        if !self.is_complete() {
            return Err(Fault::Malformed("the stream was cut off before the answer was complete".to_owned()));
        }
        if self.calls.iter().any(|call| call.name.is_empty()) {
            return Err(Fault::Malformed("it calls a tool without a name".to_owned()));
        }
        let message = WireMessage {
            content: self.content,
            refusal: self.refusal,
            tool_calls: Some(self.calls.into_iter().map(PartialCall::into_wire).collect()),
        };
        let choice = WireChoice { message, finish_reason: self.finish_reason };
        let choices = if self.has_choice { vec![choice] } else { Vec::new() };
        WireReply { model: self.model, choices, usage: self.usage }.into_chat(provider, asked_model)
    }

    fn add_choice(&mut self, choice: ChunkChoice) -> Result<(), Fault> {
        // We ask for one choice.
        if choice.index.is_some_and(|index| index > 0) {
            return Ok(());
        }
        self.has_choice = true;
        // Some servers give an empty reason until there is one.
        let reason = choice.finish_reason.filter(|reason| !reason.is_empty());
        self.finish_reason = reason.or_else(|| self.finish_reason.take());
        let message = match choice.delta {
            Some(delta) => {
                self.has_delta = true;
                delta
            }
            // A message after deltas repeats them.
            None => match choice.message {
                Some(message) if !self.has_delta => message,
                _ => return Ok(()),
            },
        };
        self.add_text(message)
    }

    fn add_text(&mut self, delta: Delta) -> Result<(), Fault> {
        for (all, more) in [(&mut self.content, delta.content), (&mut self.refusal, delta.refusal)] {
            if let Some(more) = more {
                self.size_bytes += more.len();
                all.get_or_insert_default().push_str(&more);
            }
        }
        for call in delta.tool_calls.into_iter().flatten() {
            self.add_call(call);
        }
        if self.size_bytes > MAX_REPLY_BYTES {
            return Err(Fault::Malformed(format!("it is larger than {MAX_REPLY_BYTES} bytes")));
        }
        if self.calls.len() > MAX_CALLS {
            return Err(Fault::Malformed("it calls too many tools".to_owned()));
        }
        Ok(())
    }

    fn add_call(&mut self, delta: DeltaCall) {
        let id = delta.id.unwrap_or_default();
        let (name, arguments) = delta.function.map_or((None, None), |said| (said.name, said.arguments));
        let name = name.unwrap_or_default();
        let place = self.continued(delta.index, &id, &name).unwrap_or_else(|| {
            self.calls.push(PartialCall { index: delta.index, ..PartialCall::default() });
            self.calls.len() - 1
        });
        let call = &mut self.calls[place];
        if call.id.is_empty() {
            self.size_bytes += id.len();
            call.id = id;
        }
        // Some servers repeat the name in every chunk.
        if call.name != name {
            self.size_bytes += name.len();
            call.name.push_str(&name);
        }
        match arguments {
            None | Some(Value::Null) => {}
            Some(Value::String(more)) => {
                self.size_bytes += more.len();
                call.text.push_str(&more);
            }
            Some(value) => call.value = Some(value),
        }
    }

    /// The place of the call that a delta continues; `None` for a new call.
    fn continued(&self, index: Option<u64>, id: &str, name: &str) -> Option<usize> {
        if index.is_some() {
            // From the end: some servers give every call the same index, and only new ids.
            let place = self.calls.iter().rposition(|call| call.index == index)?;
            let known = &self.calls[place].id;
            let is_other = !name.is_empty() && !id.is_empty() && !known.is_empty() && known != id;
            return (!is_other).then_some(place);
        }
        match (id, name) {
            ("", "") => self.calls.len().checked_sub(1),
            ("", _) => None,
            (id, _) => self.calls.iter().rposition(|call| call.id == id),
        }
    }
}

/// What the server says in an event that it calls an error.
fn error_of(data: &[u8]) -> Value {
    match serde_json::from_slice(data) {
        Ok(Value::Object(mut said)) if said.contains_key("error") => said["error"].take(),
        Ok(said) => said,
        Err(_) => String::from_utf8_lossy(data).into_owned().into(),
    }
}

impl PartialCall {
    fn into_wire(self) -> WireToolCall {
        let arguments = self.value.unwrap_or(Value::String(self.text));
        WireToolCall { id: Some(self.id), function: WireFunction { name: self.name, arguments } }
    }
}

#[cfg(test)]
mod tests;

//! Chunks as servers send them, and what is assembled from them.

use serde_json::{Value, json};

use super::super::events::Event;
use super::super::wire::Fault;
use super::Assembly;
use crate::chat::{ChatReply, FinishReason};

fn assembled(chunks: &[Value]) -> Result<ChatReply, String> {
    let mut assembly = Assembly::default();
    let reason = |fault| match fault {
        Fault::Malformed(reason) => reason,
        Fault::Said(error) => error.to_string(),
    };
    for chunk in chunks {
        let event = Event { data: chunk.to_string().into_bytes(), is_error: false };
        assembly.add(&event).map_err(reason)?;
    }
    assembly.into_reply("openai", "tiny").map_err(reason)
}

/// The calls that the deltas make: their ids, their names and their arguments.
fn calls(deltas: &[Value]) -> Vec<(String, String, Value)> {
    let chunk = |call: &Value| json!({"choices": [{"delta": {"tool_calls": [call]}}]});
    let mut chunks: Vec<Value> = deltas.iter().map(chunk).collect();
    chunks.push(json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}));
    let reply = assembled(&chunks).unwrap();
    assert_eq!(reply.finish_reason, FinishReason::ToolCalls);
    reply.tool_calls.into_iter().map(|call| (call.id, call.name, call.arguments)).collect()
}

fn part(index: Option<u64>, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
    let function = json!({"name": name, "arguments": arguments});
    json!({"index": index, "id": id, "type": "function", "function": function})
}

fn both() -> Vec<(String, String, Value)> {
    let call = |id: &str, name: &str, at: u64| (id.to_owned(), name.to_owned(), json!({"x": at}));
    vec![call("a", "read", 1), call("b", "write", 2)]
}

#[test]
fn calls_are_told_apart_by_their_index() {
    let deltas = [
        part(Some(0), Some("a"), Some("read"), ""),
        part(Some(1), Some("b"), Some("write"), "{\"x"),
        part(Some(0), None, None, "{\"x\":1}"),
        part(Some(1), Some("b"), Some("write"), "\":2}"),
    ];
    assert_eq!(calls(&deltas), both());
}

#[test]
fn calls_without_an_index_begin_with_an_id_or_a_name() {
    let deltas = [
        part(None, Some("a"), Some("read"), "{\"x"),
        part(None, None, None, "\":1}"),
        part(None, Some("b"), Some("write"), "{\"x\":"),
        part(None, Some("b"), None, "2}"),
    ];
    assert_eq!(calls(&deltas), both());
    let named = [
        part(None, None, Some("read"), "{\"x\":1"),
        part(None, Some(""), Some(""), "}"),
        part(None, None, Some("write"), "{\"x\":2}"),
    ];
    let named = calls(&named).into_iter().map(|(_, name, arguments)| (name, arguments)).collect::<Vec<_>>();
    assert_eq!(named, both().into_iter().map(|(_, name, arguments)| (name, arguments)).collect::<Vec<_>>());
}

#[test]
fn calls_that_share_an_index_are_told_apart_by_their_ids() {
    let deltas = [
        part(Some(0), Some("a"), Some("read"), "{\"x\":1}"),
        part(Some(0), Some("b"), Some("write"), "{\"x\":"),
        part(Some(0), None, None, "2}"),
    ];
    assert_eq!(calls(&deltas), both());
}

#[test]
fn arguments_may_be_json_or_missing() {
    let deltas = [
        json!({"index": 0, "id": "a", "function": {"name": "read", "arguments": {"x": 1}}}),
        json!({"index": 1, "id": "b", "function": {"name": "write"}}),
    ];
    let found: Vec<Value> = calls(&deltas).into_iter().map(|(_, _, arguments)| arguments).collect();
    assert_eq!(found, [json!({"x": 1}), json!({})]);
}

#[test]
fn only_the_first_choice_and_no_repetition_is_read() {
    let reply = assembled(&[
        json!({"choices": [{"index": 1, "delta": {"content": "No."}, "finish_reason": "length"}]}),
        json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": null}, "finish_reason": ""}]}),
        json!({"model": "tiny-1", "choices": [{"index": 0, "delta": {"content": "Yes."}}], "usage": null}),
        json!({"choices": [{"index": 0, "message": {"content": "Yes."}, "finish_reason": "stop"}]}),
        json!({"id": "x"}),
    ]);
    let reply = reply.unwrap();
    assert_eq!((reply.content.as_str(), reply.model.as_str()), ("Yes.", "tiny-1"));
    assert_eq!(reply.finish_reason, FinishReason::Stop);
}

#[test]
fn a_message_without_deltas_is_the_answer() {
    let whole = json!({"choices": [{"message": {"refusal": "I will not."}, "finish_reason": "stop"}]});
    let reply = assembled(&[whole]).unwrap();
    assert_eq!((reply.content.as_str(), reply.finish_reason), ("I will not.", FinishReason::Refused));
}

#[test]
fn an_answer_is_bounded_and_its_calls_have_names() {
    let long = json!({"choices": [{"delta": {"content": "x".repeat(1 << 20)}}]});
    assert!(assembled(&vec![long; 9]).unwrap_err().contains("larger than"));
    let call = json!({"choices": [{"delta": {"tool_calls": [part(None, None, Some("x"), "")]}}]});
    assert!(assembled(&vec![call; 10_002]).unwrap_err().contains("too many"));
    let nameless = json!({"choices": [{"delta": {"tool_calls": [part(None, None, None, "{}")]}, "finish_reason": "stop"}]});
    assert!(assembled(&[nameless]).unwrap_err().contains("without a name"));
}

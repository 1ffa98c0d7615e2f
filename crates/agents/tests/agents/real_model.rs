//! A real model server, started by `tests/real-model/run.sh`: what a scripted server would not show.
//!
//! The words of a small model mean nothing, so no test depends on them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gathering_agents::{
    ChatModel, ChatRequest, FinishReason, Message, ModelError, OpenAiCompatible, ToolCall, ToolDescription,
    ToolResult,
};
use serde_json::{Value, json};

/// How soon a server must have stopped generating for a caller that is gone.
const SOON: Duration = Duration::from_secs(2);

fn base_url() -> String {
    std::env::var("GATHERING_TEST_MODEL_URL").expect("GATHERING_TEST_MODEL_URL: the server's base URL")
}

fn server() -> OpenAiCompatible {
    OpenAiCompatible::new(&base_url(), None).unwrap()
}

fn user(content: &str) -> Message {
    Message::User { content: content.to_owned() }
}

fn asking(messages: Vec<Message>) -> ChatRequest {
    ChatRequest {
        model: std::env::var("GATHERING_TEST_MODEL").unwrap_or_else(|_| "tiny".to_owned()),
        system: "Be brief.".to_owned(),
        messages,
        tools: Vec::new(),
        temperature: Some(0.0),
        max_tokens: Some(16),
        output_schema: None,
    }
}

/// A request whose answer takes longer than a test may.
fn endless() -> ChatRequest {
    let words = "Write all numbers from 1 to 5000, one per line, and nothing else.";
    ChatRequest { max_tokens: Some(1500), ..asking(vec![user(words)]) }
}

fn tool(name: &str, parameters: Value) -> ToolDescription {
    ToolDescription { name: name.to_owned(), description: "Does it.".to_owned(), parameters }
}

/// Schemas of which a server that makes grammars of them refuses at least one keyword.
fn hard_schemas() -> Vec<ToolDescription> {
    let tree = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
    }});
    let rows = json!({"type": "array", "items": {"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer", "multipleOf": 5}}},
        {"type": ["string", "null"], "format": "date-time"},
    ]}, "uniqueItems": true, "minItems": 1, "contains": {"type": "object"}});
    let patterns = ["^ü+$", "^(a$", "^a**$", "^+$", "^[a-z]{1,64}$", "^(a|b(c|d))?$", "^()*$", "^(a|)+$"];
    let with_pattern = |mut schema: Value, (at, pattern): (usize, &str)| {
        schema["properties"][format!("p{at}")] = json!({"type": "string", "pattern": pattern});
        schema
    };
    let of = |name: &str, schema: Value| json!({"type": "object", "properties": {name: schema}});
    vec![
        tool("unanchored", of("a", json!({"type": "string", "pattern": "[0-9]+"}))),
        tool("classes", of("a", json!({"type": "string", "pattern": r"^\d{4}-\w+\s$"}))),
        tool("looks_ahead", of("a", json!({"type": "string", "pattern": "^(?!no)[a-z]+$"}))),
        tool(
            "booleans",
            json!({"type": "object", "properties": {"yes": true, "no": false}, "required": ["yes"]}),
        ),
        tool("recursive_root", of("below", json!({"$ref": "#"}))),
        tool("recursive", json!({"$ref": "#/$defs/tree", "$defs": {"tree": tree}})),
        tool("elsewhere", of("a", json!({"$ref": "https://example.org/schema.json"}))),
        tool("rows", of("rows", rows)),
        tool(
            "conditions",
            json!({
                "type": "object", "properties": {"a": {"not": {"type": "string"}}},
                "if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": false,
                "patternProperties": {r"\w+": {"type": "string"}}, "propertyNames": {"pattern": "x"},
            }),
        ),
        tool("odd_patterns", patterns.into_iter().enumerate().fold(json!({"properties": {}}), with_pattern)),
        tool("unknown_types", of("a", json!({"type": ["file", "string"], "enum": [], "minLength": "5"}))),
        tool("anything", json!({})),
    ]
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn an_answer_has_text_and_usage() {
    let reply = server().complete(&asking(vec![user("Say hello.")])).await.unwrap();
    assert!(!reply.content.is_empty() && reply.tool_calls.is_empty(), "{reply:?}");
    assert!(reply.usage.input_tokens > 0 && reply.usage.output_tokens > 0, "{reply:?}");
    // Not by the place of its file, which only concerns the operator.
    assert!(!reply.model.ends_with(".gguf") && !reply.model.is_empty(), "{reply:?}");
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn a_small_bound_cuts_an_answer_off() {
    let reply = server().complete(&ChatRequest { max_tokens: Some(3), ..endless() }).await.unwrap();
    assert_eq!((reply.finish_reason, reply.usage.output_tokens), (FinishReason::Length, 3), "{reply:?}");
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn an_answer_keeps_to_its_schema() {
    let schema = json!({
        "type": "object", "required": ["is_urgent", "tag"], "additionalProperties": false,
        "properties": {
            "is_urgent": {"type": "boolean"}, "tag": {"enum": ["bill", "letter"]},
            "code": {"type": "string", "pattern": r"\d"}
        }
    });
    let question = asking(vec![user("A letter from a friend came. Sort it.")]);
    let asked = ChatRequest { output_schema: Some(schema), max_tokens: Some(200), ..question };
    let reply = server().complete(&asked).await.unwrap();
    assert_eq!(reply.finish_reason, FinishReason::Stop, "{reply:?}");
    let value: Value = serde_json::from_str(&reply.content).unwrap();
    assert!(
        value["is_urgent"].is_boolean() && ["bill", "letter"].iter().any(|tag| value["tag"] == *tag),
        "{value}"
    );
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn an_answer_keeps_to_a_schema_that_is_no_object() {
    let asked = ChatRequest {
        output_schema: Some(json!({"enum": ["yes", "no"]})),
        ..asking(vec![user("Is the moon far away?")])
    };
    let reply = server().complete(&asked).await.unwrap();
    assert!(["\"yes\"", "\"no\""].contains(&reply.content.trim()), "{reply:?}");
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn a_tool_is_called_where_the_answer_has_a_schema() {
    let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    let asked = ChatRequest { output_schema: Some(schema), ..weather(&["Paris"]) };
    let reply = server().complete(&asked).await.unwrap();
    assert_eq!(reply.finish_reason, FinishReason::ToolCalls, "{reply:?}");
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn tools_with_any_schema_are_accepted() {
    for tool in hard_schemas() {
        let name = tool.name.clone();
        let asked = ChatRequest { tools: vec![tool], ..asking(vec![user("Use the tool.")]) };
        let ended = server().complete(&asked).await;
        assert!(ended.is_ok(), "{name}: {ended:?}");
    }
    let asked = ChatRequest { tools: hard_schemas(), ..asking(vec![user("Use the tools.")]) };
    server().complete(&asked).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn broken_arguments_and_ids_in_the_history_are_accepted() {
    let broken =
        [json!("{"), json!("no JSON"), json!("\"{}\""), json!([1]), json!(7), Value::Null, json!({"a": "1"})];
    let call = |arguments: &Value| ToolCall {
        id: "call_0".to_owned(),
        name: "unanchored".to_owned(),
        arguments: arguments.clone(),
    };
    let mut messages = vec![user("Use the tool.")];
    for arguments in &broken {
        messages.push(Message::Assistant { content: String::new(), tool_calls: vec![call(arguments)] });
        let result = ToolResult::success(json!({"ok": true}));
        messages.push(Message::Tool { call_id: "call_0".to_owned(), result });
    }
    let tools = hard_schemas();
    let reply = server().complete(&ChatRequest { tools, ..asking(messages) }).await.unwrap();
    assert!(reply.usage.output_tokens > 0, "{reply:?}");
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn a_conversation_that_is_too_long_is_rejected_for_good() {
    let asked = asking(vec![user(&"one two three ".repeat(5000))]);
    let error = server().complete(&asked).await.unwrap_err();
    assert!(matches!(error, ModelError::Rejected { status: 400, .. }), "{error:?}");
    assert!(!error.is_retryable() && error.to_string().contains("context"), "{error}");
}

/// A conversation in which the weather of cities was asked for, one or two at once: even a small model goes on like that.
fn weather(cities: &[&str]) -> ChatRequest {
    let mut messages = Vec::new();
    let question = |cities: &[&str]| user(&format!("Weather in {}?", cities.join(" and ")));
    for (at, cities) in
        [&["Rome"][..], &["Oslo", "Lima"], &["Cairo"], &["Bern", "Quito"]].into_iter().enumerate()
    {
        messages.push(question(cities));
        let call = |(index, city)| ToolCall {
            id: format!("call_{at}_{index}"),
            name: "get_weather".to_owned(),
            arguments: json!({"city": city}),
        };
        let tool_calls: Vec<ToolCall> = cities.iter().enumerate().map(call).collect();
        answer(&mut messages, String::new(), tool_calls);
        messages.push(Message::Assistant { content: "Clear.".to_owned(), tool_calls: Vec::new() });
    }
    messages.push(question(cities));
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    ChatRequest { tools: vec![tool("get_weather", city)], max_tokens: Some(120), ..asking(messages) }
}

/// Adds a reply of the model and the results of its calls.
fn answer(messages: &mut Vec<Message>, content: String, tool_calls: Vec<ToolCall>) {
    let ids: Vec<String> = tool_calls.iter().map(|call| call.id.clone()).collect();
    messages.push(Message::Assistant { content, tool_calls });
    let result = || ToolResult::success(json!({"sky": "clear"}));
    messages.extend(ids.into_iter().map(|call_id| Message::Tool { call_id, result: result() }));
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn a_tool_is_called_several_times_in_one_answer_and_the_results_are_accepted() {
    let mut asked = weather(&["Paris", "Delhi"]);
    let reply = server().complete(&asked).await.unwrap();
    assert_eq!(reply.finish_reason, FinishReason::ToolCalls, "{reply:?}");
    let ids: BTreeSet<&str> = reply.tool_calls.iter().map(|call| call.id.as_str()).collect();
    let is_whole = |call: &ToolCall| call.name == "get_weather" && call.arguments["city"].is_string();
    assert!(ids.len() > 1 && ids.len() == reply.tool_calls.len(), "{reply:?}");
    assert!(reply.tool_calls.iter().all(is_whole), "{reply:?}");
    answer(&mut asked.messages, reply.content, reply.tool_calls);
    server().complete(&asked).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn a_tool_is_called_in_an_answer_that_is_cut_off_anywhere_and_the_conversation_goes_on() {
    let whole = server().complete(&weather(&["Paris"])).await.unwrap();
    for max_tokens in (3..whole.usage.output_tokens).step_by(4) {
        let mut asked = ChatRequest { max_tokens: Some(max_tokens), ..weather(&["Paris"]) };
        let reply = server().complete(&asked).await.unwrap();
        assert_eq!((reply.finish_reason, reply.usage.output_tokens), (FinishReason::Length, max_tokens));
        answer(&mut asked.messages, reply.content, reply.tool_calls);
        let next = server().complete(&asked).await;
        assert!(next.is_ok(), "{max_tokens}: {next:?}");
    }
}

/// How many answers the server generates, and how many tokens of them it has made.
async fn generating() -> usize {
    let url = base_url();
    let url = format!("{}/slots", url.trim_end_matches('/').trim_end_matches("/v1"));
    let slots = reqwest::get(url).await.unwrap().text().await.unwrap();
    let slots: Value = serde_json::from_str(&slots).unwrap();
    slots.as_array().unwrap().iter().filter(|slot| slot["is_processing"] == true).count()
}

async fn wait_until_generating(n: usize) {
    let until_then = async {
        while generating().await != n {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_secs(60);
    assert!(tokio::time::timeout(limit, until_then).await.is_ok(), "never {n} answers at once");
}

/// Hangs up during an answer, and tells how long the server went on with it, while it generates `others`.
async fn time_to_stop(others: usize) -> Duration {
    let call = tokio::spawn(async { server().complete(&endless()).await });
    wait_until_generating(others + 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled(), "it had ended");
    let began = Instant::now();
    wait_until_generating(others).await;
    began.elapsed()
}

#[tokio::test]
#[ignore = "needs a model server: tests/real-model/run.sh"]
async fn a_server_stops_generating_for_a_caller_that_is_gone() {
    let took = time_to_stop(0).await;
    assert!(took < SOON, "idle: {took:?}");
    // A busy server does not notice on its own that a connection is closed.
    let other = tokio::spawn(async { server().complete(&endless()).await });
    wait_until_generating(1).await;
    let took = time_to_stop(1).await;
    assert!(took < SOON, "busy: {took:?}");
    assert!(!other.is_finished(), "it was to be busy all the time");
    other.abort();
    wait_until_generating(0).await;
}

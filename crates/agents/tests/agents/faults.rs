//! What servers do wrong, one row each: the caller hears what happened, or does not notice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use gathering_agents::{
    AgentDefinition, ChatModel as _, ChatReply, ChatRequest, Conversation, DirectRunner, FinishReason,
    ModelError, ToolDescription, Usage, run_agent,
};
use gathering_tools::{BlockingPool, ToolContext, Toolbox};
use serde_json::{Value, json};

use crate::openai::{KEY, provider, question};
use crate::support::{Server, delta, ends, events, says, streams, streams_cut, used};

async fn answered(answer: (&'static str, String)) -> Result<ChatReply, ModelError> {
    let server = Server::start(vec![answer]).await;
    provider(&server).complete(&question()).await
}

#[tokio::test]
async fn an_error_with_the_status_of_an_answer_is_an_error_in_the_words_of_the_server() {
    let words = format!("key {KEY} has no context left");
    let rejected: [Value; 4] = [
        json!({"error": {"code": 400, "message": words}}),
        json!({"error": {"code": "400", "message": words}, "choices": []}),
        json!({"error": {"code": "context_length_exceeded", "message": words}, "choices": null}),
        json!({"object": "error", "code": 400, "message": words}),
    ];
    for body in rejected {
        let error = answered(("200 OK", body.to_string())).await.unwrap_err();
        assert!(matches!(error, ModelError::Rejected { status: 400, .. }), "{error:?}");
        assert!(error.to_string().contains("key [key] has no context left"), "{error}");
    }
    for code in [json!(502), json!("overloaded"), json!(null)] {
        let body = json!({"error": {"code": code, "message": words}});
        let error = answered(("200 OK", body.to_string())).await.unwrap_err();
        assert!(matches!(error, ModelError::Unavailable { status: 500, .. }), "{error:?}");
        assert!(error.to_string().contains("key [key] has no context left"), "{error}");
    }
    let limited = json!({"error": {"code": 429, "message": words}}).to_string();
    assert!(matches!(answered(("200 OK", limited)).await, Err(ModelError::RateLimited { .. })));
    // Some servers send an empty one with every answer.
    for error in [json!(null), json!({}), json!("")] {
        let body = json!({"error": error, "choices": [{"message": {"content": "Hello."}}]});
        assert_eq!(answered(("200 OK", body.to_string())).await.unwrap().content, "Hello.");
    }
}

async fn pause_after(status: &str, retry_after: &str) -> Option<Duration> {
    let status: &'static str = format!("{status}\r\nretry-after: {retry_after}").leak();
    let error = answered((status, "{}".to_owned())).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    if let Some(pause) = error.retry_after() {
        assert!(error.to_string().contains(&format!("no request for {} s", pause.as_secs())), "{error}");
    }
    error.retry_after()
}

#[tokio::test]
async fn the_pause_that_a_server_asks_for_is_known_in_both_forms() {
    let day = Duration::from_secs(86_400);
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        assert_eq!(pause_after(status, "7").await, Some(Duration::from_secs(7)));
        let date = (Utc::now() + Duration::from_secs(3600)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let pause = pause_after(status, &date).await.unwrap();
        assert!(pause > Duration::from_secs(3500) && pause <= Duration::from_secs(3600), "{pause:?}");
        assert_eq!(pause_after(status, "Sun, 06 Nov 2050 08:49:37 GMT").await, Some(day));
        assert_eq!(pause_after(status, "999999999").await, Some(day));
        for nothing in ["soon", "-1", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(pause_after(status, nothing).await, None, "{nothing}");
        }
    }
}

#[tokio::test]
async fn every_answer_is_bounded_and_a_bound_that_is_too_large_is_named() {
    let refusal = r#"{"error": {"message": "max_tokens is too large: 4096"}}"#.to_owned();
    let server = Server::start(vec![("400 Bad Request", refusal)]).await;
    let asked = ChatRequest { max_tokens: None, ..question() };
    let error = provider(&server).complete(&asked).await.unwrap_err();
    assert!(matches!(error, ModelError::Rejected { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("too large: 4096") && message.contains("`max_answer_tokens`"), "{message}");
    assert_eq!(server.asked()[0].body["max_tokens"], 4096);
}

#[tokio::test]
async fn a_server_gets_simple_schemas_only() {
    let parameters = json!({
        "type": "object", "required": ["day"],
        "properties": {"day": {"$ref": "#/$defs/day"}, "note": true},
        "$defs": {"day": {"type": "string", "pattern": "^\\d{4}-\\d\\d-\\d\\d$"}}
    });
    let tool = ToolDescription { name: "plan".to_owned(), description: "Plans.".to_owned(), parameters };
    let server = Server::start(vec![says("Hello.")]).await;
    provider(&server).complete(&ChatRequest { tools: vec![tool], ..question() }).await.unwrap();
    let simple = json!({
        "type": "object", "required": ["day"], "properties": {"day": {"type": "string"}, "note": {}}
    });
    let function = json!({"name": "plan", "description": "Plans.", "parameters": simple});
    assert_eq!(server.asked()[0].body["tools"], json!([{"type": "function", "function": function}]));
}

/// A reply that calls a tool that does not exist, twice, with these ids.
fn calls_with(ids: [Option<&str>; 2]) -> (&'static str, String) {
    let call = |id: Option<&str>| json!({"id": id, "function": {"name": "none", "arguments": "{}"}});
    let message = json!({"content": null, "tool_calls": ids.map(call)});
    ("200 OK", json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).to_string())
}

#[tokio::test]
async fn calls_with_missing_or_repeated_ids_go_back_with_ids_of_their_own() {
    let answers =
        vec![calls_with([None, Some("")]), calls_with([Some("a"); 2]), calls_with([None, Some("a")])];
    let server = Server::start([answers, vec![says("done")]].concat()).await;
    let agent = AgentDefinition::parse(&json!({"provider": "openai", "model": "tiny"})).unwrap();
    let tools = Toolbox::new(BlockingPool::new(1));
    let runner = DirectRunner::new(Arc::new(provider(&server)), tools, ToolContext::new());
    run_agent(Conversation::new(&agent, Vec::new(), "Go on."), &runner).await.unwrap();
    let asked = server.asked().pop().unwrap().body["messages"].clone();
    let messages = asked.as_array().unwrap();
    let calls = messages.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
    let calls: Vec<&Value> = calls.map(|call| &call["id"]).collect();
    let results = messages.iter().filter(|message| message["role"] == "tool");
    let results: Vec<&Value> = results.map(|message| &message["tool_call_id"]).collect();
    assert_eq!(calls, results);
    let unique: BTreeSet<&str> = calls.iter().map(|id| id.as_str().unwrap()).collect();
    assert!(unique.len() == 6 && !unique.contains(""), "{calls:?}");
}

#[tokio::test]
async fn a_stream_with_broken_json_is_malformed_and_repeats_nothing_of_it() {
    for broken in ["{\"choices\": [{\"delta\": s3cret", "s3cret", "[\"s3cret\"]", "{\"choices\": \"s3cret\"}"]
    {
        let stream = format!("{}data: {broken}\n\n", events(&[delta(json!({"content": "Hel"}))]));
        let error = answered(streams_cut(&stream)).await.unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }) && error.is_retryable(), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_stream_whose_connection_breaks_is_retryable_unless_the_answer_is_complete() {
    let chunked = |stream: String| {
        let status = "200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked";
        (status, format!("{:x}\r\n{stream}\r\n", stream.len()))
    };
    let begun = events(&[delta(json!({"content": "Hello."}))]);
    let error = answered(chunked(begun.clone())).await.unwrap_err();
    assert!(error.is_retryable() && error.may_have_taken_place(), "{error:?}");
    let reply = answered(chunked(begun + &events(&[ends("stop")]))).await.unwrap();
    assert_eq!((reply.content.as_str(), reply.usage), ("Hello.", Usage::default()));
}

#[tokio::test]
async fn arguments_that_come_as_an_object_are_the_arguments() {
    let function = json!({"name": "read_file", "arguments": {"path": "a.md"}});
    let calls = json!([{"id": "c0", "function": function}]);
    let whole = json!({"choices": [{"message": {"content": null, "tool_calls": calls}}]});
    let streamed = [delta(json!({"tool_calls": calls})), ends("tool_calls")];
    for answer in [("200 OK", whole.to_string()), streams(&streamed)] {
        let reply = answered(answer).await.unwrap();
        assert_eq!(reply.tool_calls[0].arguments, json!({"path": "a.md"}));
    }
}

#[tokio::test]
async fn parallel_calls_without_an_index_are_told_apart() {
    let part = |id: Option<&str>, name: Option<&str>, arguments: &str| {
        delta(json!({"tool_calls": [{"id": id, "function": {"name": name, "arguments": arguments}}]}))
    };
    let chunks = [
        part(Some("a"), Some("read_file"), "{\"path\": "),
        part(None, None, "\"a.md\"}"),
        part(Some("b"), Some("read_file"), "{\"path\": \"b.md\"}"),
        part(None, Some("list_files"), "{}"),
        ends("tool_calls"),
    ];
    let calls = answered(streams(&chunks)).await.unwrap().tool_calls;
    let calls: Vec<(&str, &Value)> = calls.iter().map(|call| (call.name.as_str(), &call.arguments)).collect();
    let (a, b) = (json!({"path": "a.md"}), json!({"path": "b.md"}));
    assert_eq!(calls, [("read_file", &a), ("read_file", &b), ("list_files", &json!({}))]);
}

#[tokio::test]
async fn the_usage_is_the_last_one_or_unknown() {
    let text = delta(json!({"content": "Hello."}));
    let mut growing = text.clone();
    growing["usage"] = json!({"prompt_tokens": 10, "completion_tokens": 1});
    let known = Usage { input_tokens: 10, output_tokens: 5 };
    for (chunks, usage) in [
        (vec![text.clone(), ends("stop"), used()], known),
        (vec![growing, ends("stop"), used()], known),
        (vec![text, ends("stop")], Usage::default()),
    ] {
        assert_eq!(answered(streams(&chunks)).await.unwrap().usage, usage, "{chunks:?}");
    }
}

#[tokio::test]
async fn chunks_without_choices_mean_nothing_and_an_answer_without_one_is_malformed() {
    let empty = [json!({"choices": []}), json!({"choices": null}), json!({"prompt_filter_results": []})];
    let text = [delta(json!({"content": "Hello."})), ends("stop")];
    let reply = answered(streams(&[&empty[..], &text, &empty].concat())).await.unwrap();
    assert_eq!(reply.content, "Hello.");
    for answer in [streams(&empty), streams(&[]), ("200 OK", json!({"choices": []}).to_string())] {
        let error = answered(answer).await.unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }) && error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("no choice"), "{error}");
    }
}

#[tokio::test]
async fn calls_are_calls_whatever_the_server_calls_the_end() {
    let function = json!({"name": "read_file", "arguments": "{}"});
    let call = delta(json!({"tool_calls": [{"index": 0, "id": "c0", "function": function}]}));
    for reason in ["stop", "tool_calls", "function_call", "eos", "null"] {
        let reply = answered(streams(&[call.clone(), ends(reason)])).await.unwrap();
        assert_eq!((reply.finish_reason, reply.tool_calls.len()), (FinishReason::ToolCalls, 1), "{reason}");
    }
    let text = delta(json!({"content": "Hello."}));
    for (reason, expected) in [("stop", FinishReason::Stop), ("eos", FinishReason::Other)] {
        let reply = answered(streams(&[text.clone(), ends(reason)])).await.unwrap();
        assert_eq!((reply.finish_reason, reply.content.as_str()), (expected, "Hello."), "{reason}");
    }
    // A reason that comes before the last part ends nothing.
    let reply = answered(streams(&[text.clone(), ends("length"), text])).await.unwrap();
    assert_eq!((reply.finish_reason, reply.content.as_str()), (FinishReason::Length, "Hello.Hello."));
}

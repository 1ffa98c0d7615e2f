//! Streamed answers of a real local server, which sends them byte by byte.

use std::time::Duration;

use gathering_agents::{ChatModel as _, ChatReply, FinishReason, ModelError, OpenAiCompatible, Usage};
use serde_json::{Value, json};

use crate::openai::{KEY, provider, question};
use crate::support::{Server, delta, ends, events, says, streams, streams_cut, used};

async fn answered(answer: (&'static str, String)) -> Result<ChatReply, ModelError> {
    let server = Server::start(vec![answer]).await;
    provider(&server).complete(&question()).await
}

fn called(id: &str, arguments: &str) -> Value {
    let function = json!({"name": "read_file", "arguments": arguments});
    delta(json!({"content": null, "tool_calls": [{"index": 0, "id": id, "function": function}]}))
}

#[tokio::test]
async fn a_streamed_answer_is_the_same_as_one_at_once() {
    let chunks = [delta(json!({"role": "assistant", "content": ""})), delta(json!({"content": "Hello."}))];
    let chunks = [chunks.as_slice(), &[ends("stop"), used()]].concat();
    let at_once = answered(says("Hello.")).await.unwrap();
    assert_eq!(answered(streams(&chunks)).await.unwrap(), at_once);
    // A character of several bytes in several parts, other ends of lines, and comments.
    let chunks = [delta(json!({"content": "Grüße 🙂"})), ends("stop")];
    let stream = format!(": hello\n\n{}", events(&chunks)).replace('\n', "\r\n");
    let reply = answered(streams_cut(&stream)).await.unwrap();
    assert_eq!((reply.content.as_str(), reply.usage), ("Grüße 🙂", Usage::default()));
}

#[tokio::test]
async fn a_streamed_call_of_a_tool_is_read_with_its_usage() {
    let chunks = [called("c0", "{\"path\""), called("c0", ": \"a.md\"}"), ends("tool_calls"), used()];
    let reply = answered(streams(&chunks)).await.unwrap();
    assert_eq!(reply.tool_calls.len(), 1);
    assert_eq!(reply.tool_calls[0].arguments, json!({"path": "a.md"}));
    assert_eq!(reply.finish_reason, FinishReason::ToolCalls);
    assert_eq!(reply.usage, Usage { input_tokens: 10, output_tokens: 5 });
}

#[tokio::test]
async fn a_stream_that_is_cut_off_is_no_answer() {
    let begun = events(&[delta(json!({"content": "Hel"}))]);
    for stream in [String::new(), begun.clone(), format!("{begun}data: {{\"choices\": [{{\"del")] {
        let error = answered(streams_cut(&stream)).await.unwrap_err();
        assert!(error.is_retryable() && error.may_have_taken_place(), "{error:?}");
        assert!(error.to_string().contains("the stream was cut off"), "{error}");
    }
    // Without a reason to end it is complete if the server says so.
    let reply = answered(streams(&[delta(json!({"content": "Hello."}))])).await.unwrap();
    assert_eq!((reply.content.as_str(), reply.finish_reason), ("Hello.", FinishReason::Stop));
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_told_in_the_words_of_the_server() {
    let begun = events(&[delta(json!({"content": "Hel"}))]);
    let words = format!("key {KEY} is odd");
    for (line, name, status) in [
        ("data", json!({"error": {"code": 400, "message": words}}), 400),
        ("data", json!({"error": {"code": "404", "message": words}}), 404),
        ("data", json!({"error": {"code": null, "type": "invalid_request_error", "message": words}}), 400),
        ("data", json!({"error": {"code": 408, "message": words}}), 408),
        ("error", json!({"code": 500, "message": words, "type": "server_error"}), 500),
        ("event: error\ndata", json!({"message": words}), 500),
        ("data", json!({"error": words}), 500),
    ] {
        let error = answered(streams_cut(&format!("{begun}{line}: {name}\n\n"))).await.unwrap_err();
        let found = match &error {
            ModelError::Rejected { status, .. } if *status < 500 && *status != 408 => *status,
            ModelError::Unavailable { status, .. } if *status >= 500 || *status == 408 => *status,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, status, "{error}");
        assert!(error.to_string().contains("key [key] is odd"), "{error}");
    }
    let busy = json!({"error": {"code": "rate_limit_exceeded", "message": "later"}});
    let error = answered(streams_cut(&events(&[busy]))).await.unwrap_err();
    assert!(matches!(error, ModelError::RateLimited { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_refuses_stream_options_is_asked_once_more_without_them() {
    let refusal = r#"{"error": {"message": "Unknown parameter: 'stream_options'."}}"#;
    let answers = vec![("400 Bad Request", refusal.to_owned()), says("One."), says("Two.")];
    let server = Server::start(answers).await;
    let provider = provider(&server);
    for expected in ["One.", "Two."] {
        assert_eq!(provider.complete(&question()).await.unwrap().content, expected);
    }
    let asked = server.asked();
    let sent: Vec<bool> = asked.iter().map(|asked| asked.body.get("stream_options").is_some()).collect();
    assert_eq!(sent, [true, false, false]);
    assert!(asked.iter().all(|asked| asked.body["stream"] == true));
    // It is not asked a third time.
    let server = Server::start(vec![("400 Bad Request", refusal.to_owned()); 3]).await;
    let error =
        OpenAiCompatible::new(server.base_url(), None).unwrap().complete(&question()).await.unwrap_err();
    assert!(matches!(error, ModelError::Rejected { .. }), "{error:?}");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_model_that_the_caller_may_not_stream_answers_at_once() {
    let refusal = json!({"error": {"message": "must be verified to stream this model", "param": "stream"}});
    let refusal = ("400 Bad Request", refusal.to_string());
    let server = Server::start(vec![refusal.clone(), says("One."), refusal.clone(), refusal]).await;
    let provider = provider(&server);
    assert_eq!(provider.complete(&question()).await.unwrap().content, "One.");
    let error = provider.complete(&question()).await.unwrap_err();
    assert!(error.to_string().contains("must be verified"), "{error}");
    let asked = server.asked();
    let sent: Vec<&Value> = asked.iter().map(|asked| &asked.body["stream"]).collect();
    assert_eq!(sent, [true, false, true, false]);
    assert_eq!(asked[1].body.get("stream_options"), None);
}

#[tokio::test]
async fn a_stream_without_its_type_is_read_nevertheless() {
    let (_, stream) = streams(&[delta(json!({"content": "Hello."})), ends("stop"), used()]);
    let at_once = answered(says("Hello.")).await.unwrap();
    assert_eq!(answered(("200 OK\r\ncontent-type: text/plain", stream)).await.unwrap(), at_once);
    let (_, cut) = streams_cut(&events(&[delta(json!({"content": "Hel"}))]));
    assert!(answered(("200 OK", cut)).await.unwrap_err().to_string().contains("cut off"));
}

#[tokio::test]
async fn a_server_that_falls_silent_in_the_middle_is_not_waited_for() {
    let short = Duration::from_millis(50);
    let begun = events(&[delta(json!({"content": "Hello."}))]);
    let server = Server::start_hanging(vec![streams_cut(&begun)]).await;
    let error = provider(&server).idle_timeout(short).complete(&question()).await.unwrap_err();
    assert!(error.to_string().contains("nothing came for 0.05 seconds"), "{error}");
    // An answer that is complete is one, although the server says no more.
    let server = Server::start_hanging(vec![streams_cut(&(begun + &events(&[ends("stop")])))]).await;
    let reply = provider(&server).idle_timeout(short).complete(&question()).await.unwrap();
    assert_eq!(reply.content, "Hello.");
}

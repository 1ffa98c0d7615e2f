//! The OpenAI protocol against a real local server.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Server, says, wants, wants_until};
use gathering_agents::{
    AgentDefinition, ChatModel, ChatReply, ChatRequest, Conversation, DirectRunner, FinishReason, Message,
    ModelError, OpenAiCompatible, StepRecord, ToolDescription, Usage, run_agent,
};
use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, ToolContext, Toolbox, Workspace};
use serde_json::json;

pub const KEY: &str = "sk-very-s3cret-key";

pub fn provider(server: &Server) -> OpenAiCompatible {
    OpenAiCompatible::new(server.base_url(), Some(KEY.into())).unwrap()
}

pub fn question() -> ChatRequest {
    ChatRequest {
        model: "tiny".to_owned(),
        system: "Be brief.".to_owned(),
        messages: vec![Message::User { content: "Hello?".to_owned() }],
        tools: Vec::new(),
        temperature: Some(0.5),
        max_tokens: Some(64),
        output_schema: None,
    }
}

async fn refused_with(status: &'static str, body: &str) -> ModelError {
    let server = Server::start(vec![(status, body.to_owned())]).await;
    let error = provider(&server).complete(&question()).await.unwrap_err();
    let mut chain = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        chain.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    assert!(!chain.contains("s3cret"), "the key is in the error: {chain}");
    error
}

#[tokio::test]
async fn a_request_is_sent_and_answered() {
    let server = Server::start(vec![says("Hello.")]).await;
    let reply = provider(&server).complete(&question()).await.unwrap();
    let expected = ChatReply {
        content: "Hello.".to_owned(),
        tool_calls: Vec::new(),
        usage: Usage { input_tokens: 10, output_tokens: 5 },
        finish_reason: FinishReason::Stop,
        provider: "openai".to_owned(),
        model: "tiny-1".to_owned(),
    };
    assert_eq!(reply, expected);
    let journaled = serde_json::to_value(&reply).unwrap();
    assert_eq!(serde_json::from_value::<ChatReply>(journaled).unwrap(), expected);
    let asked = server.asked().remove(0);
    assert!(asked.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", asked.head);
    assert!(asked.head.contains(&format!("authorization: Bearer {KEY}")), "{}", asked.head);
    assert_eq!(
        asked.body,
        json!({
            "model": "tiny", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.5, "max_tokens": 64,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
        })
    );
}

#[tokio::test]
async fn the_tool_loop_continues_until_the_model_has_finished() {
    let directory = tempfile::tempdir().unwrap();
    let pool = BlockingPool::new(2);
    let workspace = Workspace::open(directory.path(), pool.clone()).await.unwrap();
    workspace.write(&"a.md".parse().unwrap(), b"forty-two".to_vec()).await.unwrap();
    let tools = Toolbox::with_builtin(&Outbound::new(OutboundPolicy::public_only()).unwrap(), pool).unwrap();
    let server = Server::start(vec![
        wants(&[
            ("read_file", r#"{"path": "a.md"}"#),
            ("no_such_tool", "{}"),
            ("read_file", "{not json"),
            ("list_files", ""),
        ]),
        wants(&[("read_file", r#"{"path": "../secret"}"#)]),
        says("It is forty-two."),
    ])
    .await;
    let agent = json!({"provider": "openai", "model": "tiny", "role": "A reader", "instructions": "Read."});
    let agent = AgentDefinition::parse(&agent).unwrap();
    let described = tools.list().map(ToolDescription::from).collect();
    let runner =
        DirectRunner::new(Arc::new(provider(&server)), tools, ToolContext::new().with_workspace(workspace));
    let outcome = run_agent(Conversation::new(&agent, described, "What is it?"), &runner).await.unwrap();

    assert_eq!(outcome.content, "It is forty-two.");
    assert_eq!(outcome.usage, Usage { input_tokens: 30, output_tokens: 15 });
    assert_eq!((outcome.provider.as_str(), outcome.model.as_str()), ("openai", "tiny-1"));
    let steps: Vec<String> = outcome
        .steps
        .iter()
        .map(|step| match step {
            StepRecord::Model { key, .. } => key.to_string(),
            StepRecord::Tool { key, is_error, .. } => format!("{key}{}", if *is_error { "!" } else { "" }),
        })
        .collect();
    assert_eq!(
        steps,
        ["model/1", "tool/1/0", "tool/1/1!", "tool/1/2!", "tool/1/3", "model/2", "tool/2/0!", "model/3"]
    );

    let asked = server.asked();
    assert_eq!(asked[0].body["tools"][0]["function"]["name"], json!("edit_file"));
    let told = asked[1].body["messages"].as_array().unwrap();
    let roles: Vec<&str> = told.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool", "tool", "tool"]);
    assert_eq!(told[2]["tool_calls"][0]["id"], told[3]["tool_call_id"]);
    assert!(told[3]["content"].as_str().unwrap().contains("forty-two"));
    assert!(told[4]["content"].as_str().unwrap().contains("unknown_tool"));
    assert!(told[5]["content"].as_str().unwrap().contains("invalid_parameters"));
    let told = asked[2].body["messages"].as_array().unwrap();
    assert!(told.last().unwrap()["content"].as_str().unwrap().contains("outside of the workspace"));
}

#[tokio::test]
async fn transient_failures_are_retryable() {
    let error = refused_with("429 Too Many Requests\r\nretry-after: 7", "{}").await;
    assert!(
        matches!(&error, ModelError::RateLimited { retry_after: Some(after), .. } if *after == Duration::from_secs(7)),
        "{error:?}"
    );
    assert!(error.is_retryable());
    for status in ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"] {
        let error =
            refused_with(status, &format!(r#"{{"error": {{"message": "key {KEY} is overloaded"}}}}"#)).await;
        assert!(matches!(error, ModelError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("key [key] is overloaded"), "{error}");
    }
}

#[tokio::test]
async fn rejections_are_permanent_and_never_repeat_the_key() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let error =
            refused_with(status, r#"{"error": {"message": "Incorrect API key: sk-very-s3cr*****"}}"#).await;
        assert!(matches!(error, ModelError::Unauthorized { .. }) && !error.is_retryable(), "{error:?}");
        assert!(!error.to_string().contains("sk-very"), "{error}");
    }
    for status in ["400 Bad Request", "404 Not Found", "302 Found\r\nlocation: http://127.0.0.1:1/"] {
        let error = refused_with(status, r#"{"error": {"message": "no such model"}}"#).await;
        assert!(matches!(error, ModelError::Rejected { .. }) && !error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("no such model"), "{error}");
    }
}

#[tokio::test]
async fn an_invalid_answer_is_an_error_and_not_an_empty_reply() {
    for body in ["", "<html>", "{}", r#"{"choices": []}"#, r#"{"choices": [{"message": {"content": 1}}]}"#] {
        let error = refused_with("200 OK", body).await;
        assert!(matches!(error, ModelError::Malformed { .. }), "{body}: {error:?}");
    }
    let error = refused_with("200 OK", &" ".repeat(9 * 1024 * 1024)).await;
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[tokio::test]
async fn a_silent_or_absent_provider_is_retryable() {
    let silent = Server::start(Vec::new()).await;
    let error = provider(&silent).timeout(Duration::from_millis(50)).complete(&question()).await.unwrap_err();
    assert!(matches!(error, ModelError::TimedOut { .. }) && error.is_retryable(), "{error:?}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let absent = OpenAiCompatible::new(&url, None).unwrap();
    let error = absent.complete(&question()).await.unwrap_err();
    assert!(matches!(error, ModelError::Connection { .. }) && error.is_retryable(), "{error:?}");
}

#[test]
fn invalid_settings_are_rejected_at_once_and_the_key_is_not_shown() {
    for url in ["", "localhost:11434", "ftp://x/v1", "http://", "http://u:s3cret@x/v1"] {
        assert!(matches!(OpenAiCompatible::new(url, None), Err(ModelError::Setup { .. })), "{url}");
    }
    let error = OpenAiCompatible::new("http://localhost/v1", Some("s3cret\n".into())).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
    let provider = OpenAiCompatible::new("http://localhost/v1", Some(KEY.into())).unwrap();
    assert!(!format!("{provider:?}").contains("s3cret"));
}

/// An agent with `write_file`, whose model answers so; what it asked the model last, and whether the file was written.
async fn after(answers: Vec<(&'static str, String)>) -> (serde_json::Value, bool) {
    let directory = tempfile::tempdir().unwrap();
    let pool = BlockingPool::new(1);
    let workspace = Workspace::open(directory.path(), pool.clone()).await.unwrap();
    let tools = Toolbox::with_builtin(&Outbound::new(OutboundPolicy::public_only()).unwrap(), pool).unwrap();
    let definition = json!({"provider": "openai", "model": "tiny", "tools": ["write_file"]});
    let agent = AgentDefinition::parse(&definition).unwrap();
    let tools = tools.select(["write_file"]).unwrap();
    let described: Vec<ToolDescription> = tools.list().map(ToolDescription::from).collect();
    let server = Server::start(answers).await;
    let context = ToolContext::new().with_workspace(workspace);
    let runner = DirectRunner::new(Arc::new(provider(&server)), tools, context);
    let outcome = run_agent(Conversation::new(&agent, described, "Write."), &runner).await.unwrap();
    assert_eq!(outcome.content, "done");
    let asked = server.asked().pop().unwrap().body["messages"].clone();
    (asked, directory.path().join("a.md").exists())
}

#[tokio::test]
async fn a_call_in_a_reply_that_was_cut_off_is_not_executed_and_the_model_hears_of_it() {
    let whole = r#"{"path": "a.md", "content": "x"}"#;
    let (asked, is_written) = after(vec![wants(&[("write_file", whole)]), says("done")]).await;
    assert!(is_written, "{asked}");
    // Also where what there is of it is JSON by chance, or none.
    for arguments in [whole, r#"{"path": "a.md", "content": "#] {
        let cut = wants_until(&[("write_file", whole), ("write_file", arguments)], "length");
        let (asked, is_written) = after(vec![cut, says("done")]).await;
        assert!(!is_written, "{asked}");
        for at in [2, 3] {
            let result = asked[at]["content"].as_str().unwrap();
            assert!(asked[at]["role"] == "tool" && result.contains("was not executed"), "{asked}");
        }
    }
}

#[tokio::test]
async fn a_withheld_reply_ends_the_agent_and_none_of_its_calls_is_executed() {
    let server = Server::start(vec![wants_until(&[("write_file", "{}")], "content_filter")]).await;
    let agent = AgentDefinition::parse(&json!({"provider": "openai", "model": "tiny"})).unwrap();
    let tools = Toolbox::new(BlockingPool::new(1));
    let runner = DirectRunner::new(Arc::new(provider(&server)), tools, ToolContext::new());
    let outcome = run_agent(Conversation::new(&agent, Vec::new(), "Write."), &runner).await.unwrap();
    assert_eq!((outcome.finish_reason, outcome.steps.len()), (FinishReason::Refused, 1));
}

#[tokio::test]
async fn a_model_is_not_called_by_the_path_of_its_file() {
    for (answered, shown) in [
        ("/srv/models/tiny.gguf", "tiny"),
        ("models/tiny-1.Q4.GGUF", "tiny"),
        ("models\\tiny.bin", "tiny"),
        ("org/tiny-1", "org/tiny-1"),
        ("org/tiny-1-GGUF:Q4", "org/tiny-1-GGUF:Q4"),
    ] {
        let (status, body) = says("Hello.");
        let mut body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["model"] = json!(answered);
        let server = Server::start(vec![(status, body.to_string())]).await;
        assert_eq!(provider(&server).complete(&question()).await.unwrap().model, shown);
    }
}

#[tokio::test]
async fn arguments_that_are_no_object_do_not_go_back_to_the_model_as_they_came() {
    for (broken, place) in [
        ("{", Some("line 1 column 1")),
        ("{\"path\": \"a\",\n content}", Some("line 2 column 2")),
        ("write it", Some("line 1 column 1")),
        ("[1]", None),
        ("\"text\"", None),
        ("7", None),
    ] {
        let (asked, is_written) = after(vec![wants(&[("write_file", broken)]), says("done")]).await;
        assert!(!is_written);
        assert_eq!(asked[1]["tool_calls"][0]["function"]["arguments"], "{}", "{broken}");
        let result = asked[2]["content"].as_str().unwrap();
        assert!(result.contains("invalid parameters") && result.contains("object"), "{broken}: {result}");
        assert_eq!(result.contains("the arguments are not JSON"), place.is_some(), "{broken}: {result}");
        assert!(result.contains(place.unwrap_or_default()), "{broken}: {result}");
    }
}

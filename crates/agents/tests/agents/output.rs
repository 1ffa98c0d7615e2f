//! Answers that are values: asked for, checked, and asked for again.

use std::sync::Arc;

use gathering_agents::{
    AgentDefinition, AgentError, AgentOutcome, ChatModel as _, ChatRequest, Conversation, DirectRunner,
    Message, ModelError, Scripted, Step, ToolDescription, run_agent,
};
use gathering_tools::{BlockingPool, ToolContext, Toolbox};
use serde_json::{Value, json};

use crate::openai::{provider, question};
use crate::support::{Server, says};

fn schema() -> Value {
    json!({
        "type": "object", "required": ["urgency"], "additionalProperties": false,
        "properties": {"urgency": {"enum": ["low", "high"]}, "code": {"type": "string", "pattern": "[a-z]"}}
    })
}

async fn answered(limits: Value, replies: &[&str]) -> Result<AgentOutcome, AgentError<ModelError>> {
    let definition = json!({"provider": "scripted", "output_schema": schema(), "limits": limits});
    let agent = AgentDefinition::parse(&definition).unwrap();
    let model = Arc::new(Scripted::replies(replies.to_vec()));
    let runner = DirectRunner::new(model, Toolbox::new(BlockingPool::new(1)), ToolContext::new());
    run_agent(Conversation::new(&agent, Vec::new(), "How urgent?"), &runner).await
}

#[tokio::test]
async fn an_answer_that_fits_is_a_value() {
    let outcome = answered(json!({}), &["```json\n{\"urgency\": \"low\"}\n```"]).await.unwrap();
    assert_eq!(outcome.output, Some(json!({"urgency": "low"})));
    let journaled = serde_json::to_value(&outcome).unwrap();
    assert_eq!(journaled["output"], json!({"urgency": "low"}));
}

#[tokio::test]
async fn a_bad_answer_is_asked_for_again_and_counts_as_a_step() {
    let outcome =
        answered(json!({}), &["soon", "{\"urgency\": \"now\"}", "{\"urgency\": \"high\"}"]).await.unwrap();
    assert_eq!((outcome.output, outcome.steps.len()), (Some(json!({"urgency": "high"})), 3));
    let stopped = answered(json!({"max_steps": 2}), &["soon", "later", "{\"urgency\": \"high\"}"]).await;
    assert!(matches!(stopped, Err(AgentError::Stopped { .. })), "{stopped:?}");
    match answered(json!({}), &["soon", "later", "{\"urgency\": \"now\"}", "{}"]).await {
        Err(AgentError::InvalidAnswer { why, .. }) => assert!(why.contains("/urgency"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_model_hears_what_was_wrong_with_its_answer() {
    let agent = AgentDefinition::parse(&json!({"provider": "scripted", "output_schema": schema()})).unwrap();
    let mut conversation = Conversation::new(&agent, Vec::new(), "How urgent?");
    let mut reply = reply_of("soon");
    conversation.after_model(reply.clone()).unwrap();
    let heard = |conversation: &Conversation| match conversation.next() {
        Step::CallModel(_, ChatRequest { mut messages, .. }) => match messages.pop() {
            Some(Message::User { content }) => content,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert!(heard(&conversation).contains("it is not JSON"), "{}", heard(&conversation));
    reply.content = "{\"colour\": 1}".to_owned();
    conversation.after_model(reply).unwrap();
    let heard = heard(&conversation);
    assert!(heard.contains("/colour") && heard.contains("/urgency"), "{heard}");
}

#[test]
fn an_answer_is_asked_for_again_without_tools() {
    let agent = AgentDefinition::parse(&json!({"provider": "scripted", "output_schema": schema()})).unwrap();
    let mut conversation = Conversation::new(&agent, vec![now()], "How urgent?");
    let n_tools = |conversation: &Conversation| match conversation.next() {
        Step::CallModel(_, request) => request.tools.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(n_tools(&conversation), 1);
    conversation.after_model(reply_of("soon")).unwrap();
    assert_eq!(n_tools(&conversation), 0);
}

/// A server that keeps to the schema would never call one.
#[tokio::test]
async fn a_request_with_tools_has_its_schema_in_the_prompt_only() {
    let server = Server::start(vec![says("{}")]).await;
    let asked = ChatRequest { output_schema: Some(schema()), tools: vec![now()], ..question() };
    provider(&server).complete(&asked).await.unwrap();
    let body = server.asked().remove(0).body;
    assert_eq!(body.get("response_format"), None, "{body}");
    assert!(body["messages"][0]["content"].as_str().unwrap().contains("urgency"), "{body}");
}

fn now() -> ToolDescription {
    ToolDescription { name: "now".to_owned(), description: "Tells.".to_owned(), parameters: json!({}) }
}

fn reply_of(content: &str) -> gathering_agents::ChatReply {
    serde_json::from_value(json!({
        "content": content, "tool_calls": [], "usage": {"input_tokens": 1, "output_tokens": 1},
        "finish_reason": "stop", "provider": "scripted", "model": "scripted"
    }))
    .unwrap()
}

#[test]
fn a_schema_that_is_none_is_refused_at_its_place() {
    for wrong in
        [json!({"type": "thing"}), json!({}), json!({"$ref": "https://example.org/s.json"}), json!([])]
    {
        let problems =
            AgentDefinition::parse(&json!({"provider": "scripted", "output_schema": wrong})).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(places, ["/output_schema"], "{wrong}");
    }
    let stored = AgentDefinition::parse(&json!({"provider": "scripted", "output_schema": null})).unwrap();
    assert_eq!(
        serde_json::to_value(stored).unwrap().get("output_schema"),
        None,
        "stored definitions stay the same"
    );
}

#[tokio::test]
async fn the_server_is_asked_to_keep_to_a_simple_copy_and_the_model_reads_the_full_one() {
    let server = Server::start(vec![says("{}")]).await;
    let asked = ChatRequest { output_schema: Some(schema()), ..question() };
    provider(&server).complete(&asked).await.unwrap();
    let body = server.asked().remove(0).body;
    let format = &body["response_format"];
    assert_eq!(format["type"], "json_schema", "{body}");
    assert_eq!(format["json_schema"]["schema"]["required"], json!(["urgency"]), "{body}");
    assert!(!format.to_string().contains("pattern"), "{body}");
    let system = body["messages"][0]["content"].as_str().unwrap();
    assert!(system.starts_with("Be brief.") && system.contains("pattern"), "{system}");
}

#[tokio::test]
async fn a_server_that_refuses_response_format_is_asked_once_more_without_it() {
    let refusal = r#"{"error": {"message": "response_format is not supported"}}"#;
    let server = Server::start(vec![("400 Bad Request", refusal.to_owned()), says("{}")]).await;
    let asked = ChatRequest { output_schema: Some(schema()), ..question() };
    assert_eq!(provider(&server).complete(&asked).await.unwrap().content, "{}");
    let sent: Vec<bool> =
        server.asked().iter().map(|asked| asked.body.get("response_format").is_some()).collect();
    assert_eq!(sent, [true, false]);
}

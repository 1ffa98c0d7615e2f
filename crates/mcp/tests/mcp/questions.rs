//! What a server asks is answered, and what it tells is bounded.

use std::time::Duration;

use async_trait::async_trait;
use gathering_mcp::{McpNoticeKind, McpNotices, McpServer};
use gathering_tools::{
    DeclineQuestions, QuestionRequest, ToolAnswer, ToolContext, ToolQuestion, ToolQuestions, ToolRespondent,
};
use serde_json::{Value, json};

use crate::support::{fake, heard, is_well, mount, services, text, wait_until};

/// A person who likes blue.
struct Blue;

#[async_trait]
impl ToolRespondent for Blue {
    async fn answer(&self, question: ToolQuestion) -> ToolAnswer {
        assert_eq!((question.asked_by.as_str(), question.message.as_str()), ("fake", "Which?"));
        assert!(matches!(question.request, QuestionRequest::Form(_)), "{question:?}");
        ToolAnswer::Accepted(json!({"colour": "blue"}))
    }
}

fn with_person(behaviours: &[&str]) -> McpServer {
    let mut services = services();
    services.questions = Some(ToolQuestions::to(Blue));
    McpServer::mount(fake(behaviours), services).unwrap()
}

async fn told(server: &McpServer, tool: &str) -> Value {
    serde_json::from_str(&text(server, tool).await.unwrap()).unwrap()
}

#[tokio::test]
async fn every_request_of_a_server_is_answered_also_the_one_with_id_0() {
    let server = mount(fake(&[]));
    assert_eq!(told(&server, "ask_ping").await, json!({"jsonrpc": "2.0", "id": 0, "result": {}}));
    assert_eq!(told(&server, "ask_roots").await["error"]["code"], -32601);
    assert!(told(&server, "ask_sampling").await["error"].is_object());
    let declined = told(&server, "ask_elicit").await;
    assert_eq!(declined["result"], json!({"action": "decline"}));
    assert_eq!(heard(&server, "initialize").await[0]["params"]["capabilities"], json!({}));
    server.stop().await;
}

#[tokio::test]
async fn a_question_to_a_person_is_answered_by_the_port() {
    let server = with_person(&[]);
    let answered = told(&server, "ask_elicit").await;
    assert_eq!(answered["result"], json!({"action": "accept", "content": {"colour": "blue"}}));
    let declared = &heard(&server, "initialize").await[0]["params"]["capabilities"];
    assert_eq!(declared, &json!({"elicitation": {"form": {}, "url": {}}}));
    server.stop().await;
}

#[tokio::test]
async fn a_call_asks_its_own_respondent_as_long_as_the_question_can_only_be_of_that_call() {
    let server = with_person(&[]);
    let asks = async || {
        let context = ToolContext::new().with_questions(ToolQuestions::to(DeclineQuestions));
        let digest = server.ready().await.unwrap().find("ask_elicit").unwrap().digest;
        let answered = server.call_defined("ask_elicit", json!({}), digest, &context).await.unwrap();
        serde_json::from_str::<Value>(&answered.text()).unwrap()["result"]["action"].clone()
    };
    assert_eq!(asks().await, "decline");
    let other = text(&server, "late");
    let mut other = std::pin::pin!(other);
    tokio::select! {
        ended = &mut other => panic!("it ended: {ended:?}"),
        () = wait_until("both are in flight", async || heard(&server, "tools/call").await.len() >= 2) => {}
    }
    // Nobody knows which call asks, so the respondent of the server answers.
    tokio::select! {
        ended = &mut other => panic!("it ended: {ended:?}"),
        action = asks() => assert_eq!(action, "accept"),
    }
    server.stop().await;
}

#[tokio::test]
async fn input_that_a_modern_server_requires_is_given_for_a_bounded_number_of_times() {
    let server = with_person(&["modern"]);
    let answers = told(&server, "asks_twice").await;
    assert_eq!(answers["colour"], json!({"action": "accept", "content": {"colour": "blue"}}));
    let error = text(&server, "asks_for_ever").await.unwrap_err();
    assert!(error.to_string().contains("it asks for input too often"), "{error}");
    assert!(is_well(&server).await);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_tells_more_than_anybody_reads_is_answered_all_the_same() {
    let mut services = services();
    services.notices = McpNotices::new(10);
    let notices = services.notices.clone();
    let server = McpServer::mount(fake(&[]), services).unwrap();
    assert_eq!(text(&server, "log_much").await.unwrap(), "logged");
    assert!(notices.n_dropped() >= 990, "{}", notices.n_dropped());
    let last = std::iter::from_fn(|| notices.try_next()).last().unwrap();
    assert_eq!(last.kind, McpNoticeKind::Log { level: "info".to_owned(), text: "999".to_owned() });
    server.stop().await;
}

#[tokio::test]
async fn progress_names_its_tool_until_the_call_is_over() {
    let services = services();
    let notices = services.notices.clone();
    let server = McpServer::mount(fake(&[]), services).unwrap();
    server.ready().await.unwrap();
    let called = tokio::time::timeout(Duration::from_millis(500), text(&server, "late")).await;
    assert!(called.is_err());
    assert!(is_well(&server).await);
    let progress: Vec<f64> = std::iter::from_fn(|| notices.try_next())
        .filter_map(|notice| match notice.kind {
            McpNoticeKind::Progress { tool, progress, total, .. } => {
                assert_eq!((tool.as_str(), total), ("late", Some(2.0)));
                Some(progress)
            }
            _ => None,
        })
        .collect();
    assert_eq!(progress, [1.0], "the progress after the cancellation is dropped");
    server.stop().await;
}

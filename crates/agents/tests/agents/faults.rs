//! What servers do wrong, one row each: the caller hears what happened, or does not notice.

use gathering_agents::{ChatModel as _, ChatReply, ModelError};
use serde_json::{Value, json};

use crate::openai::{KEY, provider, question};
use crate::support::Server;

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

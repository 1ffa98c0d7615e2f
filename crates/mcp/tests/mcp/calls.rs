//! Each misbehaviour ends in a clear failure of its call, and the next call is well.

use std::time::Duration;

use gathering_mcp::McpError;
use serde_json::json;

use crate::support::{heard, is_well, mount_fake, text, wait_until};

const BRIEF: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_call_that_hangs_is_cancelled_at_its_time_limit() {
    let server = mount_fake(&[], BRIEF);
    let error = text(&server, "hang").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server did not answer `tools/call` within 1 seconds; the call may have taken effect"
    );
    assert!(error.may_have_taken_place() && error.is_retryable());
    assert!(is_well(&server).await);
    let cancelled = heard(&server, "notifications/cancelled").await;
    let called = heard(&server, "tools/call").await;
    assert_eq!(cancelled[0]["params"]["requestId"], called[0]["id"]);
    server.stop().await;
}

#[tokio::test]
async fn what_comes_after_a_cancellation_is_dropped() {
    let server = mount_fake(&[], LONG);
    for tool in ["late", "late_error"] {
        let called = tokio::time::timeout(BRIEF, text(&server, tool)).await;
        assert!(called.is_err(), "it ended: {called:?}");
        assert!(is_well(&server).await);
    }
    assert_eq!(heard(&server, "notifications/cancelled").await.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_no_json_fails_only_its_call() {
    let server = mount_fake(&[], LONG);
    for tool in ["garbled", "deep"] {
        let error = text(&server, tool).await.unwrap_err();
        assert!(matches!(error, McpError::InvalidAnswer { .. }), "{tool}: {error}");
        assert!(error.may_have_taken_place());
        assert!(is_well(&server).await);
    }
    server.stop().await;
}

#[tokio::test]
async fn lines_that_are_no_messages_are_skipped() {
    let server = mount_fake(&[], LONG);
    assert_eq!(text(&server, "noise").await.unwrap(), "after the noise");
    server.stop().await;
}

#[tokio::test]
async fn answers_with_wrong_ids_answer_nothing_and_are_counted() {
    let server = mount_fake(&[], BRIEF);
    let error = text(&server, "wrong_id").await.unwrap_err();
    assert!(error.to_string().contains("; 2 of its messages answered no call in flight"), "{error}");
    assert!(is_well(&server).await);
    server.stop().await;
}

#[tokio::test]
async fn an_answer_longer_than_a_line_may_be_fails_only_its_call() {
    let server = mount_fake(&[], LONG);
    let other = async { text(&server, "ask_ping").await };
    let (huge, other) = tokio::join!(text(&server, "huge"), other);
    let error = huge.unwrap_err();
    assert_eq!(error.to_string(), "the answer is larger than 1048576 bytes; the call may have taken effect");
    assert!(other.is_ok(), "{other:?}");
    assert!(is_well(&server).await);
    server.stop().await;
}

#[tokio::test]
async fn a_result_larger_than_its_limit_is_a_failure() {
    let server = mount_fake(&[], LONG);
    let error = text(&server, "big").await.unwrap_err();
    assert!(matches!(error, McpError::TooLarge { limit_bytes: 65536 }), "{error}");
    assert!(is_well(&server).await);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_call_is_restarted_and_its_last_words_are_told() {
    let server = mount_fake(&[], LONG);
    let error = text(&server, "die").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server ended: exit code 7; its last lines: about to fail | division by zero; the call may have taken effect"
    );
    assert!(error.may_have_taken_place() && error.is_retryable());
    wait_until("the server is restarted", || is_well(&server)).await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_floods_its_output_is_restarted() {
    let server = mount_fake(&[], LONG);
    let error = text(&server, "flood").await.unwrap_err();
    assert!(error.to_string().contains("it writes lines that are no messages"), "{error}");
    wait_until("the server is restarted", || is_well(&server)).await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_closes_its_output_is_restarted() {
    let server = mount_fake(&[], LONG);
    let error = text(&server, "close_output").await.unwrap_err();
    assert!(matches!(error, McpError::Ended { sent: true, .. }), "{error}");
    wait_until("the server is restarted", || is_well(&server)).await;
    server.stop().await;
}

#[tokio::test]
async fn a_failure_of_the_tool_is_its_own_text_in_either_shape() {
    let server = mount_fake(&[], LONG);
    let error = text(&server, "fail").await.unwrap_err();
    assert_eq!(error.to_string(), "no zone `utc`; write `UTC`");
    let error = text(&server, "refuse").await.unwrap_err();
    assert_eq!(error.to_string(), "the server answered with error -32602: Unknown tool: refuse");
    let error = text(&server, "no_such_tool").await.unwrap_err();
    assert!(matches!(error, McpError::UnknownTool { .. }) && !error.may_have_taken_place(), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn arguments_are_checked_before_anything_is_sent() {
    let server = mount_fake(&[], LONG);
    let error = server.call("echo", json!({"message": 1})).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid arguments: /message: must be of type string");
    assert!(!error.may_have_taken_place());
    assert_eq!(heard(&server, "tools/call").await.len(), 1, "only the question what it heard");
    server.stop().await;
}

#[tokio::test]
async fn structured_content_that_does_not_fit_is_kept_with_a_note() {
    let server = mount_fake(&[], LONG);
    let result = server.call("misfit", json!({})).await.unwrap();
    assert_eq!(
        (result.text().as_str(), result.structured_content.clone()),
        ("one", Some(json!({"n": "one"})))
    );
    assert!(result.notes[0].contains("/n: must be of type integer"), "{:?}", result.notes);
    server.stop().await;
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_for_their_turn() {
    let mut config = crate::support::fake(&[]);
    config.limits.max_calls = 1;
    config.limits.call = BRIEF;
    let server = crate::support::mount(config);
    server.ready().await.unwrap();
    let (hangs, waits) = tokio::join!(text(&server, "hang"), text(&server, "noise"));
    assert!(hangs.is_err());
    assert!(waits.is_ok() || !waits.unwrap_err().may_have_taken_place());
    server.stop().await;
}

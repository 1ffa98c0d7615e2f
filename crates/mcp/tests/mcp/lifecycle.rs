//! Processes: how they start, how they end, and that nothing of them is left.

use std::time::{Duration, Instant};

use gathering_mcp::{McpError, McpNoticeKind, McpServer, McpTransport, StdioCommand};

use crate::support::{fake, is_alive, is_well, mount, mount_fake, services, text, wait_until};

#[tokio::test]
async fn a_command_that_cannot_be_started_is_told_and_calls_fail_without_being_sent() {
    let mut config = fake(&[]);
    config.transport = McpTransport::Stdio(StdioCommand::new("/no/such/program", [""; 0]));
    let server = mount(config);
    let error = text(&server, "echo").await.unwrap_err();
    assert!(error.to_string().contains("cannot start `/no/such/program`: No such file"), "{error}");
    assert!(!error.may_have_taken_place() && error.is_retryable());
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_at_once_is_told_with_its_last_words_and_tried_again() {
    let services = services();
    let notices = services.notices.clone();
    let server = McpServer::mount(fake(&["dies-at-once"]), services).unwrap();
    let error = server.ready().await.unwrap_err();
    assert!(error.to_string().contains("exit code 3; its last lines: no licence found"), "{error}");
    for _ in 0..3 {
        assert!(matches!(notices.next().await.kind, McpNoticeKind::Down { .. }));
    }
    server.stop().await;
}

#[tokio::test]
async fn stopping_ends_the_whole_process_group() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("child");
    let server = mount(fake(&["has-child", file.to_str().unwrap()]));
    assert!(is_well(&server).await);
    let child = std::fs::read_to_string(&file).unwrap();
    assert!(is_alive(&child));
    server.stop().await;
    assert!(!is_alive(&child), "the child of the server lives on");
    let error = text(&server, "noise").await.unwrap_err();
    assert!(matches!(error, McpError::Stopped), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_end_by_itself_is_terminated() {
    let mut config = fake(&["never-ends"]);
    config.limits.shutdown = Duration::from_millis(300);
    let server = mount(config);
    assert!(is_well(&server).await);
    let since = Instant::now();
    server.stop().await;
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_server_that_is_still_starting_is_stopped_at_once() {
    let server = mount(fake(&["silent", "never-ends"]));
    let starting = tokio::time::timeout(Duration::from_millis(300), server.ready()).await;
    assert!(starting.is_err(), "{starting:?}");
    let since = Instant::now();
    server.stop().await;
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert!(matches!(server.ready().await, Err(McpError::Stopped)));
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_process() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("child");
    let server = mount(fake(&["has-child", file.to_str().unwrap()]));
    assert!(is_well(&server).await);
    let child = std::fs::read_to_string(&file).unwrap();
    drop(server);
    wait_until("the child has ended", async || !is_alive(&child)).await;
}

#[tokio::test]
async fn a_server_that_answers_no_ping_after_a_time_out_is_restarted() {
    let server = mount_fake(&["no-ping"], Duration::from_millis(200));
    assert!(text(&server, "hang").await.is_err());
    // Between the two processes a call fails.
    let is_new =
        async || text(&server, "heard").await.is_ok_and(|heard| !heard.contains("notifications/cancelled"));
    wait_until("another process answers", is_new).await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_sees_only_the_environment_that_it_is_given() {
    let mut config = fake(&[]);
    let McpTransport::Stdio(command) = &mut config.transport else { unreachable!() };
    *command = StdioCommand::new("sh", ["-c", "env >&2; exit 1"]);
    command.env.insert("GIVEN".to_owned(), "yes".into());
    config.limits.stderr_lines = 100;
    let server = mount(config);
    let error = server.ready().await.unwrap_err().to_string();
    assert!(error.contains("GIVEN=yes") && error.contains("PATH="), "{error}");
    assert!(!error.contains("CARGO"), "{error}");
    server.stop().await;
}

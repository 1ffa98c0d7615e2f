//! How the generation of the protocol is chosen.

use std::time::Duration;

use gathering_mcp::{McpError, McpProtocol, McpServer};

use crate::support::{fake, heard, is_well, mount};

async fn speaks(behaviours: &[&str], protocol: McpProtocol) -> Result<(McpServer, String), McpError> {
    speaks_within(Duration::from_secs(30), behaviours, protocol).await
}

async fn speaks_within(
    startup: Duration,
    behaviours: &[&str],
    protocol: McpProtocol,
) -> Result<(McpServer, String), McpError> {
    let mut config = fake(behaviours);
    config.protocol = protocol;
    config.limits.probe_silence = Duration::from_millis(300);
    config.limits.startup = startup;
    let server = mount(config);
    let version = server.ready().await?.server.protocol_version.clone();
    Ok((server, version))
}

#[tokio::test]
async fn a_server_that_discovers_is_modern_and_each_request_says_so() {
    let (server, version) = speaks(&["modern"], McpProtocol::Auto).await.unwrap();
    assert_eq!(version, "2026-07-28");
    let called = heard(&server, "tools/call").await;
    let meta = &called[0]["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert!(meta["progressToken"].is_u64());
    assert!(heard(&server, "initialize").await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn an_older_server_gets_the_handshake_in_whatever_way_it_fails_the_question() {
    let old = [
        &[][..],
        &["answers-anything"],
        &["silent-to-discover"],
        &["dies-of-discover"],
        &["another-version"],
    ];
    for behaviours in old {
        let (server, version) = speaks(behaviours, McpProtocol::Auto).await.unwrap();
        assert_eq!(version, "2025-11-25", "{behaviours:?}");
        assert!(is_well(&server).await, "{behaviours:?}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_silent_question_is_followed_by_a_fresh_process() {
    let (server, _) = speaks(&["silent-to-discover"], McpProtocol::Auto).await.unwrap();
    assert!(heard(&server, "server/discover").await.is_empty(), "this process was never asked");
    server.stop().await;
}

#[tokio::test]
async fn a_chosen_generation_is_the_only_one_that_is_tried() {
    let (server, version) = speaks(&[], McpProtocol::V2025_11_25).await.unwrap();
    assert_eq!(version, "2025-11-25");
    assert!(heard(&server, "server/discover").await.is_empty());
    server.stop().await;
    let error = speaks(&[], McpProtocol::V2026_07_28).await.unwrap_err();
    assert!(error.to_string().contains("Method not found"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_silent_to_everything_is_told_with_its_last_words() {
    let limit = Duration::from_secs(3);
    let error = speaks_within(limit, &["silent"], McpProtocol::Auto).await.unwrap_err();
    assert!(!error.may_have_taken_place());
    let text = error.to_string();
    assert!(text.contains("did not answer `initialize` within 3 seconds"), "{text}");
    assert!(text.contains("its last lines: waiting for a key press"), "{text}");
}

#[tokio::test]
async fn an_unknown_version_is_an_error_that_names_it() {
    let error = speaks(&["old"], McpProtocol::V2025_11_25).await.unwrap_err();
    assert!(error.to_string().contains("it answers 2025-11-25 with `1999-01-01`"), "{error}");
}

//! The official servers of npm and PyPI, of both generations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gathering_domain::EffectClass;
use gathering_mcp::{
    McpError, McpNoticeKind, McpNotices, McpProtocol, McpServer, McpServerConfig, NotCallable,
};
use gathering_tools::{
    DeclineQuestions, ToolAnswer, ToolContext, ToolQuestion, ToolQuestions, ToolRespondent,
};
use serde_json::{Value, json};

use crate::programs::{Listening, PythonSdk, npm, own, pypi};
use crate::support::{http, mount, services, text, wait_until};

async fn call(server: &McpServer, tool: &str, arguments: Value) -> String {
    server.call(tool, arguments).await.unwrap().text()
}

/// The progress that was told so far.
fn progress(notices: &McpNotices) -> Vec<f64> {
    let kinds = std::iter::from_fn(|| notices.try_next()).map(|notice| notice.kind);
    kinds
        .filter_map(|kind| match kind {
            McpNoticeKind::Progress { progress, .. } => Some(progress),
            _ => None,
        })
        .collect()
}

fn mount_heard(config: McpServerConfig) -> (McpServer, McpNotices) {
    let services = services();
    let notices = services.notices.clone();
    (McpServer::mount(config, services).unwrap(), notices)
}

/// A person who likes blue.
struct Blue;

#[async_trait]
impl ToolRespondent for Blue {
    async fn answer(&self, _: ToolQuestion) -> ToolAnswer {
        ToolAnswer::Accepted(json!({"colour": "blue"}))
    }
}

#[tokio::test]
async fn each_server_is_spoken_to_in_its_generation() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().to_str().unwrap();
    let newer = [pypi("mcp_server_time"), pypi("mcp_server_git"), pypi("mcp_server_fetch")];
    let mut expected: Vec<(McpServerConfig, &str, usize)> =
        newer.into_iter().zip([2, 12, 1]).map(|(config, n_tools)| (config, "2026-07-28", n_tools)).collect();
    expected.push((own(PythonSdk::One), "2025-11-25", 6));
    expected.push((own(PythonSdk::Two), "2026-07-28", 6));
    let older = [("server-filesystem", &[root][..], 14), ("server-memory", &[], 9)];
    for (name, arguments, n_tools) in older.into_iter().chain([("server-sequential-thinking", &[][..], 1)]) {
        expected.extend(npm(name, arguments).map(|config| (config, "2025-11-25", n_tools)));
    }
    for (config, version, n_tools) in expected {
        let shown = format!("{:?}", config.transport);
        let server = mount(config);
        let catalogue = server.ready().await.unwrap();
        assert_eq!(catalogue.server.protocol_version, version, "{shown}");
        let n_callable = catalogue.callable().count();
        assert_eq!((catalogue.tools.len(), n_callable), (n_tools, n_tools), "{shown}");
        assert_eq!(catalogue.problems, [""; 0], "{shown}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_newer_server_also_answers_the_older_handshake() {
    let mut config = pypi("mcp_server_time");
    config.protocol = McpProtocol::V2025_11_25;
    let server = mount(config);
    assert_eq!(server.ready().await.unwrap().server.protocol_version, "2025-11-25");
    assert!(call(&server, "get_current_time", json!({"timezone": "CET"})).await.contains("\"CET\""));
    server.stop().await;
}

#[tokio::test]
async fn a_failure_of_a_tool_is_the_servers_text() {
    let server = mount(pypi("mcp_server_time"));
    let error = server.call("get_current_time", json!({"timezone": "utc"})).await.unwrap_err();
    assert!(error.to_string().contains("Invalid timezone: 'No time zone found with key utc'"), "{error}");
    let error = server.call("get_current_time", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid arguments: /timezone: is required");
    server.stop().await;
    // Of an ordinary exception the newer SDK says only where it happened.
    for (sdk, words) in [(PythonSdk::One, "the reason"), (PythonSdk::Two, "Error executing tool boom")] {
        let server = mount(own(sdk));
        let error = text(&server, "boom").await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_tool_that_prints_does_not_end_its_connection() {
    for sdk in [PythonSdk::One, PythonSdk::Two] {
        let server = mount(own(sdk));
        assert_eq!(call(&server, "prints", json!({})).await, "printed");
        server.stop().await;
    }
}

#[tokio::test]
async fn the_tools_of_everything_depend_on_what_the_client_can_do() {
    let Some(config) = npm("server-everything", &[]) else { return };
    let server = mount(config.clone());
    let catalogue = server.ready().await.unwrap();
    assert_eq!((catalogue.tools.len(), catalogue.callable().count()), (13, 12));
    let of_task = catalogue.find("simulate-research-query").unwrap();
    assert_eq!(of_task.not_callable, Some(NotCallable::NeedsTask));
    let image = server.call("get-tiny-image", json!({})).await.unwrap();
    assert!(image.content.iter().any(|part| part["type"] == "image" && part["mime_type"] == "image/png"));
    let structured = server.call("get-structured-content", json!({"location": "Chicago"})).await.unwrap();
    assert!(structured.structured_content.is_some() && structured.notes.is_empty(), "{structured:?}");
    let links = server.call("get-resource-links", json!({"count": 2})).await.unwrap();
    assert_eq!(links.content.iter().filter(|part| part["type"] == "resource_link").count(), 2);
    server.stop().await;

    let mut services = services();
    services.questions = Some(ToolQuestions::to(Blue));
    let server = McpServer::mount(config, services).unwrap();
    let has_more = async || server.catalogue().is_some_and(|catalogue| catalogue.tools.len() == 15);
    wait_until("the server shows the tools that ask", has_more).await;
    server.stop().await;
}

#[tokio::test]
async fn hints_are_believed_as_far_as_the_operator_does() {
    let Some(mut config) = npm("server-sequential-thinking", &[]) else { return };
    let class = async |config: &McpServerConfig| {
        let server = mount(config.clone());
        let class = server.ready().await.unwrap().tools[0].class;
        server.stop().await;
        class
    };
    // It calls itself read-only, and keeps state.
    assert_eq!(class(&config).await, EffectClass::Unsafe);
    config.allowance.most_lenient = EffectClass::Pure;
    assert_eq!(class(&config).await, EffectClass::Pure);
}

#[tokio::test]
async fn the_progress_of_a_call_is_told_and_other_calls_are_answered_meanwhile() {
    let Some(config) = npm("server-everything", &[]) else { return };
    let (server, notices) = mount_heard(config);
    server.ready().await.unwrap();
    let long = server.call("trigger-long-running-operation", json!({"duration": 1, "steps": 4}));
    let echoed = async {
        let since = Instant::now();
        let echoed = call(&server, "echo", json!({"message": "hi"})).await;
        (echoed, since.elapsed() < Duration::from_millis(900))
    };
    let (long, echoed) = tokio::join!(long, echoed);
    assert!(long.is_ok(), "{long:?}");
    assert_eq!(echoed, ("Echo: hi".to_owned(), true));
    assert_eq!(progress(&notices), [1.0, 2.0, 3.0, 4.0]);
    server.stop().await;
}

#[tokio::test]
async fn what_servers_send_after_a_cancellation_is_dropped() {
    let long = |steps: u64| json!({"duration": 0.3 * steps as f64, "steps": steps});
    let slow = |steps: u64| json!({"steps": steps});
    let everything = npm("server-everything", &[])
        .map(|config| (config, "trigger-long-running-operation", [long(6), long(4)]));
    let own = |sdk| (own(sdk), "slow", [slow(8), slow(5)]);
    for (config, tool, [dropped, whole]) in
        everything.into_iter().chain([own(PythonSdk::One), own(PythonSdk::Two)])
    {
        let (server, notices) = mount_heard(config);
        server.ready().await.unwrap();
        let called = server.call(tool, dropped);
        assert!(tokio::time::timeout(Duration::from_millis(700), called).await.is_err(), "{tool}");
        assert!((1..=4).contains(&progress(&notices).len()), "{tool}");
        // Meanwhile the other call would come to its end: everything tells its progress until then.
        let again = server.call(tool, whole.clone()).await;
        assert!(again.is_ok(), "{tool}: {again:?}");
        let told = progress(&notices);
        let steps: Vec<f64> = (1..=whole["steps"].as_u64().unwrap()).map(|step| step as f64).collect();
        assert_eq!(told, steps, "{tool}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_of_files_keeps_to_its_directory_and_a_huge_file_fails_only_its_call() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(place.path().join("outside.txt"), "secret").unwrap();
    std::fs::write(root.join("small.txt"), "small").unwrap();
    std::fs::write(root.join("huge.txt"), "x".repeat(20 << 20)).unwrap();
    let path = |name: &str| json!({"path": root.join(name).to_str().unwrap()});
    let Some(mut config) = npm("server-filesystem", &[root.to_str().unwrap()]) else { return };
    config.limits.max_line_bytes = 16 << 20;
    let server = mount(config);
    let error = server.call("read_text_file", path("../outside.txt")).await.unwrap_err();
    assert!(error.to_string().contains("Access denied"), "{error}");
    let error = server.call("read_text_file", path("huge.txt")).await.unwrap_err();
    assert!(matches!(error, McpError::TooLarge { limit_bytes: 16_777_216 }), "{error}");
    assert_eq!(call(&server, "read_text_file", path("small.txt")).await, "small");
    server.stop().await;
}

#[tokio::test]
async fn a_question_of_the_older_protocol_never_holds_a_call_for_ever() {
    for sdk in [PythonSdk::One, PythonSdk::Two] {
        let mut config = own(sdk);
        config.protocol = McpProtocol::V2025_11_25;
        let server = mount(config.clone());
        assert_eq!(call(&server, "asks", json!({})).await, "decline", "{sdk:?}");
        server.stop().await;
        let mut services = services();
        services.questions = Some(ToolQuestions::to(Blue));
        let server = McpServer::mount(config, services).unwrap();
        assert_eq!(call(&server, "asks", json!({})).await, "accept blue", "{sdk:?}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_question_over_http_reaches_the_respondent_of_the_call() {
    let remotes =
        [(Some(Listening::own(PythonSdk::One)), "asks"), (Some(Listening::own(PythonSdk::Two)), "asks")];
    let remotes = remotes.into_iter().chain([(Listening::everything(), "trigger-elicitation-request")]);
    for (remote, tool) in remotes {
        let Some(remote) = remote else { continue };
        let mut config = http(&remote.url);
        config.protocol = McpProtocol::V2025_11_25;
        let mut services = services();
        services.questions = Some(ToolQuestions::to(DeclineQuestions));
        let server = McpServer::mount(config, services).unwrap();
        let is_listed = async || server.ready().await.is_ok_and(|catalogue| catalogue.find(tool).is_some());
        wait_until("the server lists the tool", is_listed).await;
        let digest = server.ready().await.unwrap().find(tool).unwrap().digest;
        let asked = Asked::default();
        let context = ToolContext::new().with_questions(ToolQuestions::to(asked.clone()));
        let answered = server.call_defined(tool, json!({}), digest, &context).await.unwrap().text();
        assert!(asked.0.load(Ordering::Relaxed), "{tool}: {answered}");
        server.stop().await;
    }
}

/// A person who was asked, and says no.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicBool>);

#[async_trait]
impl ToolRespondent for Asked {
    async fn answer(&self, _: ToolQuestion) -> ToolAnswer {
        self.0.store(true, Ordering::Relaxed);
        ToolAnswer::Declined
    }
}

#[tokio::test]
async fn servers_end_when_their_input_is_closed_and_a_call_in_flight_may_end_first() {
    for config in [pypi("mcp_server_time"), own(PythonSdk::One)] {
        let server = mount(config);
        server.ready().await.unwrap();
        let since = Instant::now();
        server.stop().await;
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
    let Some(config) = npm("server-everything", &[]) else { return };
    let (server, notices) = mount_heard(config);
    server.ready().await.unwrap();
    let stop_under_way = async {
        while !matches!(notices.next().await.kind, McpNoticeKind::Progress { .. }) {}
        server.stop().await;
    };
    let long = server.call("trigger-long-running-operation", json!({"duration": 1, "steps": 2}));
    let (long, ()) = tokio::join!(long, stop_under_way);
    assert!(long.is_ok(), "{long:?}");
}

#[tokio::test]
async fn servers_over_http_are_called_and_a_restart_of_theirs_is_survived() {
    let remotes =
        [Some(Listening::own(PythonSdk::One)), Some(Listening::own(PythonSdk::Two)), Listening::everything()];
    let versions = ["2025-11-25", "2026-07-28", "2025-11-25"];
    for (remote, version) in remotes.into_iter().zip(versions) {
        let Some(mut remote) = remote else { continue };
        let server = mount(http(&remote.url));
        wait_until("the server listens", async || server.ready().await.is_ok()).await;
        assert_eq!(server.ready().await.unwrap().server.protocol_version, version);
        let echo = async || server.call("echo", json!({"message": "hi"})).await.map(|result| result.text());
        assert!(echo().await.unwrap().contains("hi"));
        remote.restart();
        // Once it listens again, the lost session is replaced without a failure.
        wait_until("the server listens again", async || match echo().await {
            Ok(_) => true,
            Err(error) => {
                assert!(!matches!(error, McpError::SessionLost), "{error}");
                false
            }
        })
        .await;
        server.stop().await;
    }
}

#[tokio::test]
async fn progress_comes_over_http_and_hanging_up_drops_the_rest() {
    for sdk in [PythonSdk::One, PythonSdk::Two] {
        let remote = Listening::own(sdk);
        let (server, notices) = mount_heard(http(&remote.url));
        wait_until("the server listens", async || server.ready().await.is_ok()).await;
        assert_eq!(call(&server, "slow", json!({"steps": 3})).await, "done");
        assert_eq!(progress(&notices), [1.0, 2.0, 3.0], "{sdk:?}");
        let called = server.call("slow", json!({"steps": 20}));
        assert!(tokio::time::timeout(Duration::from_millis(500), called).await.is_err());
        progress(&notices);
        assert_eq!(call(&server, "echo", json!({"message": "hi"})).await, "hi");
        assert_eq!(progress(&notices), [0.0; 0], "{sdk:?}");
        server.stop().await;
    }
}

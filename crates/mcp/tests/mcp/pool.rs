//! A pool of servers: how many there are at once, which one makes room, and that all of them end.

use std::time::Duration;

use gathering_mcp::{McpError, McpPool, McpPoolSettings, McpServer, McpServerConfig, ToolPins};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{fake, is_alive, is_well, services, wait_until};

struct Pool {
    pool: McpPool,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Pool {
    fn new(max_servers: usize, idle: Duration) -> Self {
        let pool = McpPool::new(services(), McpPoolSettings { max_servers, idle });
        let stop = CancellationToken::new();
        let task = tokio::spawn(pool.clone().run(stop.clone(), |_| ()));
        Self { pool, stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        assert_eq!(self.pool.n_taken(), 0, "every server has ended");
    }
}

const LONG: Duration = Duration::from_secs(600);

/// A scripted server that writes its process id into a file.
fn scripted(directory: &std::path::Path, name: &str) -> McpServerConfig {
    let file = directory.join(name);
    let script = format!("echo $$ > {}; exec {}", file.display(), env!("CARGO_BIN_EXE_mcp-fake-server"));
    let mut config = fake(&[]);
    config.transport =
        gathering_mcp::McpTransport::Stdio(gathering_mcp::StdioCommand::new("sh", ["-c".to_owned(), script]));
    config
}

fn process(directory: &std::path::Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap().trim().to_owned()
}

async fn pid_of(server: &McpServer, directory: &std::path::Path, name: &str) -> String {
    assert!(is_well(server).await);
    process(directory, name)
}

#[tokio::test]
async fn calls_share_a_server_until_its_settings_change() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Pool::new(4, LONG);
    let first = pool.pool.open("a", scripted(directory.path(), "one")).await.unwrap();
    let one = pid_of(&first, directory.path(), "one").await;
    let again = pool.pool.open("a", scripted(directory.path(), "one")).await.unwrap();
    assert_eq!(pid_of(&again, directory.path(), "one").await, one);
    assert_eq!(pool.pool.n_taken(), 1);
    let other = pool.pool.open("a", scripted(directory.path(), "two")).await.unwrap();
    let two = pid_of(&other, directory.path(), "two").await;
    assert!(is_alive(&two));
    wait_until("the one before has ended", async || !is_alive(&one)).await;
    wait_until("its place is free", async || pool.pool.n_taken() == 1).await;
    pool.end().await;
    assert!(!is_alive(&two));
}

#[tokio::test]
async fn other_pins_are_taken_without_another_start() {
    let pool = Pool::new(4, LONG);
    let mut config = fake(&[]);
    config.pins = ToolPins::default();
    let server = pool.pool.open("a", config.clone()).await.unwrap();
    let catalogue = server.ready().await.unwrap();
    assert!(!is_well(&server).await, "nothing is accepted");
    config.pins = catalogue.to_pins();
    let server = pool.pool.open("a", config).await.unwrap();
    assert!(is_well(&server).await);
    assert_eq!(pool.pool.n_taken(), 1);
    pool.end().await;
}

#[tokio::test]
async fn a_full_pool_ends_what_was_idle_longest_and_nothing_that_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Pool::new(2, LONG);
    for name in ["a", "b"] {
        let server = pool.pool.open(name, scripted(directory.path(), name)).await.unwrap();
        pid_of(&server, directory.path(), name).await;
    }
    let used = pool.pool.open("a", scripted(directory.path(), "a")).await.unwrap();
    let third = pool.pool.open("c", scripted(directory.path(), "c")).await.unwrap();
    assert!(!is_alive(&process(directory.path(), "b")) && is_well(&used).await && is_well(&third).await);
    let refused = pool.pool.open("d", fake(&[])).await.err().unwrap();
    assert!(matches!(refused, McpError::Busy { limit: 2 }) && !refused.may_have_taken_place(), "{refused}");
    assert!(refused.is_retryable());
    drop(third);
    let single = pool.pool.open_single(scripted(directory.path(), "e")).await.unwrap();
    let process = pid_of(&single, directory.path(), "e").await;
    drop(single);
    wait_until("a single server ends when it is dropped", async || !is_alive(&process)).await;
    pool.end().await;
}

#[tokio::test]
async fn what_nobody_uses_is_ended_after_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Pool::new(2, Duration::from_millis(200));
    let server = pool.pool.open("a", scripted(directory.path(), "a")).await.unwrap();
    let process = pid_of(&server, directory.path(), "a").await;
    let hanging = tokio::spawn({
        let server = server.clone();
        async move { server.call("hang", json!({})).await }
    });
    let other = pool.pool.open("b", fake(&[])).await.unwrap();
    assert!(is_well(&other).await);
    drop(other);
    wait_until("the other one is ended", async || pool.pool.n_taken() == 1).await;
    assert!(is_alive(&process), "it is in use");
    hanging.abort();
    let _ = hanging.await;
    drop(server);
    wait_until("it is ended", async || !is_alive(&process)).await;
    assert!(pool.pool.find("a", &ToolPins::AcceptAll).is_none());
    pool.end().await;
}

#[tokio::test]
async fn after_its_end_a_pool_starts_nothing() {
    let pool = Pool::new(2, LONG);
    let handle = pool.pool.clone();
    pool.end().await;
    assert!(matches!(handle.open("a", fake(&[])).await.err().unwrap(), McpError::Stopped));
}

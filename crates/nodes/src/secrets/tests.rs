//! What is sent has the value, and nothing that comes back has it.

use std::path::Path;
use std::sync::Mutex;

use gathering_agents::{ChatModel, ChatReply, ChatRequest, ModelError, Providers, Scripted};
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{JournalEvent, NodeTypes, SystemClock};
use gathering_tools::{Outbound, OutboundPolicy};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::testing::{NoPipelines, OneDirectory, drive, problems, tools};
use crate::{ActionNode, ActionSpec, AgentNode, AgentSpec, ToolNode, ToolNodeSpec};

const VALUE: &str = "s3cr3t/value+with signs";

/// One secret `TOKEN`, and one `LOST` that cannot be read.
#[derive(Default)]
struct OneSecret {
    used: Mutex<Vec<(RunId, BTreeSet<SecretName>)>>,
    asked: Mutex<Vec<bool>>,
}

#[async_trait]
impl ProjectSecrets for OneSecret {
    async fn open(&self, _project: ProjectId, are_used: bool) -> Result<Arc<KnownSecrets>, StoreError> {
        self.asked.lock().unwrap().push(are_used);
        let values = BTreeMap::from([
            ("TOKEN".parse().unwrap(), Ok(Secret::from(VALUE))),
            ("LOST".parse().unwrap(), Err("its key `k` is not here".to_owned())),
        ]);
        Ok(Arc::new(KnownSecrets::new(values)))
    }

    fn note_use(&self, _project: ProjectId, run: RunId, names: &BTreeSet<SecretName>) {
        self.used.lock().unwrap().push((run, names.clone()));
    }
}

/// Answers every request with the request itself, in the body and in a header; the requests come out of the channel.
async fn echo(status: u16) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (requests, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 65_536];
            let n_bytes = stream.read(&mut request).await.unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..n_bytes]).into_owned();
            let header = request.lines().find_map(|line| line.strip_prefix("authorization: "));
            let (n_bytes, header) = (request.len(), header.unwrap_or_default());
            let head =
                format!("HTTP/1.1 {status} x\r\nx-echo: {header}\r\ncontent-length: {n_bytes}\r\n\r\n");
            let _ = stream.write_all(format!("{head}{request}").as_bytes()).await;
            let _ = requests.send(request);
        }
    });
    (url, received)
}

/// Drives a run of one node with these secrets; returns the events of its journal.
async fn run(secrets: &Arc<OneSecret>, node_type: &str, config: Value) -> Vec<JournalEvent> {
    run_in(&std::env::temp_dir(), secrets, node_type, config).await
}

/// The same with the files of this directory. Results of tools have at most 4 KiB.
async fn run_in(
    directory: &Path,
    secrets: &Arc<OneSecret>,
    node_type: &str,
    config: Value,
) -> Vec<JournalEvent> {
    let outbound = Outbound::new(OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()])).unwrap();
    let tools = tools(&outbound).with_result_limit(4096);
    let files = Arc::new(OneDirectory::new(directory));
    let children = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let action = ActionNode::new(outbound, tools.clone(), files.clone(), Arc::new(NoPipelines), children);
    let tool = ToolNode::new(tools.clone(), files);
    let of = |secrets: &Arc<OneSecret>| Arc::clone(secrets) as Arc<dyn ProjectSecrets>;
    let types = NodeTypes::builtin()
        .with_parts("action", ActionSpec, WithSecrets::new(action, of(secrets)))
        .with_parts("tool", ToolNodeSpec::new(tools), WithSecrets::new(tool, of(secrets)));
    drive(types, &json!({"nodes": [{"id": "n", "type": node_type, "config": config}]})).await
}

fn recorded(events: &[JournalEvent]) -> String {
    events.iter().filter_map(JournalEvent::payload).map(|payload| payload.to_string()).collect()
}

#[tokio::test]
async fn a_value_is_sent_and_neither_an_answer_nor_a_failure_brings_it_back() {
    let headers = json!({"authorization": "Bearer ${{ secrets.TOKEN }}"});
    for status in [200, 400] {
        let (url, mut received) = echo(status).await;
        let nodes = [
            (
                "action",
                json!({"action": "call_api", "method": "POST", "url": url, "headers": headers, "body": {"k": "${{ secrets.TOKEN }}"}}),
            ),
            (
                "action",
                json!({"action": "send_notification", "channel": "webhook", "url": url, "headers": headers, "message": "${{ secrets.TOKEN }}"}),
            ),
            (
                "tool",
                json!({"tool": "http_request", "params": {"method": "POST", "url": url, "headers": headers, "body": "${{ secrets.TOKEN }}"}}),
            ),
        ];
        for (node_type, config) in nodes {
            let secrets = Arc::new(OneSecret::default());
            let events = run(&secrets, node_type, config.clone()).await;
            let request = received.recv().await.unwrap();
            assert!(request.contains(&format!("Bearer {VALUE}")), "{config}: {request}");
            assert_eq!(request.matches(VALUE).count(), 2, "{config}: {request}");
            let recorded = recorded(&events);
            assert!(!recorded.contains(VALUE), "{config}: {recorded}");
            assert!(recorded.contains(r#""secrets":["TOKEN"]"#), "{config}: {recorded}");
            assert_eq!(secrets.used.lock().unwrap().len(), 1, "{config}");
            assert_eq!(*secrets.asked.lock().unwrap(), [true], "the value is one of this moment");
        }
    }
}

#[tokio::test]
async fn an_answer_with_the_value_is_redacted_for_a_node_that_uses_no_secret() {
    let (url, _received) = echo(200).await;
    let secrets = Arc::new(OneSecret::default());
    // As if the value had come to the node by another way.
    let config = json!({"action": "call_api", "method": "POST", "url": url, "body": VALUE});
    let recorded = recorded(&run(&secrets, "action", config).await);
    assert!(recorded.contains("[secret TOKEN]") && !recorded.contains(VALUE), "{recorded}");
    assert_eq!(*secrets.asked.lock().unwrap(), [false]);
    assert!(secrets.used.lock().unwrap().is_empty());
}

/// Wherever the cut goes through: not even the beginning of a value is left.
#[tokio::test]
async fn a_result_that_is_cut_keeps_no_part_of_a_value() {
    let directory = tempfile::tempdir().unwrap();
    for shift in 0..VALUE.len() {
        let text = format!("{}{}", "-".repeat(shift), VALUE.repeat(1000));
        std::fs::write(directory.path().join("values.txt"), text).unwrap();
        let config = json!({"tool": "read_file", "params": {"path": "values.txt"}});
        let secrets = Arc::new(OneSecret::default());
        let recorded = recorded(&run_in(directory.path(), &secrets, "tool", config).await);
        assert!(recorded.contains("$cut") && recorded.contains("[secret TOKEN]"), "{recorded:.200}");
        assert!(!recorded.contains(&VALUE[..4]), "{shift}: {recorded}");
    }
}

#[tokio::test]
async fn a_secret_without_a_value_fails_the_node_before_anything_is_sent() {
    let (url, mut received) = echo(200).await;
    for (name, kind, said) in [
        ("NOPE", "secret_missing", "no secret `NOPE`"),
        ("LOST", "secret_unreadable", "its key `k` is not here"),
    ] {
        let headers = json!({"a": "${{ secrets.TOKEN }}", "b": format!("${{{{ secrets.{name} }}}}")});
        let config = json!({"action": "call_api", "method": "POST", "url": url, "headers": headers});
        let events = run(&Arc::new(OneSecret::default()), "action", config).await;
        let Some(JournalEvent::Failed(failure)) = events.last() else { panic!("{events:?}") };
        assert_eq!((failure.kind.as_str(), failure.retryable), (kind, false), "{failure:?}");
        assert!(failure.message.contains(said), "{failure:?}");
        assert!(received.try_recv().is_err(), "something was sent");
    }
}

#[test]
fn secrets_stand_in_what_is_sent_and_never_in_a_url_or_a_prompt() {
    let secret = "x ${{ secrets.TOKEN }}";
    let url = "https://example.org/";
    for (node_type, config) in [
        ("action", json!({"action": "call_api", "url": url, "headers": {"a": secret}, "body": [secret]})),
        ("tool", json!({"tool": "http_request", "params": {"url": url, "body": secret}})),
        (
            "action",
            json!({"action": "send_notification", "channel": "email", "to": "a@b.org", "subject": "s", "message": secret}),
        ),
    ] {
        assert!(problems(node_type, &config).is_empty(), "{:?}", problems(node_type, &config));
    }
    let agent = json!({"provider": "scripted", "instructions": secret});
    for (node_type, config, at) in [
        ("action", json!({"action": "call_api", "url": format!("{url}${{{{ secrets.TOKEN }}}}")}), "/url"),
        ("tool", json!({"tool": "http_request", "params": {"url": secret}}), "/params/url"),
        ("agent", json!({"agent": agent, "prompt": "x"}), "/agent/instructions"),
        ("agent", json!({"agent": {"provider": "scripted"}, "prompt": secret}), "/prompt"),
    ] {
        let found = problems(node_type, &config);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("{at}: no secret may stand here: ")), "{found:?}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let values = BTreeMap::from([("TOKEN".parse().unwrap(), Ok(Secret::from(VALUE)))]);
    assert_eq!(
        format!("{:?}", KnownSecrets::new(values)),
        "{TOKEN}".replace("TOKEN", "SecretName(\"TOKEN\")")
    );
}

/// A scripted model that keeps what it was asked.
#[derive(Default)]
struct Hearing {
    heard: Mutex<Vec<String>>,
}

#[async_trait]
impl ChatModel for Hearing {
    fn provider(&self) -> &str {
        "scripted"
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        self.heard.lock().unwrap().push(serde_json::to_string(request).unwrap());
        Scripted::from_prompt().complete(request).await
    }
}

#[tokio::test]
async fn a_model_hears_no_value_by_its_prompt_or_by_a_tool() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("values.txt"), VALUE.repeat(1000)).unwrap();
    let model = Arc::new(Hearing::default());
    let mut providers = Providers::new();
    providers.register(Arc::clone(&model) as Arc<dyn ChatModel>);
    let tools = tools(&Outbound::new(OutboundPolicy::public_only()).unwrap()).with_result_limit(4096);
    let files = Arc::new(OneDirectory::new(directory.path()));
    let agent = AgentNode::new(providers.clone(), tools.clone(), files);
    let secrets = Arc::new(OneSecret::default()) as Arc<dyn ProjectSecrets>;
    let agent = WithSecrets::new(agent, secrets);
    let types = NodeTypes::builtin().with_parts("agent", AgentSpec::new(providers, tools), agent);
    let instructions = "scripted: call read_file {\"path\": \"values.txt\"}";
    let agent = json!({"provider": "scripted", "instructions": instructions, "tools": ["read_file"]});
    let config = json!({"agent": agent, "prompt": format!("The key is {VALUE}. Use it.")});
    let events = drive(types, &json!({"nodes": [{"id": "n", "type": "agent", "config": config}]})).await;
    assert!(matches!(events.last(), Some(JournalEvent::Succeeded { .. })), "{events:?}");
    let heard = model.heard.lock().unwrap().join("\n");
    assert!(heard.contains("The key is [secret TOKEN]. Use it.") && heard.contains("$cut"), "{heard:.300}");
    assert!(!heard.contains(&VALUE[..4]) && !recorded(&events).contains(&VALUE[..4]), "{heard:.300}");
}

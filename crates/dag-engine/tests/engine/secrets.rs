//! Secrets in definitions: where a reference may stand, what an attempt sees of it, and what the journal records.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    Attempt, EffectClass, Engine, EngineSettings, Fields, Graph, JournalEvent, NewRun, NodeExecutor,
    NodeFailure, NodeSpec, NodeSpecs, NodeTypes, Outcome, Redaction, RunStore, SecretFields, Shape, Signals,
    SystemClock,
};
use gathering_domain::{Digest, FailureKind, InstanceId, ProjectId, RunId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const VALUE: &str = "hunter2-hunter2";

/// Sends its headers and body, and answers with what was sent.
#[derive(Clone, Default)]
struct Send {
    sent: Arc<Mutex<Vec<Value>>>,
}

#[derive(Debug)]
struct HideTheValue;

impl Redaction for HideTheValue {
    fn redact_text(&self, text: &mut String) {
        *text = text.replace(VALUE, "[hidden]");
    }

    fn redact(&self, value: &mut Value) {
        *value = serde_json::from_str(&value.to_string().replace(VALUE, "[hidden]")).unwrap();
    }
}

impl NodeSpec for Send {
    fn check(&self, config: &mut Fields<'_>) {
        config.optional("url", Shape::Text);
        config.optional("headers", Shape::FlatObject);
        config.optional("body", Shape::Any);
        config.optional("fails", Shape::Bool);
    }

    fn secret_fields(&self, _config: &Value) -> SecretFields {
        SecretFields { within: &["/headers", "/body"], except: &["/body/url"] }
    }
}

#[async_trait]
impl NodeExecutor for Send {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let mut revealed = Value::clone(&attempt.config);
        attempt.secrets.reveal_in(&mut revealed, |_| Some(VALUE)).unwrap();
        self.sent.lock().unwrap().push(revealed.clone());
        let effects = attempt.effects.with_redaction(Arc::new(HideTheValue));
        let failed = NodeFailure {
            details: Some(Box::new(json!({ "sent": revealed }))),
            ..NodeFailure::permanent(FailureKind::Failed, format!("refused {VALUE}"))
        };
        let fails = attempt.config["fails"] == true;
        let act = || async move { if fails { Err(failed.into()) } else { Ok(revealed) } };
        effects.once("send", EffectClass::Idempotent, &attempt.config, act).await.map(Outcome::Done)
    }
}

/// Drives one run; returns what was sent and the events of the journal.
async fn drive(definition: &Value, input: Value) -> (Vec<Value>, Vec<JournalEvent>) {
    let (memory, send) = (MemoryStore::new(Arc::new(SystemClock)), Send::default());
    let types = NodeTypes::builtin().with("send", send.clone());
    let (engine, service) =
        Engine::new(Arc::new(memory.clone()), types, Arc::new(SystemClock), EngineSettings::default());
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(stop.clone()));
    let (id, graph, project) = (RunId::new(), Digest::of_json(definition), ProjectId::new());
    memory.ensure_graph(graph, definition).await.unwrap();
    let new = NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None };
    memory.enqueue(new).await.unwrap();
    let claimed = memory.claim_run(InstanceId::new(), id).await.unwrap().unwrap();
    engine.drive(claimed, Signals::default()).await;
    stop.cancel();
    service.await.unwrap();
    let sent = send.sent.lock().unwrap().clone();
    (sent, memory.journal(id).into_iter().map(|entry| entry.record.event).collect())
}

fn problems(definition: &Value) -> Vec<String> {
    let specs = NodeSpecs::builtin().with("send", Send::default());
    match Graph::validate(definition, &specs) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn sending(config: Value) -> Value {
    json!({"nodes": [{"id": "a", "type": "send", "config": config}]})
}

#[tokio::test]
async fn the_value_is_for_what_is_sent_and_the_journal_has_the_reference() {
    let config = json!({"headers": {"authorization": "Bearer ${{ secrets.TOKEN }}"}, "body": ["${{ secrets.TOKEN }}"]});
    for fails in [false, true] {
        let mut config = config.clone();
        config["fails"] = json!(fails);
        let (sent, events) = drive(&sending(config), json!({})).await;
        assert_eq!(sent[0]["headers"]["authorization"], format!("Bearer {VALUE}"));
        assert_eq!(sent[0]["body"], json!([VALUE]));
        let stored: String = events.iter().filter_map(JournalEvent::payload).map(|v| v.to_string()).collect();
        assert!(!stored.contains(VALUE) && stored.contains("[hidden]"), "{stored}");
        assert!(stored.contains(r#""secrets":["TOKEN"]"#), "who used which secret is recorded: {stored}");
    }
}

#[tokio::test]
async fn what_only_looks_like_a_reference_is_never_replaced() {
    let config = json!({
        "headers": {"x": "${{ input.text }} ${{ secrets.TOKEN }}", "y": "$${{ secrets.TOKEN }}"},
        "body": {"whole": "${{ input }}", "part": "<${{ input.text }}>"}
    });
    let text = "${{ secrets.TOKEN }} [secret TOKEN] \u{0}secrets.TOKEN";
    let (sent, _) = drive(&sending(config), json!({ "text": text })).await;
    assert_eq!(sent[0]["headers"]["x"], format!("{text} {VALUE}"));
    assert_eq!(sent[0]["headers"]["y"], "${{ secrets.TOKEN }}");
    assert_eq!(sent[0]["body"], json!({"whole": {"text": text}, "part": format!("<{text}>")}));
}

#[test]
fn a_secret_stands_only_where_its_node_sends_it() {
    assert!(
        problems(&sending(json!({"body": "${{ secrets.A }}", "headers": {"a": "x${{secrets.b}}"}})))
            .is_empty()
    );
    let found = problems(&json!({
        "nodes": [
            {"id": "a", "type": "send", "config": {"url": "https://x/${{ secrets.A }}", "body": {"url": "${{ secrets.A }}"}}},
            {"id": "b", "type": "delay", "config": {"seconds": "${{ secrets.A }}"}},
            {"id": "c", "type": "condition", "config": {"expression": "secrets.A == 'x'"}},
            {"id": "d", "type": "send", "config": {"body": ["${{ secrets.A + 'x' }}", "${{ secrets }}", "${{ secrets.2A }}"]}},
            {"id": "e", "type": "map", "config": {
                "items": "[secrets.A]",
                "graph": {"nodes": [{"id": "f", "type": "send", "config": {"url": "${{ secrets.A }}"}}]}
            }}
        ],
        "edges": [{"from": "a", "to": "b", "when": "secrets.A != ''"}],
        "output": "secrets.A",
    }));
    let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
    let expected = [
        "/nodes/0/config/url",
        "/nodes/0/config/body/url",
        "/nodes/1/config/seconds",
        "/nodes/2/config/expression",
        "/nodes/3/config/body/0",
        "/nodes/3/config/body/1",
        "/nodes/3/config/body/2",
        "/nodes/4/config/graph/nodes/0/config/url",
        "/nodes/4/config/items",
        "/edges/0/when",
        "/output",
    ];
    assert_eq!(places, expected, "{found:#?}");
    assert!(found[0].ends_with("takes secrets in `/headers`, `/body`, without `/body/url`"), "{}", found[0]);
    assert!(found[2].contains("type `delay` takes none"), "{}", found[2]);
    assert!(found[3].contains("write `${{ secrets.NAME }}`"), "{}", found[3]);
}

//! Reading a definition out of a JSON document, with everything wrong with its shape named.

use gathering_domain::{
    CircuitBreaker, DEFAULT_MAX_CONCURRENCY, Definition, Edge, EdgeOn, Join, Node, NodeConcurrency, NodeId,
    NodeOnLimit, OnLimit, Pointer, Problems, RetryPolicy,
};
use serde_json::Value;

use crate::fields::{Fields, Shape};
use crate::graph::run_limits::MAX_PERMITS;

pub(crate) mod definition_file;
pub(crate) mod json;
pub(crate) mod limits;
pub(crate) mod source_map;

/// The most characters that what people call a node may have.
const MAX_NAME: usize = 200;

/// The readable parts of a document, with the position of each node and edge.
pub(crate) struct Document {
    pub(crate) definition: Definition,
    pub(crate) node_places: Vec<Pointer>,
    pub(crate) edge_places: Vec<Pointer>,
}

/// Reads what can be read, so that one look at it finds as many problems as possible; it is only to be executed if no
/// problem was added. The limits were checked before.
pub(crate) fn read(document: &Value, problems: &mut Problems) -> Document {
    let mut definition = read_whole(document, problems);
    let (mut node_places, mut edge_places) = (Vec::new(), Vec::new());
    let at = Pointer::root().join("nodes");
    let nodes = list(document, "nodes");
    if document.get("nodes").is_some_and(Value::is_array) && nodes.is_empty() {
        problems.add(at.clone(), "must hold at least one node");
    }
    for (index, value) in nodes.iter().enumerate() {
        let at = at.join(index);
        if let Some(node) = node(value, index, at.clone(), problems) {
            definition.nodes.push(node);
            node_places.push(at);
        }
    }
    let at = Pointer::root().join("edges");
    for (index, value) in list(document, "edges").iter().enumerate() {
        let at = at.join(index);
        if let Some(edge) = edge(value, at.clone(), problems) {
            definition.edges.push(edge);
            edge_places.push(at);
        }
    }
    Document { definition, node_places, edge_places }
}

fn list<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn read_whole(document: &Value, problems: &mut Problems) -> Definition {
    let mut definition = Definition {
        nodes: Vec::new(),
        edges: Vec::new(),
        timeout: None,
        max_concurrency: DEFAULT_MAX_CONCURRENCY,
        fail_fast: true,
        output: None,
    };
    let Some(mut fields) = Fields::of(document, Pointer::root(), problems) else { return definition };
    fields.required("nodes", Shape::Array);
    fields.optional("edges", Shape::Array);
    definition.timeout = fields.optional_seconds("timeout_seconds");
    if let Some(limit) = fields.optional("max_concurrency", Shape::Whole(1, 10_000)).and_then(Value::as_u64) {
        definition.max_concurrency = usize::try_from(limit).unwrap_or(DEFAULT_MAX_CONCURRENCY);
    }
    definition.fail_fast = fields.optional("fail_fast", Shape::Bool).and_then(Value::as_bool).unwrap_or(true);
    fields.optional("input", Shape::Object);
    fields.optional("tool", Shape::Object);
    fields.optional("concurrency", Shape::Object);
    fields.optional("rate_limit", Shape::Object);
    definition.output = fields.optional("output", Shape::Text).and_then(Value::as_str).map(str::to_owned);
    // What names and describes a file that holds one pipeline; the engine has no use for it.
    fields.optional("name", Shape::Text);
    fields.optional("description", Shape::Any);
    fields.finish();
    definition
}

fn node(value: &Value, index: usize, at: Pointer, problems: &mut Problems) -> Option<Node> {
    let mut fields = Fields::of(value, at, problems)?;
    // What is wrong with the id was reported; under another one the rest of the node can still be looked at.
    let id = node_id(&mut fields, "id").or_else(|| format!("unnamed-{index}").parse().ok());
    let node_type = fields.required("type", Shape::Text).and_then(Value::as_str).map(str::to_owned);
    let name = fields.optional("name", Shape::Text).and_then(Value::as_str).map(str::to_owned);
    if name.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME) {
        fields.problem("name", format!("must have at most {MAX_NAME} characters"));
    }
    let config = fields.optional("config", Shape::Object).cloned();
    let join = match fields.optional("join", Shape::OneOf(&["any", "all"])).and_then(Value::as_str) {
        Some("all") => Join::All,
        _ => Join::Any,
    };
    let timeout = fields.optional_seconds("timeout_seconds");
    let idempotent = fields.optional("idempotent", Shape::Bool).and_then(Value::as_bool).unwrap_or(true);
    let retry = fields.optional("retry", Shape::Object);
    let breaker = fields.optional("circuit_breaker", Shape::Object);
    let limit = fields.optional("concurrency", Shape::Object);
    let (retry_at, breaker_at) = (fields.place("retry"), fields.place("circuit_breaker"));
    let limit_at = fields.place("concurrency");
    let retry = retry.map(|value| retry_policy(value, retry_at, fields.problems())).unwrap_or_default();
    let circuit_breaker = breaker.and_then(|value| circuit_breaker(value, breaker_at, fields.problems()));
    let concurrency = limit.and_then(|value| node_concurrency(value, limit_at, fields.problems()));
    fields.finish();
    Some(Node {
        id: id?,
        // A type that is missing was reported; without one the rest of the graph can still be looked at.
        node_type: node_type.unwrap_or_default(),
        name,
        config: config.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        join,
        timeout,
        retry,
        circuit_breaker,
        concurrency,
        idempotent,
    })
}

fn retry_policy(value: &Value, at: Pointer, problems: &mut Problems) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    let Some(mut fields) = Fields::of(value, at, problems) else { return policy };
    if let Some(attempts) = fields.optional("max_attempts", Shape::Whole(1, 1000)).and_then(Value::as_u64) {
        policy.max_attempts = u32::try_from(attempts).unwrap_or(policy.max_attempts);
    }
    policy.initial_backoff =
        fields.optional_milliseconds("initial_backoff_ms").unwrap_or(policy.initial_backoff);
    policy.max_backoff = fields.optional_milliseconds("max_backoff_ms").unwrap_or(policy.max_backoff);
    let number = |value: Option<&Value>, default| value.and_then(Value::as_f64).unwrap_or(default);
    policy.multiplier = number(fields.optional("multiplier", Shape::Number(1.0, 100.0)), policy.multiplier);
    policy.jitter = number(fields.optional("jitter", Shape::Number(0.0, 1.0)), policy.jitter);
    fields.finish();
    policy
}

fn circuit_breaker(value: &Value, at: Pointer, problems: &mut Problems) -> Option<CircuitBreaker> {
    let mut fields = Fields::of(value, at, problems)?;
    let threshold = fields.required("failure_threshold", Shape::Whole(1, 10_000)).and_then(Value::as_u64);
    let reset = fields.required("reset_seconds", Shape::Number(0.001, 86_400.0)).and_then(Value::as_f64);
    fields.finish();
    Some(CircuitBreaker {
        failure_threshold: u32::try_from(threshold?).ok()?,
        reset: std::time::Duration::from_secs_f64(reset?),
    })
}

fn node_concurrency(value: &Value, at: Pointer, problems: &mut Problems) -> Option<NodeConcurrency> {
    let mut fields = Fields::of(value, at, problems)?;
    let limit = fields.required("limit", Shape::Whole(1, MAX_PERMITS)).and_then(Value::as_u64);
    let key = fields.optional("key", Shape::Text).and_then(Value::as_str).map(str::to_owned);
    let on_limit = node_on_limit(&mut fields);
    fields.finish();
    Some(NodeConcurrency { limit: u32::try_from(limit?).ok()?, key, on_limit })
}

/// A node has two of the three words that a pipeline has; the third one needs more than a list of those that fit.
fn node_on_limit(fields: &mut Fields<'_>) -> NodeOnLimit {
    let word = fields.optional("on_limit", Shape::Text).and_then(Value::as_str);
    match word.map(str::parse) {
        None => NodeOnLimit::default(),
        Some(Ok(on_limit)) => on_limit,
        Some(Err(_)) => {
            let mut message = format!("must be one of {}", NodeOnLimit::WORDS.join(", "));
            if word == Some(OnLimit::CancelOldest.as_str()) {
                message
                    .push_str(": a node ends no attempt of another run; `concurrency` of the pipeline can");
            }
            fields.problem("on_limit", message);
            NodeOnLimit::default()
        }
    }
}

fn edge(value: &Value, at: Pointer, problems: &mut Problems) -> Option<Edge> {
    let mut fields = Fields::of(value, at, problems)?;
    let from = node_id(&mut fields, "from");
    let to = node_id(&mut fields, "to");
    let on = match fields
        .optional("on", Shape::OneOf(&["success", "failure", "always"]))
        .and_then(Value::as_str)
    {
        Some("failure") => EdgeOn::Failure,
        Some("always") => EdgeOn::Always,
        _ => EdgeOn::Success,
    };
    let when = fields.optional("when", Shape::Text).and_then(Value::as_str).map(str::to_owned);
    fields.finish();
    Some(Edge { from: from?, to: to?, on, when })
}

fn node_id(fields: &mut Fields<'_>, name: &'static str) -> Option<NodeId> {
    let text = fields.required(name, Shape::Text)?.as_str()?;
    match text.parse() {
        Ok(id) => Some(id),
        Err(problem) => {
            fields.problem(name, problem.to_string());
            None
        }
    }
}

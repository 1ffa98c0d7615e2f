//! What a node costs on graphs of 10, 1,000 and 100,000 nodes: the time per node must stay about the same.
//!
//! `cargo bench -p gathering-dag-engine`. The throughput that is printed is in nodes a second, so that the three sizes of a
//! row compare at a glance.
//!
//! - `validate`: a definition from its document to a graph: a chain, a fan to a barrier, and a chain in which each node has
//!   an expression that reads the one before it and each edge a condition;
//! - `drive`: a run from its claim to its end on the store in memory, with nodes that do nothing: every scheduling decision,
//!   checkpoint and journal record;
//! - `replay`: the states of all nodes out of a journal;
//! - `evaluate`: one expression per node, compiled before.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gathering_dag_engine::testing::MemoryStore;
use gathering_dag_engine::{
    Engine, EngineSettings, Expression, Graph, NewRun, NodeRun, NodeSpecs, NodeTypes, RunStore, Scope,
    Signals, SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const SIZES: [usize; 3] = [10, 1_000, 100_000];

type Shape = (&'static str, fn(usize) -> Value);

fn node(n: usize) -> Value {
    json!({"id": format!("n{n}"), "type": "parallel"})
}

fn edge(from: usize, to: usize) -> Value {
    json!({"from": format!("n{from}"), "to": format!("n{to}")})
}

/// Each node behind the one before it.
fn chain(n: usize) -> Value {
    json!({
        "nodes": (0..n).map(|at| json!({"id": format!("n{at}"), "type": "trigger"})).collect::<Vec<_>>(),
        "edges": (1..n).map(|at| edge(at - 1, at)).collect::<Vec<_>>(),
        "output": "'done'",
    })
}

/// One node, then all but two at once, then one.
fn fan(n: usize) -> Value {
    let last = n - 1;
    json!({
        "nodes": (0..n)
            .map(|at| json!({"id": format!("n{at}"), "type": if at == last { "parallel" } else { "trigger" }}))
            .collect::<Vec<_>>(),
        "edges": (1..last).flat_map(|at| [edge(0, at), edge(at, last)]).collect::<Vec<_>>(),
        "output": "'done'",
    })
}

/// A chain of layers of ten, each node behind each of the layer before.
fn layers(n: usize) -> Value {
    let edges = (10..n).flat_map(|at| (0..10).map(move |other| (at / 10 * 10 - 10 + other, at)));
    json!({
        "nodes": (0..n).map(|at| json!({"id": format!("n{at}"), "type": "trigger"})).collect::<Vec<_>>(),
        "edges": edges.filter(|(from, to)| (from + to) % 3 == 0).map(|(from, to)| edge(from, to)).collect::<Vec<_>>(),
        "output": "'done'",
    })
}

/// A chain that computes something at every node and every edge.
fn expressions(n: usize) -> Value {
    let condition = |at: usize| match at {
        0 => node(0),
        at => {
            let expression = format!("nodes.n{}.state != ''", at - 1);
            json!({"id": format!("n{at}"), "type": "condition", "config": {"expression": expression}})
        }
    };
    json!({
        "nodes": (0..n).map(condition).collect::<Vec<_>>(),
        "edges": (1..n).map(|at| edge(at - 1, at)).collect::<Vec<_>>(),
        "output": "'done'",
    })
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group
}

fn validate(criterion: &mut Criterion) {
    let mut group = group(criterion, "validate");
    let specs = NodeSpecs::builtin();
    let shapes: [Shape; 4] =
        [("chain", chain), ("fan", fan), ("layers", layers), ("expressions", expressions)];
    for (name, shape) in shapes {
        for size in SIZES {
            let document = shape(size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_with_input(BenchmarkId::new(name, size), &document, |bencher, document| {
                bencher.iter(|| Graph::validate(black_box(document), &specs).unwrap());
            });
        }
    }
}

struct World {
    store: MemoryStore,
    engine: Engine,
    owner: InstanceId,
}

impl World {
    fn new(runtime: &tokio::runtime::Runtime) -> Self {
        let clock = Arc::new(SystemClock);
        let store = MemoryStore::new(clock.clone());
        let types = NodeTypes::builtin();
        let (engine, service) = Engine::new(Arc::new(store.clone()), types, clock, EngineSettings::default());
        runtime.spawn(service.run(CancellationToken::new()));
        Self { store, engine, owner: InstanceId::new() }
    }

    async fn accept(&self, definition: &Value) -> RunId {
        let graph = Digest::of_json(definition);
        self.store.ensure_graph(graph, definition).await.unwrap();
        let (id, project) = (RunId::new(), ProjectId::new());
        let input = json!({"n": 7});
        self.store
            .enqueue(NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None })
            .await
            .unwrap();
        id
    }

    async fn drive(&self, run: RunId) {
        let claimed = self.store.claim_run(self.owner, run).await.unwrap().unwrap();
        self.engine.drive(claimed, Signals::default()).await;
        assert!(self.store.run(run).unwrap().end.unwrap().result.error().is_none());
    }
}

fn drive(criterion: &mut Criterion) {
    let mut group = group(criterion, "drive");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let shapes: [Shape; 4] =
        [("chain", chain), ("fan", fan), ("layers", layers), ("expressions", expressions)];
    for (name, shape) in shapes {
        for size in SIZES {
            let definition = shape(size);
            let world = World::new(&runtime);
            // The first one validates the graph, which the engine then keeps.
            let first = runtime.block_on(world.accept(&definition));
            runtime.block_on(world.drive(first));
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_custom(|times| {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        let run = runtime.block_on(world.accept(&definition));
                        let began = std::time::Instant::now();
                        runtime.block_on(world.drive(run));
                        took += began.elapsed();
                        world.store.forget(run);
                    }
                    took
                });
            });
        }
    }
}

fn replay(criterion: &mut Criterion) {
    let mut group = group(criterion, "replay");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for size in SIZES {
        let world = World::new(&runtime);
        let run = runtime.block_on(world.accept(&chain(size)));
        runtime.block_on(world.drive(run));
        let journal = world.store.journal(run);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::new("chain", size), &journal, |bencher, journal| {
            bencher.iter(|| NodeRun::fold(black_box(journal)).unwrap());
        });
    }
}

/// What expressions read of a run whose nodes all succeeded.
struct Succeeded {
    input: Value,
    nodes: HashMap<String, Value>,
}

impl Scope for Succeeded {
    fn input(&self) -> &Value {
        &self.input
    }
    fn node(&self, id: &str) -> Option<Value> {
        self.nodes.get(id).cloned()
    }
    fn node_ids(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }
    fn run(&self) -> Value {
        json!({"id": "r"})
    }
}

fn evaluate(criterion: &mut Criterion) {
    let mut group = group(criterion, "evaluate");
    for size in SIZES {
        let output = json!({"state": "succeeded", "output": {"n": 41, "text": "hi"}});
        let scope = Succeeded {
            input: json!({"n": 1}),
            nodes: (0..size).map(|at| (format!("n{at}"), output.clone())).collect(),
        };
        let expressions: Vec<Expression> = (0..size)
            .map(|at| Expression::compile(&format!("nodes.n{at}.output.n + input.n == 42")).unwrap())
            .collect();
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("one of each node", size), |bencher| {
            bencher.iter(|| {
                for expression in &expressions {
                    assert_eq!(expression.evaluate(black_box(&scope)), Ok(Value::Bool(true)));
                }
            });
        });
    }
}

criterion_group!(benches, validate, drive, replay, evaluate);
criterion_main!(benches);

//! One instance on a store in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::testing::{MemoryStore, StoredRun, VirtualClock};
use gathering_dag_engine::{
    Attempt, Continuation, DriveEnd, EarlierRun, Engine, EngineSettings, Graph, JournalEntry, NewRun,
    NodeExecutor, NodeFailure, NodeSpec, NodeSpecs, NodeTypes, Outcome, Record, RerunFrom, RerunPlan,
    RerunRefused, RunStore, Runner, RunnerSettings, Signals, plan_rerun,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A node type made of a function.
pub struct Do<F>(pub F);

impl<F: Send + Sync + 'static> NodeSpec for Do<F> {}

#[async_trait]
impl<F, Fut> NodeExecutor for Do<F>
where
    F: Fn(Attempt) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, NodeFailure>> + Send,
{
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        (self.0)(attempt).await.map(Outcome::Done)
    }
}

/// How a run is rerun.
pub struct Correction {
    pub definition: Value,
    pub input: Value,
    pub from: RerunFrom,
}

pub struct Bench {
    pub store: MemoryStore,
    pub engine: Engine,
    stop: CancellationToken,
}

impl Bench {
    pub fn new(with: impl FnOnce(NodeTypes, &MemoryStore) -> NodeTypes) -> Self {
        let clock = Arc::new(VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()));
        let store = MemoryStore::new(clock.clone());
        let types = with(NodeTypes::builtin(), &store);
        let (engine, service) = Engine::new(Arc::new(store.clone()), types, clock, EngineSettings::default());
        let engine = engine.with_node_permits(Arc::new(store.clone()));
        let stop = CancellationToken::new();
        tokio::spawn(service.run(stop.clone()));
        Self { store, engine, stop }
    }

    pub async fn accept(&self, definition: Value) -> RunId {
        self.accept_with(definition, json!({})).await
    }

    pub async fn accept_with(&self, definition: Value, input: Value) -> RunId {
        let graph = Digest::of_json(&definition);
        RunStore::ensure_graph(&self.store, graph, &definition).await.unwrap();
        let (id, project) = (RunId::new(), ProjectId::new());
        let new = NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None };
        self.store.enqueue(new).await.unwrap();
        id
    }

    pub async fn drive(&self, run: RunId, signals: Signals) -> DriveEnd {
        let claimed = self.store.claim_run(InstanceId::new(), run).await.unwrap().unwrap();
        self.engine.drive(claimed, signals).await
    }

    pub async fn run(&self, definition: Value) -> StoredRun {
        let run = self.accept(definition).await;
        self.drive(run, Signals::default()).await;
        self.store.run(run).unwrap()
    }

    pub async fn definition_of(&self, run: RunId) -> Value {
        self.store.load_graph(self.store.run(run).unwrap().new.graph).await.unwrap()
    }

    /// What a rerun would keep.
    pub async fn plan(
        &self,
        specs: &NodeSpecs,
        old: RunId,
        correction: &Correction,
    ) -> Result<RerunPlan, RerunRefused> {
        let run = self.store.run(old).unwrap();
        let validate = |definition: &Value| Arc::new(Graph::validate(definition, specs).unwrap());
        let (graph, new) = (validate(&self.definition_of(old).await), validate(&correction.definition));
        let (journal, project) = (self.store.journal(old), run.new.project);
        let (id, input) = (old, &run.new.input);
        let decisions = self.store.find_outcomes(old).await.unwrap();
        let earlier =
            EarlierRun { id, project, graph: &graph, input, journal: &journal, decisions: &decisions };
        let new = Continuation { graph: &new, input: &correction.input, from: &correction.from };
        plan_rerun(earlier, run.state, new)
    }

    /// Accepts a rerun that begins with these records.
    pub async fn accept_rerun(&self, old: RunId, correction: &Correction, records: Vec<Record>) -> RunId {
        let Correction { definition, input, .. } = correction;
        let graph = Digest::of_json(definition);
        RunStore::ensure_graph(&self.store, graph, definition).await.unwrap();
        let (id, input) = (RunId::new(), input.clone());
        self.store.accept_rerun(NewRun { id, graph, input, ..self.store.run(old).unwrap().new }, records);
        id
    }

    /// What the journal of a run says, by kind.
    pub fn kinds(&self, run: RunId) -> Vec<&'static str> {
        let kind = |entry: &JournalEntry| entry.record.event.kind();
        self.store.journal(run).iter().map(kind).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn output(run: &StoredRun) -> Value {
    run.end.as_ref().and_then(|end| end.result.output().cloned()).unwrap_or_default()
}

pub fn message(run: &StoredRun) -> String {
    run.end.as_ref().and_then(|end| end.result.error()).map(|error| error.message.clone()).unwrap_or_default()
}

/// Drives everything in the queue until the run has ended.
pub async fn finish(bench: &Bench, run: RunId) -> StoredRun {
    let (stop, fence) = (CancellationToken::new(), CancellationToken::new());
    let runner = Runner::new(bench.engine.clone(), InstanceId::new(), RunnerSettings::default());
    let running = tokio::spawn(runner.run(stop.clone(), fence));
    while !bench.store.run(run).unwrap().state.is_terminal() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    running.await.unwrap();
    bench.store.run(run).unwrap()
}

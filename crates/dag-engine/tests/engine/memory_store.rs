//! The store in memory keeps the promises of the ports.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::testing::{
    MemoryStore, PortsFixture, StoreFixture, VirtualClock, breaker_cases, child_run_cases, decision_cases,
    permit_cases, store_cases,
};
use gathering_dag_engine::{
    BreakerStore, ChildRuns, Clock, DecidedOutcome, Decision, Decisions, NodeDecision, NodePermits, RunStore,
};
use gathering_domain::{InstanceId, NodeId, PipelineId, ProjectId, RunId};
use serde_json::Value;

struct Fixture {
    store: MemoryStore,
    clock: VirtualClock,
    project: ProjectId,
}

impl Fixture {
    fn new() -> Self {
        let clock = VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        Self { store: MemoryStore::new(Arc::new(clock)), clock, project: ProjectId::new() }
    }
}

#[async_trait]
impl StoreFixture for Fixture {
    fn store(&self) -> Arc<dyn RunStore> {
        Arc::new(self.store.clone())
    }
    async fn project(&self) -> ProjectId {
        self.project
    }
    async fn instance(&self) -> InstanceId {
        InstanceId::new()
    }
    async fn kill(&self, instance: InstanceId) {
        self.store.kill(instance);
    }
}

#[async_trait]
impl PortsFixture for Fixture {
    fn children(&self) -> Arc<dyn ChildRuns> {
        Arc::new(self.store.clone())
    }
    fn decisions(&self) -> Arc<dyn Decisions> {
        Arc::new(self.store.clone())
    }
    fn breakers(&self) -> Arc<dyn BreakerStore> {
        Arc::new(self.store.clone())
    }
    fn permits(&self) -> Arc<dyn NodePermits> {
        Arc::new(self.store.clone())
    }
    async fn pipeline(&self) -> PipelineId {
        PipelineId::new()
    }
    async fn decide(&self, run: RunId, node: &NodeId, approve: bool) -> bool {
        let (decided_by, decided_at) = ("ada@example.org".to_owned(), self.clock.now());
        self.store.decide(run, node, Decision { approve, comment: None, decided_by, decided_at })
    }
    async fn decide_outcome(
        &self,
        run: RunId,
        node: &NodeId,
        outcome: DecidedOutcome,
        output: Option<Value>,
    ) -> bool {
        let (decided_by, decided_at) = ("ada@example.org".to_owned(), self.clock.now());
        let reason = "they said so".to_owned();
        self.store.decide_outcome(run, node, NodeDecision { outcome, output, reason, decided_by, decided_at })
    }
}

async fn ports() -> Box<dyn PortsFixture> {
    Box::new(Fixture::new())
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_passes_every_case() {
    store_cases(|| async { Box::new(Fixture::new()) as Box<dyn StoreFixture> }).await;
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_what_was_promised_of_child_runs() {
    child_run_cases(ports).await;
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_what_was_promised_of_decisions() {
    decision_cases(ports).await;
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_what_was_promised_of_breakers() {
    breaker_cases(ports).await;
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_what_was_promised_of_permits() {
    permit_cases(ports).await;
}

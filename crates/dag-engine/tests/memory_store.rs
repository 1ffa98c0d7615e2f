//! The store in memory keeps the promises of the port.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::RunStore;
use gathering_dag_engine::testing::{MemoryStore, StoreFixture, VirtualClock, store_cases};
use gathering_domain::{InstanceId, ProjectId};

struct Fixture {
    store: MemoryStore,
    project: ProjectId,
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

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_passes_every_case() {
    store_cases(|| async {
        let clock = VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let store = MemoryStore::new(Arc::new(clock));
        Box::new(Fixture { store, project: ProjectId::new() }) as Box<dyn StoreFixture>
    })
    .await;
}

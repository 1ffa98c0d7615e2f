//! Circuit breakers in memory. A breaker without an entry is healthy.

use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::{CircuitBreaker, RunId};

use super::MemoryStore;
use crate::breaker::{Breaker, BreakerKey, BreakerStore};
use crate::store::StoreError;

#[async_trait]
impl BreakerStore for MemoryStore {
    async fn list_unhealthy(&self) -> Result<Vec<(BreakerKey, Breaker)>, StoreError> {
        self.call(|shared| Ok(shared.breakers.iter().map(|(key, breaker)| (key.clone(), *breaker)).collect()))
            .await
    }

    async fn note_failure(
        &self,
        key: &BreakerKey,
        run: RunId,
        settings: &CircuitBreaker,
    ) -> Result<Breaker, StoreError> {
        let now = self.clock.now();
        let open = Breaker::Open { until: now + settings.reset };
        self.call(|shared| {
            let breaker = shared.breakers.entry(key.clone()).or_insert(Breaker::Closed { failures: 0 });
            *breaker = match *breaker {
                Breaker::Closed { failures } if failures + 1 >= settings.failure_threshold => open,
                Breaker::Closed { failures } => Breaker::Closed { failures: failures + 1 },
                Breaker::HalfOpen { probe, .. } if probe == run => open,
                stays => stays,
            };
            Ok(*breaker)
        })
        .await
    }

    async fn note_success(&self, key: &BreakerKey, run: RunId) -> Result<Option<Breaker>, StoreError> {
        self.call(|shared| {
            let heals = match shared.breakers.get(key) {
                Some(Breaker::Closed { .. }) => true,
                Some(Breaker::HalfOpen { probe, .. }) => *probe == run,
                Some(Breaker::Open { .. }) | None => false,
            };
            if heals {
                shared.breakers.remove(key);
            }
            Ok(shared.breakers.get(key).copied())
        })
        .await
    }

    async fn try_probe(
        &self,
        key: &BreakerKey,
        run: RunId,
        limit: Duration,
    ) -> Result<Option<Breaker>, StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            let Some(breaker) = shared.breakers.get_mut(key) else { return Ok(None) };
            if let Breaker::Open { until } | Breaker::HalfOpen { until, .. } = *breaker
                && until <= now
            {
                *breaker = Breaker::HalfOpen { probe: run, until: now + limit };
            }
            Ok(Some(*breaker))
        })
        .await
    }
}

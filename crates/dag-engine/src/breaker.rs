//! The circuit breaker: no run executes a node that keeps failing, until one probe in the whole cluster succeeds.
//!
//! The store keeps one row for each breaker that is not healthy, shared by all runs and instances. Each instance keeps
//! those rows in memory, so that a healthy node costs one map lookup and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{CircuitBreaker, FailureKind, NodeId, PipelineId, RunId};

use crate::children::retry_while_unavailable;
use crate::clock::Clock;
use crate::journal::NodeFailure;
use crate::store::StoreError;

/// How long a probe may take before another one may start, unless its node has a timeout.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// How long the end of a node waits for the store to note an outcome.
const REPORT_LIMIT: Duration = Duration::from_secs(1);

/// Failures that say nothing about the service that the node calls.
const NOT_COUNTED: [FailureKind; 4] =
    [FailureKind::Expression, FailureKind::Config, FailureKind::Interrupted, FailureKind::CircuitOpen];

/// The key of a breaker: one node in all runs of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BreakerKey {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The node.
    pub node: NodeId,
}

/// The state of a breaker that is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Attempts may start; some have failed in a row.
    Closed {
        /// How many.
        failures: u32,
    },
    /// No attempt may start until then; then one probe may.
    Open {
        /// When, in UTC.
        until: DateTime<Utc>,
    },
    /// A probe executes.
    HalfOpen {
        /// Of which run.
        probe: RunId,
        /// When the probe counts as lost and another may start, in UTC.
        until: DateTime<Utc>,
    },
}

/// The store of breakers. A breaker without an entry is closed and without failures.
#[async_trait]
pub trait BreakerStore: Send + Sync + 'static {
    /// All that are not healthy.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn list_unhealthy(&self) -> Result<Vec<(BreakerKey, Breaker)>, StoreError>;

    /// Counts a failed attempt of this run, and returns the breaker's new state: closed, it opens with the
    /// `failure_threshold`-th in a row; half-open, it opens again if this was the probe; else it stays.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn note_failure(
        &self,
        key: &BreakerKey,
        run: RunId,
        settings: &CircuitBreaker,
    ) -> Result<Breaker, StoreError>;

    /// Records a success of this run: the breaker is healthy again, unless it is open or another run probes it. Returns
    /// its new state; `None`: healthy.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn note_success(&self, key: &BreakerKey, run: RunId) -> Result<Option<Breaker>, StoreError>;

    /// Makes this run's attempt the probe if one may start now: the breaker is open and its time has passed, or the
    /// time of its probe has. Returns its new state, which names the run of the probe. `None`: healthy by now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn try_probe(
        &self,
        key: &BreakerKey,
        run: RunId,
        limit: Duration,
    ) -> Result<Option<Breaker>, StoreError>;
}

/// One instance's copy of the breakers. Cheap to clone.
#[derive(Clone)]
pub struct Breakers {
    store: Arc<dyn BreakerStore>,
    clock: Arc<dyn Clock>,
    /// Those that are not healthy, as last read.
    known: Arc<Mutex<HashMap<BreakerKey, Breaker>>>,
}

impl Breakers {
    /// The breakers of this store; call [`Breakers::reload`] at the start and whenever another instance may have
    /// changed one.
    pub fn new(store: Arc<dyn BreakerStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, known: Arc::default() }
    }

    /// Reads the breakers from the store.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the copy stays as it was.
    pub async fn reload(&self) -> Result<(), StoreError> {
        let unhealthy = self.store.list_unhealthy().await?;
        self.with_known(|known| *known = unhealthy.into_iter().collect());
        Ok(())
    }

    fn with_known<T>(&self, act: impl FnOnce(&mut HashMap<BreakerKey, Breaker>) -> T) -> T {
        // The map holds plain values, so a panic elsewhere cannot have left it half-changed.
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, key: &BreakerKey) -> Option<Breaker> {
        self.with_known(|known| known.get(key).copied())
    }

    fn set(&self, key: &BreakerKey, breaker: Option<Breaker>) {
        self.with_known(|known| match breaker {
            Some(breaker) => known.insert(key.clone(), breaker),
            None => known.remove(key),
        });
    }
}

/// One node's breaker, as its attempts use it.
pub(crate) struct Guard {
    pub(crate) breakers: Breakers,
    pub(crate) key: BreakerKey,
    pub(crate) run: RunId,
    pub(crate) settings: CircuitBreaker,
    pub(crate) timeout: Option<Duration>,
}

impl Guard {
    /// Permits an attempt, or says why not. Waits while the store is away; the node's timeout bounds that.
    ///
    /// Cancellation: safe.
    ///
    /// # Errors
    /// [`NodeFailure`] of the kind `circuit_open`, which no retry helps.
    pub(crate) async fn admit(&self) -> Result<(), NodeFailure> {
        let now = self.breakers.clock.now();
        let refused_until = match self.breakers.find(&self.key) {
            None | Some(Breaker::Closed { .. }) => return Ok(()),
            // Its own probe was interrupted: this attempt is the probe now.
            Some(Breaker::HalfOpen { probe, .. }) if probe == self.run => return Ok(()),
            Some(Breaker::Open { until } | Breaker::HalfOpen { until, .. }) if until > now => until,
            Some(_) => match self.probe().await? {
                None => return Ok(()),
                Some(until) => until,
            },
        };
        let message = format!(
            "it failed too often of late, so no run tries it until {}",
            refused_until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        );
        Err(NodeFailure::permanent(FailureKind::CircuitOpen, message))
    }

    /// `None` if this attempt is the probe, or none is needed any more; else the time until which none may start.
    async fn probe(&self) -> Result<Option<DateTime<Utc>>, NodeFailure> {
        let limit = self.timeout.unwrap_or(PROBE_LIMIT);
        let stands =
            retry_while_unavailable(|| self.breakers.store.try_probe(&self.key, self.run, limit)).await?;
        self.breakers.set(&self.key, stands);
        Ok(match stands {
            Some(Breaker::HalfOpen { probe, .. }) if probe == self.run => None,
            Some(Breaker::Open { until } | Breaker::HalfOpen { until, .. }) => Some(until),
            None | Some(Breaker::Closed { .. }) => None,
        })
    }

    /// Records the end of an attempt, if the store does so within [`REPORT_LIMIT`]. The end of the node does not wait
    /// longer, and nothing is repeated.
    pub(crate) async fn report(&self, failure: Option<&NodeFailure>) {
        let is_counted = match failure {
            Some(failure) => !NOT_COUNTED.contains(&failure.kind),
            None => self.breakers.find(&self.key).is_some(),
        };
        if !is_counted {
            return;
        }
        let (store, key) = (&self.breakers.store, &self.key);
        let note = async {
            match failure {
                Some(_) => store.note_failure(key, self.run, &self.settings).await.map(Some),
                None => store.note_success(key, self.run).await,
            }
        };
        let noted = tokio::time::timeout(REPORT_LIMIT, note).await;
        match noted.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer within a second".into()))) {
            Ok(stands) => self.breakers.set(key, stands),
            Err(error) => {
                tracing::warn!(error = %error, node.id = %key.node, "cannot record an outcome on the circuit breaker");
            }
        }
    }
}

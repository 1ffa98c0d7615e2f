//! The definition of a graph as its author writes it.
//!
//! These types hold a validated definition. The engine reads them from a document and reports every problem.

use std::time::Duration;

use serde_json::Value;

use crate::{NodeId, NodeOnLimit};

/// The nodes of one run that may execute at once, unless its definition sets another number.
pub const DEFAULT_MAX_CONCURRENCY: usize = 32;

/// A directed graph of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The nodes, in the order in which they were written.
    pub nodes: Vec<Node>,
    /// The edges, in the order in which they were written.
    pub edges: Vec<Edge>,
    /// The longest time from accepting a run to its end.
    pub timeout: Option<Duration>,
    /// The most nodes of a run that execute at once.
    pub max_concurrency: usize,
    /// Whether the first failure that no edge handles ends the run; else the other branches continue, and the run fails
    /// when they have ended.
    pub fail_fast: bool,
    /// The expression for the run's output. The default is an object of the outputs of the last nodes.
    pub output: Option<String>,
}

/// A vertex of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its id in the graph.
    pub id: NodeId,
    /// The name of a registered node type.
    pub node_type: String,
    /// A name for people.
    pub name: Option<String>,
    /// The settings of its type; strings may contain `${{ expression }}`.
    pub config: Value,
    /// The condition on its incoming edges.
    pub join: Join,
    /// The longest time of one attempt.
    pub timeout: Option<Duration>,
    /// The retry policy for retryable failures.
    pub retry: RetryPolicy,
    /// The circuit breaker, shared by all runs.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How many attempts execute at once in all runs.
    pub concurrency: Option<NodeConcurrency>,
    /// `false` if an interrupted attempt must not be repeated.
    pub idempotent: bool,
}

/// The condition on which a node runs, once all its incoming edges are resolved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Join {
    /// At least one edge was taken.
    #[default]
    Any,
    /// All edges were taken.
    All,
}

/// An edge of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// The source node.
    pub from: NodeId,
    /// The target node.
    pub to: NodeId,
    /// The result of the source on which the edge is taken.
    pub on: EdgeOn,
    /// An expression that must also be true.
    pub when: Option<String>,
}

/// The result of an edge's source on which the edge is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EdgeOn {
    /// The source succeeded.
    #[default]
    Success,
    /// The source failed or timed out.
    Failure,
    /// The source ended, with any result.
    Always,
}

/// How many attempts a node has, and the back-off between them.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Total attempts, including the first; 1 means no retry.
    pub max_attempts: u32,
    /// The back-off after the first failed attempt.
    pub initial_backoff: Duration,
    /// The factor between one back-off and the next.
    pub multiplier: f64,
    /// The longest back-off.
    pub max_backoff: Duration,
    /// The random share of the back-off, 0 to 1. It keeps many failures from retrying at the same moment.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 1,
            initial_backoff: Duration::from_millis(500),
            multiplier: 2.0,
            max_backoff: Duration::from_secs(60),
            jitter: 0.2,
        }
    }
}

impl RetryPolicy {
    /// The back-off after the `failures`-th failed attempt (1-based): `initial * multiplier^(failures-1)`, at most the
    /// longest back-off, shortened by `jitter` times `draw`, which is 0 to 1.
    pub fn backoff_after(&self, failures: u32, draw: f64) -> Duration {
        let max = self.max_backoff.as_secs_f64();
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = (self.initial_backoff.as_secs_f64() * self.multiplier.powi(exponent)).min(max);
        let full = if full.is_finite() { full } else { max };
        Duration::from_secs_f64(full * (1.0 - self.jitter * draw.clamp(0.0, 1.0)))
    }
}

/// How many attempts of a node execute at once in all runs, on all instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConcurrency {
    /// How many.
    pub limit: u32,
    /// The expression for the key whose attempts are counted together; absent: all are.
    pub key: Option<String>,
    /// What becomes of further ones.
    pub on_limit: NodeOnLimit,
}

/// When repeated failures of a node stop all runs from attempting it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Consecutive failures that open the breaker.
    pub failure_threshold: u32,
    /// How long the breaker stays open before one probe.
    pub reset: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_bound() {
        let policy = RetryPolicy { max_backoff: Duration::from_secs(3), ..RetryPolicy::default() };
        let backoffs: Vec<u128> = (1..=5).map(|n| policy.backoff_after(n, 0.0).as_millis()).collect();
        assert_eq!(backoffs, [500, 1000, 2000, 3000, 3000]);
        assert_eq!(policy.backoff_after(u32::MAX, 0.0), Duration::from_secs(3));
    }

    #[test]
    fn jitter_only_shortens() {
        let policy = RetryPolicy { jitter: 0.5, ..RetryPolicy::default() };
        assert_eq!(policy.backoff_after(1, 1.0), Duration::from_millis(250));
        assert_eq!(policy.backoff_after(1, 0.0), Duration::from_millis(500));
    }
}

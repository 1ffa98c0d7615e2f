//! The definition of a graph as its author writes it: nodes, edges, and what holds for the whole.
//!
//! These are the checked shapes; reading them from a document, with every problem named, is the engine's.

use std::time::Duration;

use serde_json::Value;

use crate::NodeId;

/// How many nodes of one run may execute at once when its definition does not say.
pub const DEFAULT_MAX_CONCURRENCY: usize = 32;

/// A directed graph of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The nodes, in the order in which they were written.
    pub nodes: Vec<Node>,
    /// The edges, in the order in which they were written.
    pub edges: Vec<Edge>,
    /// How long a run may take from its acceptance.
    pub timeout: Option<Duration>,
    /// How many of its nodes may execute at once.
    pub max_concurrency: usize,
    /// The expression that makes the run's output; by default an object of the outputs of the last nodes.
    pub output: Option<String>,
}

/// A vertex of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name in the graph.
    pub id: NodeId,
    /// What it does: the name of a registered node type.
    pub node_type: String,
    /// What people call it.
    pub name: Option<String>,
    /// What its type needs to know; strings may hold `${{ expression }}`.
    pub config: Value,
    /// When several edges lead here.
    pub join: Join,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// What happens after a retryable failure.
    pub retry: RetryPolicy,
    /// When to stop trying for all runs.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// `false` when an attempt that was interrupted must not be repeated.
    pub idempotent: bool,
}

/// When a node with several incoming edges runs, once all of them are resolved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Join {
    /// At least one was taken.
    #[default]
    Any,
    /// All were taken.
    All,
}

/// An edge of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Where it begins.
    pub from: NodeId,
    /// Where it leads.
    pub to: NodeId,
    /// The end of its source on which it is taken.
    pub on: EdgeOn,
    /// An expression that must hold as well.
    pub when: Option<String>,
}

/// The end of an edge's source on which the edge is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EdgeOn {
    /// It succeeded.
    #[default]
    Success,
    /// It failed or timed out.
    Failure,
    /// It ended, either way.
    Always,
}

/// How often a node is tried, and how long the back-off between two attempts is.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first among them; 1 means no retry.
    pub max_attempts: u32,
    /// The back-off after the first failed attempt.
    pub initial_backoff: Duration,
    /// By what the back-off grows each time.
    pub multiplier: f64,
    /// The back-off never exceeds this.
    pub max_backoff: Duration,
    /// The share of the back-off, 0 to 1, that is drawn at random, so that many failures do not return at once.
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
    /// The back-off after the `failures`-th failed attempt (1-based): `initial * multiplier^(failures-1)`, bounded, with
    /// its share of `jitter` scaled by `draw`, which is 0 to 1.
    pub fn backoff_after(&self, failures: u32, draw: f64) -> Duration {
        let max = self.max_backoff.as_secs_f64();
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = (self.initial_backoff.as_secs_f64() * self.multiplier.powi(exponent)).min(max);
        let full = if full.is_finite() { full } else { max };
        Duration::from_secs_f64(full * (1.0 - self.jitter * draw.clamp(0.0, 1.0)))
    }
}

/// When a node that keeps failing is no longer tried by any run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// How long it stays open before one probe.
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

//! `map {items, graph, max_concurrency?, fail_fast?}`: a graph for each item of a list; its output is the list of their
//! outputs.
//!
//! Each item is a child run, so the items spread over all instances and survive the end of any of them. At most
//! `max_concurrency` items are unfinished at once; each poll starts the next ones. The node itself holds nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use gathering_domain::{Digest, FailureKind, WaitingFor};
use serde_json::{Value, json};

use super::{Attempt, NodeExecutor, NodeSpec, Outcome, PollOutcome, Wait};
use crate::children::{
    ChildKind, ChildRuns, NewChild, Parent, Unsuccessful, end_earlier_round, retry_while_unavailable,
    start_children,
};
use crate::fields::{Fields, Shape};
use crate::journal::NodeFailure;
use crate::values::{Room, ValueLimit};

/// How many items may be unfinished at once if the config has no `max_concurrency`.
const DEFAULT_MAX_CONCURRENCY: u32 = 16;

/// The largest number of items.
const MAX_ITEMS: usize = 100_000;

/// How many outputs one query reads.
const PAGE: usize = 1000;

/// How many items that did not succeed the failure lists in its details.
const MAX_LISTED: usize = 1000;

/// How many of them its message contains.
const MAX_MESSAGES: usize = 10;

/// The spec of `map`.
pub struct MapSpec;

/// The executor of `map`.
pub struct MapNode {
    children: Arc<dyn ChildRuns>,
}

impl MapNode {
    /// An executor that starts items as child runs in `children`.
    pub fn new(children: Arc<dyn ChildRuns>) -> Self {
        Self { children }
    }

    /// Starts the next items; returns the output once all items have ended.
    async fn advance(&self, attempt: &Attempt) -> Result<Option<Value>, NodeFailure> {
        let parent = Parent::of(attempt);
        let items = items_of(&attempt.config)?;
        let summary = retry_while_unavailable(|| self.children.summarize(&parent)).await?;
        if let Some(unsuccessful) = &summary.unsuccessful
            && fails_fast(&attempt.config)
        {
            retry_while_unavailable(|| self.children.cancel(&parent)).await?;
            return Err(unsuccessful.failure());
        }
        let n_items = u32::try_from(items.len()).unwrap_or(u32::MAX);
        if summary.n_started >= n_items && summary.n_unfinished == 0 {
            return match &summary.unsuccessful {
                Some(first) => Err(self.failure_of(&parent, first, summary.n_unsuccessful, n_items).await?),
                None => self.outputs(&parent, items.len()).await.map(Some),
            };
        }
        let room = max_concurrency(&attempt.config).saturating_sub(summary.n_unfinished);
        let next = summary.n_started..n_items.min(summary.n_started.saturating_add(room));
        if !next.is_empty() {
            self.start(&parent, attempt, items, next).await?;
        }
        Ok(None)
    }

    async fn start(
        &self,
        parent: &Parent,
        attempt: &Attempt,
        items: &[Value],
        next: std::ops::Range<u32>,
    ) -> Result<(), NodeFailure> {
        let definition = &attempt.config["graph"];
        let graph = Digest::of_json(definition);
        if next.start == 0 {
            retry_while_unavailable(|| self.children.ensure_graph(graph, definition)).await?;
        }
        // An item whose graph cannot read the run's input gets no copy of it.
        let reads_input = definition.to_string().contains("input") || has_trigger(definition);
        let input = if reads_input { (*attempt.input).clone() } else { Value::Null };
        let timeout = definition["timeout_seconds"].as_f64();
        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let timeout = timeout.and_then(|timeout| TimeDelta::from_std(timeout).ok());
        let deadline_at = timeout.and_then(|timeout| attempt.now.checked_add_signed(timeout));
        let children: Vec<NewChild> = next
            .map(|item| NewChild {
                item,
                graph,
                input: json!({ "item": items[item as usize], "index": item, "input": input }),
                pipeline: None,
                deadline_at,
                permit: None,
            })
            .collect();
        start_children(&*self.children, parent, ChildKind::Item, children, &attempt.earlier_runs).await
    }

    /// The failure of the node once every item has ended: it lists the items that did not succeed.
    async fn failure_of(
        &self,
        parent: &Parent,
        first: &Unsuccessful,
        n_unsuccessful: u32,
        n_items: u32,
    ) -> Result<NodeFailure, NodeFailure> {
        let children =
            retry_while_unavailable(|| self.children.list_unsuccessful(parent, MAX_LISTED)).await?;
        let messages: Vec<String> =
            children.iter().take(MAX_MESSAGES).map(|child| child.failure().message).collect();
        let more = if n_unsuccessful as usize > messages.len() { "; and more" } else { "" };
        let message =
            format!("{n_unsuccessful} of {n_items} items did not succeed: {}{more}", messages.join("; "));
        let details = children.into_iter().map(|child| {
            json!({ "item": child.item, "run_id": child.run, "state": child.state.as_str(), "error": child.error })
        });
        Ok(NodeFailure { message, details: Some(Box::new(details.collect())), ..first.failure() })
    }

    async fn outputs(&self, parent: &Parent, n_items: usize) -> Result<Value, NodeFailure> {
        let mut outputs: Vec<Value> = Vec::with_capacity(n_items);
        let mut room = Room::default();
        while outputs.len() < n_items {
            let from = u32::try_from(outputs.len()).unwrap_or(u32::MAX);
            let page = retry_while_unavailable(|| self.children.load_outputs(parent, from, PAGE)).await?;
            if page.is_empty() {
                let message = format!("the output of item {from} is missing");
                return Err(NodeFailure::permanent(FailureKind::Store, message));
            }
            page.iter().try_for_each(|(_, output)| room.take(output)).map_err(ValueLimit::of_output)?;
            outputs.extend(page.into_iter().map(|(_, output)| output));
        }
        Ok(Value::Array(outputs))
    }
}

impl NodeSpec for MapSpec {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("items", Shape::Text);
        let graph = config.required("graph", Shape::Object);
        config.optional("max_concurrency", Shape::Whole(1, 1000));
        config.optional("fail_fast", Shape::Bool);
        // A breaker belongs to a node of a pipeline, and an item is not a run of a pipeline.
        let nodes = graph.and_then(|graph| graph["nodes"].as_array()).map(Vec::as_slice).unwrap_or_default();
        for (place, _) in nodes.iter().enumerate().filter(|(_, node)| !node["circuit_breaker"].is_null()) {
            let at = config.place("graph").join("nodes").join(place.to_string()).join("circuit_breaker");
            let message =
                "is not supported in the graph of a map: use a pipeline for each item, or remove it";
            config.problems().add(at, message);
        }
    }

    fn expressions(&self) -> &'static [&'static str] {
        &["items"]
    }

    fn sub_graph(&self) -> Option<&'static str> {
        Some("graph")
    }
}

#[async_trait]
impl NodeExecutor for MapNode {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        if attempt.woken {
            let parent = Parent::of(&attempt);
            retry_while_unavailable(|| self.children.cancel(&parent)).await?;
            return Err(NodeFailure::retryable(FailureKind::TimedOut, "its items took too long"));
        }
        end_earlier_round(&*self.children, &attempt).await?;
        if items_of(&attempt.config)?.is_empty() {
            return Ok(Outcome::Done(json!([])));
        }
        Ok(match self.advance(&attempt).await? {
            Some(outputs) => Outcome::Done(outputs),
            None => Outcome::Wait(Wait { on: WaitingFor::Child, until: None }),
        })
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        Ok(self.advance(&attempt).await?.map(Outcome::Done).into())
    }
}

fn items_of(config: &Value) -> Result<&[Value], NodeFailure> {
    match &config["items"] {
        Value::Array(items) if items.len() <= MAX_ITEMS => Ok(items),
        Value::Array(items) => {
            let message = format!("`items` has {} items; the limit is {MAX_ITEMS}", items.len());
            Err(NodeFailure::permanent(FailureKind::Config, message))
        }
        _ => Err(NodeFailure::permanent(FailureKind::Expression, "`items` must be a list")),
    }
}

fn max_concurrency(config: &Value) -> u32 {
    let given = config["max_concurrency"].as_u64().and_then(|n| u32::try_from(n).ok());
    given.unwrap_or(DEFAULT_MAX_CONCURRENCY).max(1)
}

fn fails_fast(config: &Value) -> bool {
    config["fail_fast"].as_bool().unwrap_or(true)
}

fn has_trigger(definition: &Value) -> bool {
    let nodes = definition["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().any(|node| node["type"] == "trigger")
}

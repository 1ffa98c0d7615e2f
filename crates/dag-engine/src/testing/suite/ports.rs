//! The fixture and the helpers for the cases of the ports other than [`crate::RunStore`].

use std::sync::Arc;

use async_trait::async_trait;
use gathering_domain::{InstanceId, NodeId, PipelineId, RunEvent, RunId, WaitingFor};
use serde_json::{Value, json};

use super::{StoreFixture, accept, commit};
use crate::breaker::BreakerStore;
use crate::children::{ChildKind, ChildRuns, NewChild, Parent};
use crate::decisions::{DecidedOutcome, Decisions};
use crate::permits::NodePermits;
use crate::store::{
    Checkpoint, Claim, ClaimScope, ClaimedRun, Release, RunEnd, RunError, RunResult, SignalledRun,
};

/// The fixture of the other ports. All of them belong to the store of [`StoreFixture::store`].
#[async_trait]
pub trait PortsFixture: StoreFixture {
    /// The port to child runs.
    fn children(&self) -> Arc<dyn ChildRuns>;
    /// The port to decisions.
    fn decisions(&self) -> Arc<dyn Decisions>;
    /// The port to circuit breakers.
    fn breakers(&self) -> Arc<dyn BreakerStore>;
    /// The port to permits of nodes.
    fn permits(&self) -> Arc<dyn NodePermits>;
    /// A pipeline that may have breakers.
    async fn pipeline(&self) -> PipelineId;
    /// Records a decision about a node, as the API would; returns whether it was accepted.
    async fn decide(&self, run: RunId, node: &NodeId, approve: bool) -> bool;
    /// Records a decision of `ada@example.org` about a node whose end is unknown, because "they said so"; returns whether
    /// it was accepted.
    async fn decide_outcome(
        &self,
        run: RunId,
        node: &NodeId,
        outcome: DecidedOutcome,
        output: Option<Value>,
    ) -> bool;
}

/// A run that `owner` drives, as the parent of children, and its claim.
pub(super) async fn driven(fixture: &dyn PortsFixture, owner: InstanceId) -> (Parent, ClaimedRun) {
    let run = accept(fixture, 5).await;
    let claimed = fixture.store().claim_run(owner, run).await.unwrap().unwrap();
    (Parent { run, node: node("each"), round: 0 }, claimed)
}

pub(super) fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

/// Children of these items, of the graph of their parent.
pub(super) fn new_children(of: &ClaimedRun, items: std::ops::Range<u32>) -> Vec<NewChild> {
    let (graph, input) = (of.graph, |item| json!({ "n": item }));
    items
        .map(|item| NewChild {
            item,
            graph,
            input: input(item),
            pipeline: None,
            deadline_at: None,
            permit: None,
        })
        .collect()
}

pub(super) async fn start(
    fixture: &dyn PortsFixture,
    parent: &Parent,
    of: &ClaimedRun,
    items: std::ops::Range<u32>,
) {
    fixture.children().start(parent, ChildKind::Awaited, new_children(of, items), &[]).await.unwrap();
}

pub(super) async fn claim_child(
    fixture: &dyn PortsFixture,
    owner: InstanceId,
    parent: &Parent,
    item: u32,
) -> ClaimedRun {
    fixture.store().claim_run(owner, parent.child(item)).await.unwrap().unwrap()
}

/// A result that ends a run with this event; for an event that ends no run, a failure.
pub fn planned_result(event: RunEvent) -> RunResult {
    let kind = "planned".parse().unwrap();
    let error = RunError::of(kind, "as planned");
    match event {
        RunEvent::Succeeded => RunResult::Succeeded(Value::Null),
        RunEvent::Cancelled => RunResult::Cancelled(error),
        RunEvent::TimedOut => RunResult::TimedOut(error),
        _ => RunResult::Failed(error),
    }
}

/// The end of a run that wrote nothing under this claim.
pub(super) fn end(claim: Claim, event: RunEvent, output: Option<Value>) -> Checkpoint {
    let result = output.map_or_else(|| planned_result(event), RunResult::Succeeded);
    releasing(claim, Release::End(RunEnd { result, abandons_children: true, is_limited: false }))
}

pub(super) fn park(claim: Claim, waiting_for: WaitingFor) -> Checkpoint {
    releasing(claim, Release::Park { waiting_for, until: None })
}

/// Behind the `taken_over` of its own claim and of those before it, each of which wrote nothing else.
fn releasing(claim: Claim, release: Release) -> Checkpoint {
    Checkpoint { claim, first_seq: claim.epoch, records: vec![], release: Some(release), frees: Vec::new() }
}

pub(super) async fn must_commit(fixture: &dyn PortsFixture, checkpoint: Checkpoint) {
    commit(fixture, checkpoint).await.unwrap();
}

/// Claims every run that can be claimed now; returns them sorted.
pub(super) async fn claim_all(fixture: &dyn PortsFixture, owner: InstanceId) -> Vec<ClaimedRun> {
    let mut claimed = fixture.store().claim(owner, ClaimScope::Queue, 100).await.unwrap();
    claimed.sort_unstable_by_key(|claimed| claimed.claim.run);
    claimed
}

pub(super) fn ids(claimed: &[ClaimedRun]) -> Vec<RunId> {
    claimed.iter().map(|claimed| claimed.claim.run).collect()
}

/// The signals of this run for its owner.
pub(super) async fn told(fixture: &dyn PortsFixture, owner: InstanceId, run: RunId) -> Option<SignalledRun> {
    let signalled = fixture.store().list_signalled(owner, &[run]).await.unwrap();
    signalled.into_iter().find(|signalled| signalled.run == run)
}

//! A run and its nodes as they are shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use gathering_control::{Run, RunDetails};
use gathering_dag_engine::{FailedNode, JournalEntry, NodeFailure, NodeRun, NodeState, RunError};
use gathering_domain::{NodeId, RunState};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::question_view::QuestionView;
use crate::http::api::runs::rerun::RerunPlanView;
use crate::http::api::words::{JournalKindSchema, NodeStateSchema, RunStateSchema, WaitingForSchema};
use gathering_edge::values::AnyObject;

/// One execution of a graph.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub(crate) struct RunView {
    pub(crate) id: Uuid,
    /// `pipeline`, `item` (of a `map`) or `local`.
    kind: &'static str,
    #[schema(value_type = RunStateSchema)]
    pub(crate) state: &'static str,
    /// Null unless the run is waiting.
    #[schema(value_type = Option<WaitingForSchema>)]
    waiting_for: Option<&'static str>,
    /// What made it.
    #[schema(value_type = AnyObject)]
    trigger: Value,
    project_id: Uuid,
    pipeline_id: Option<Uuid>,
    /// Of the pipeline.
    version: Option<i32>,
    schedule_id: Option<Uuid>,
    parent_run_id: Option<Uuid>,
    /// The run whose successes it reuses.
    rerun_of: Option<Uuid>,
    /// Any JSON.
    input: Value,
    /// Any JSON; null until it succeeded.
    output: Option<Value>,
    error: Option<RunErrorView>,
    /// 1 to 10; the higher the sooner.
    priority: i32,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    /// When it must have ended.
    deadline_at: Option<DateTime<Utc>>,
    cancel_requested_at: Option<DateTime<Utc>>,
    /// How often its instance died.
    recoveries: i32,
    /// What became of its nodes, in a topological order; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    nodes: Option<Vec<NodeRunView>>,
    /// What it keeps of the run that it continues; only in the answer to a rerun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    plan: Option<RerunPlanView>,
}

/// Why a run did not succeed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunError)]
pub(crate) struct RunErrorView {
    /// A short stable word.
    kind: String,
    message: String,
    /// The node that caused it, if one did; of several the first.
    node_id: Option<String>,
    /// Any JSON: what the node adds to the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    details: Option<Value>,
    /// Without `fail_fast`: every failure that no edge handles, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    failures: Vec<FailedNodeView>,
}

/// One of the failures of a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FailedNode)]
pub(crate) struct FailedNodeView {
    /// A short stable word.
    kind: String,
    message: String,
    /// The node that failed, or from which the edge leads that failed.
    node_id: Option<String>,
    /// Any JSON: what the node adds to the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    details: Option<Value>,
}

/// What became of one node of a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeRun)]
pub(crate) struct NodeRunView {
    node_id: String,
    r#type: String,
    #[schema(value_type = NodeStateSchema)]
    state: &'static str,
    /// The last attempt that began, from 1; 0 before the first.
    attempt: i32,
    /// Any JSON; null until it succeeded.
    output: Option<Value>,
    error: Option<NodeErrorView>,
    /// When the last attempt began.
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    /// From the beginning of the last attempt to the end.
    duration_ms: Option<i64>,
    /// What its tools asked people, the oldest first; absent if they asked nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    questions: Vec<QuestionView>,
}

/// Why a node did not succeed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeError)]
pub(crate) struct NodeErrorView {
    /// A short stable word.
    kind: String,
    message: String,
    /// Whether trying again may help.
    retryable: bool,
    /// Any JSON: what the node adds to the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    details: Option<Value>,
}

impl RunView {
    /// A run without its nodes.
    pub(crate) fn of(run: Run) -> Self {
        Self {
            id: run.id.as_uuid(),
            kind: run.kind.as_str(),
            state: run.state.as_str(),
            waiting_for: run.waiting_for.map(|waiting_for| waiting_for.as_str()),
            trigger: run.trigger,
            project_id: run.project.as_uuid(),
            pipeline_id: run.pipeline.map(|(id, _)| id.as_uuid()),
            version: run.pipeline.map(|(_, version)| version),
            schedule_id: run.schedule.map(|id| id.as_uuid()),
            parent_run_id: run.parent.map(|id| id.as_uuid()),
            rerun_of: run.rerun_of.map(|id| id.as_uuid()),
            input: run.input,
            output: run.output,
            error: run.error.map(RunErrorView::of),
            priority: run.priority,
            created_at: run.created_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            deadline_at: run.deadline_at,
            cancel_requested_at: run.cancel_requested_at,
            recoveries: run.recoveries,
            nodes: None,
            plan: None,
        }
    }

    /// A run with what it keeps of the run that it continues.
    pub(crate) fn with_plan(run: Run, plan: Option<RerunPlanView>) -> Self {
        Self { plan, ..Self::of(run) }
    }

    /// A run with its nodes in the graph's order.
    pub(crate) fn with_nodes(details: RunDetails) -> Self {
        let RunDetails { run, graph, mut nodes, questions } = details;
        let (state, ended_at) = (run.state, run.ended_at);
        let mut asked: BTreeMap<NodeId, Vec<QuestionView>> = BTreeMap::new();
        for question in questions {
            asked.entry(question.node.clone()).or_default().push(QuestionView::of(question));
        }
        let shown = graph.nodes.iter().map(|(id, node_type)| {
            let node_id = id.parse::<NodeId>().ok();
            let node = node_id.as_ref().and_then(|id| nodes.take(id)).unwrap_or_default();
            let questions = node_id.and_then(|id| asked.remove(&id)).unwrap_or_default();
            NodeRunView { questions, ..NodeRunView::of(id, node_type, node, state, ended_at) }
        });
        let shown = shown.collect();
        Self { nodes: Some(shown), ..Self::of(run) }
    }
}

impl RunErrorView {
    fn of(error: RunError) -> Self {
        Self {
            kind: error.kind.to_string(),
            message: error.message,
            node_id: error.node_id,
            details: error.details,
            failures: error.failures.into_iter().map(FailedNodeView::of).collect(),
        }
    }
}

impl FailedNodeView {
    fn of(failed: FailedNode) -> Self {
        let FailedNode { node_id, kind, message, details } = failed;
        Self { kind: kind.to_string(), message, node_id, details }
    }
}

impl NodeRunView {
    /// In a run that has ended nothing more happens: what was not resolved ended with it.
    fn of(
        id: &str,
        node_type: &str,
        node: NodeRun,
        run: RunState,
        run_ended_at: Option<DateTime<Utc>>,
    ) -> Self {
        let cut_off = run.is_terminal() && !node.state.is_resolved();
        let state = if cut_off { NodeState::Cancelled } else { node.state };
        let ended_at = node.ended_at.or(run_ended_at.filter(|_| cut_off && node.started_at.is_some()));
        let duration = node.started_at.zip(ended_at).map(|(from, to)| (to - from).num_milliseconds().max(0));
        Self {
            node_id: id.to_owned(),
            r#type: node_type.to_owned(),
            state: state.as_str(),
            attempt: node.attempt,
            output: node.output,
            error: node.failure.map(NodeErrorView::of),
            started_at: node.started_at,
            ended_at,
            duration_ms: duration,
            questions: Vec::new(),
        }
    }
}

impl NodeErrorView {
    fn of(failure: NodeFailure) -> Self {
        let NodeFailure { kind, message, retryable, details, retry_after_ms: _ } = failure;
        Self { kind: kind.to_string(), message, retryable, details: details.map(|details| *details) }
    }
}

/// One entry of a run's journal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JournalEntry)]
pub(crate) struct JournalEntryView {
    /// Its place, from 1 without gaps.
    seq: i64,
    #[schema(value_type = JournalKindSchema)]
    kind: &'static str,
    /// The node; absent for what happened to the run as a whole.
    node_id: Option<String>,
    /// Which attempt, from 1; 0 where there is none.
    attempt: i32,
    /// What belongs to its kind.
    payload: Option<Value>,
    /// The instance that wrote it.
    instance_id: Option<Uuid>,
    /// The claim under which it was written.
    epoch: i64,
    at: DateTime<Utc>,
}

impl JournalEntryView {
    pub(crate) fn of(entry: JournalEntry) -> Self {
        Self {
            seq: entry.seq,
            kind: entry.record.event.kind(),
            node_id: entry.record.node.map(String::from),
            attempt: entry.record.attempt,
            payload: entry.record.event.payload(),
            instance_id: entry.owner.map(|owner| owner.as_uuid()),
            epoch: entry.epoch,
            at: entry.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(state: NodeState, run: RunState) -> &'static str {
        let mut node = NodeRun::default();
        node.state = state;
        NodeRunView::of("a", "trigger", node, run, None).state
    }

    #[test]
    fn in_a_run_that_has_ended_no_node_looks_alive() {
        let unresolved = [NodeState::Pending, NodeState::Running, NodeState::Retrying, NodeState::Waiting];
        for run in RunState::TERMINAL {
            assert!(unresolved.iter().all(|state| shown(*state, run) == "cancelled"));
            assert_eq!(shown(NodeState::Skipped, run), "skipped");
        }
        assert!(unresolved.iter().all(|state| shown(*state, RunState::Running) == state.as_str()));
    }
}

//! `action: execute_pipeline`: a pipeline of the same project as a child run.

use std::sync::Arc;

use gathering_dag_engine::{
    ActFailed, Attempt, ChildKind, ChildRuns, EARLIER_CHILDREN_PAUSE, EffectClass, Fields, NodeFailure,
    Outcome, Parent, Shape, ValueRole, Wait, check_value, end_earlier_round, poll_only_child,
};
use gathering_domain::{FailureKind, PipelineId, WaitingFor};
use serde_json::{Value, json};

use crate::child_pipelines::{ChildPipeline, ChildPipelines, StartPipelineError};
use crate::config::is_computed_text;

/// The key of the only effect of a node that does not wait.
const START: &str = "start";

/// `execute_pipeline {pipeline_id, input?, wait?}`; its output is `{run_id, output}`, or `{run_id}` if it does not wait.
pub(crate) struct ExecutePipeline {
    pipelines: Arc<dyn ChildPipelines>,
    children: Arc<dyn ChildRuns>,
}

impl ExecutePipeline {
    pub(crate) fn new(pipelines: Arc<dyn ChildPipelines>, children: Arc<dyn ChildRuns>) -> Self {
        Self { pipelines, children }
    }

    pub(crate) fn check(config: &mut Fields<'_>) {
        let id = config.required("pipeline_id", Shape::Text).and_then(Value::as_str);
        if let Some(Err(error)) = id.filter(|id| !is_computed_text(id)).map(str::parse::<PipelineId>) {
            config.problem("pipeline_id", error.to_string());
        }
        config.optional("input", Shape::Any);
        config.optional("wait", Shape::Bool);
    }

    /// Reads all fields, so that none is reported as unknown.
    pub(crate) fn know_fields(config: &mut Fields<'_>) {
        for name in ["pipeline_id", "input", "wait"] {
            config.optional(name, Shape::Any);
        }
    }

    pub(crate) async fn execute(&self, attempt: &Attempt) -> Result<Outcome, NodeFailure> {
        let parent = Parent::of(attempt);
        if attempt.woken {
            // The node's time is over; at the run's deadline the whole run would have ended.
            return self.give_up(&parent).await;
        }
        if attempt.config["wait"].as_bool() == Some(false) {
            return self.start_detached(attempt).await.map(Outcome::Done);
        }
        end_earlier_round(&*self.children, attempt).await?;
        self.start(&parent, attempt, ChildKind::Awaited).await?;
        Ok(match self.poll(attempt).await? {
            Some(outcome) => outcome,
            None => Outcome::Wait(Wait { on: WaitingFor::Child, until: None }),
        })
    }

    pub(crate) async fn poll(&self, attempt: &Attempt) -> Result<Option<Outcome>, NodeFailure> {
        let parent = Parent::of(attempt);
        let output = poll_only_child(&*self.children, &parent).await?;
        Ok(output.map(|output| Outcome::Done(json!({ "run_id": parent.child(0), "output": output }))))
    }

    /// Starts a run that is no part of this one. It goes on whatever becomes of the node, so it is an effect of the node: the
    /// next attempt, and a rerun, do not start another one.
    async fn start_detached(&self, attempt: &Attempt) -> Result<Value, NodeFailure> {
        let parent = Parent { round: 0, ..Parent::of(attempt) };
        let start = async || -> Result<Value, ActFailed> {
            self.start(&parent, attempt, ChildKind::Detached).await?;
            Ok(json!({ "run_id": parent.child(0) }))
        };
        attempt.effects.once(START, EffectClass::Idempotent, &attempt.config, start).await
    }

    async fn start(&self, parent: &Parent, attempt: &Attempt, kind: ChildKind) -> Result<(), NodeFailure> {
        let id = attempt.config["pipeline_id"].as_str().unwrap_or_default();
        let pipeline: PipelineId = id.parse().map_err(|error| {
            NodeFailure::permanent(FailureKind::Config, format!("`pipeline_id`: {error}"))
        })?;
        let input = match &attempt.config["input"] {
            Value::Null => json!({}),
            input => input.clone(),
        };
        check_value(&input).map_err(|limit| {
            NodeFailure::permanent(limit.kind(ValueRole::Input), format!("`input` {limit}"))
        })?;
        let (project, parent, now) = (attempt.project, parent.clone(), attempt.now);
        let earlier_runs = attempt.earlier_runs.clone();
        let child = ChildPipeline { project, parent, item: 0, kind, pipeline, input, earlier_runs, now };
        loop {
            match self.pipelines.start(child.clone()).await {
                // It was cancelled, and ends soon.
                Err(StartPipelineError::EarlierActive) => tokio::time::sleep(EARLIER_CHILDREN_PAUSE).await,
                answered => return Ok(answered?),
            }
        }
    }

    async fn give_up(&self, parent: &Parent) -> Result<Outcome, NodeFailure> {
        let cancelled = self.children.cancel(parent).await;
        cancelled.map_err(|error| NodeFailure::retryable(FailureKind::Unavailable, error.to_string()))?;
        let message = format!("run {} took too long", parent.child(0));
        Err(NodeFailure::retryable(FailureKind::TimedOut, message))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use gathering_dag_engine::testing::MemoryStore;
    use gathering_dag_engine::{JournalEvent, NodeTypes, SystemClock};
    use gathering_tools::{Outbound, OutboundPolicy};

    use super::*;
    use crate::testing::{OneDirectory, drive, problems, tools, without_secrets};
    use crate::{ActionNode, ActionSpec};

    /// Pipelines whose store is away when the first run is started.
    #[derive(Default)]
    struct AwayAtFirst(Mutex<Vec<Parent>>);

    #[async_trait]
    impl ChildPipelines for AwayAtFirst {
        async fn start(&self, child: ChildPipeline) -> Result<(), StartPipelineError> {
            let mut parents = self.0.lock().unwrap();
            parents.push(child.parent);
            if parents.len() == 1 { Err(StartPipelineError::Unavailable("away".into())) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn a_run_that_is_not_waited_for_is_started_once_and_recorded() {
        let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
        let pipelines = Arc::new(AwayAtFirst::default());
        let children = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let files = Arc::new(OneDirectory::new("/nonexistent"));
        let action = ActionNode::new(outbound.clone(), tools(&outbound), files, pipelines.clone(), children);
        let types = NodeTypes::builtin().with_parts("action", ActionSpec, without_secrets(action));
        let config = json!({"action": "execute_pipeline", "pipeline_id": PipelineId::new(), "wait": false});
        let retry = json!({"max_attempts": 2, "initial_backoff_ms": 1});
        let definition = json!({"nodes": [{"id": "n", "type": "action", "config": config, "retry": retry}]});
        let events = drive(types, &definition).await;
        let parents = pipelines.0.lock().unwrap().clone();
        assert_eq!((parents.len(), &parents[0]), (2, &parents[1]), "both attempts start the same run");
        let run_id = json!({ "run_id": parents[0].child(0) });
        let done = JournalEvent::EffectDone { key: START.to_owned(), result: run_id.clone() };
        assert!(events.contains(&done), "{events:?}");
        assert_eq!(events.last(), Some(&JournalEvent::Succeeded { output: run_id }));
    }

    #[test]
    fn every_bad_field_is_named() {
        let found = problems(
            "action",
            &json!({"action": "execute_pipeline", "pipeline_id": "mine", "wait": 1, "x": 1}),
        );
        let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(places, ["/pipeline_id", "/wait", "/x"]);
        let computed = json!({"action": "execute_pipeline", "pipeline_id": "${{ input.id }}", "input": [1]});
        assert!(problems("action", &computed).is_empty());
    }
}

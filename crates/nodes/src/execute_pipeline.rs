//! `action: execute_pipeline`: a pipeline of the same project as a child run.

use std::sync::Arc;

use gathering_dag_engine::{
    Attempt, ChildKind, ChildRuns, EARLIER_CHILDREN_PAUSE, Fields, NodeFailure, Outcome, Parent, Shape,
    ValueRole, Wait, check_value, end_earlier_round, poll_only_child,
};
use gathering_domain::{FailureKind, PipelineId, WaitingFor};
use serde_json::{Value, json};

use crate::child_pipelines::{ChildPipeline, ChildPipelines, StartPipelineError};
use crate::config::is_computed_text;

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
        end_earlier_round(&*self.children, attempt).await?;
        let waits = attempt.config["wait"].as_bool().unwrap_or(true);
        self.start(&parent, attempt, if waits { ChildKind::Awaited } else { ChildKind::Detached }).await?;
        if !waits {
            return Ok(Outcome::Done(json!({ "run_id": parent.child(0) })));
        }
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
        let child = ChildPipeline { project, parent, kind, pipeline, input, earlier_runs, now };
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
    use serde_json::json;

    use crate::testing::problems;

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

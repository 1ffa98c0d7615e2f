//! The tool `run_pipeline`: a pipeline of the same project as a child run of the node that calls the tool.
//!
//! Owns the tool's parameters, the start of the child run, and what the caller learns of its end. The child's id derives
//! from the node, its failed attempts and the place of the call, so a repeat after a crash finds the same run.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::{
    Attempt, ChildKind, ChildRuns, ChildState, EARLIER_CHILDREN_PAUSE, NodeFailure, Parent, StoreError,
    Unsuccessful, ValueRole, Wait, check_value, end_earlier_round, retry_while_unavailable,
};
use gathering_domain::{EffectClass, FailureKind, PipelineId, Pointer, Problems, RunState, WaitingFor};
use gathering_tools::{Tool, ToolContext, ToolError, ToolSource, ToolSpec};
use serde_json::{Value, json};

use crate::budget::{CallBudget, CallStop, cost_of_tool_call};
use crate::child_pipelines::{ChildPipeline, ChildPipelines, StartPipelineError};

/// The name of the tool.
pub(crate) const RUN_PIPELINE: &str = "run_pipeline";

const DESCRIPTION: &str = "Runs a pipeline of this project as a part of this run, waits until it has ended, and returns \
                           its output. A pipeline that fails, or an input that it does not accept, is returned as an \
                           error that says what is wrong.";

/// The description of `run_pipeline` and the check of its parameters, for a toolbox. Agents and `tool` nodes call it;
/// nothing else can, as only a node has child runs.
#[derive(Debug)]
pub struct RunPipeline {
    spec: ToolSpec,
}

impl RunPipeline {
    /// The tool for every pipeline of the project.
    pub fn new() -> Self {
        Self::with_ids(json!({"description": "The id of the pipeline.", "type": "string", "maxLength": 64}))
    }

    /// The tool for these pipelines only.
    pub(crate) fn limited_to(pipelines: &[PipelineId]) -> Self {
        Self::with_ids(json!({"description": "The id of the pipeline.", "type": "string", "enum": pipelines}))
    }

    fn with_ids(pipeline_id: Value) -> Self {
        let input =
            json!({"description": "The input of the pipeline, as its schema demands; `{}` by default."});
        let spec = ToolSpec {
            name: RUN_PIPELINE.to_owned(),
            description: DESCRIPTION.to_owned(),
            parameters: json!({
                "type": "object", "additionalProperties": false, "required": ["pipeline_id"],
                "properties": {"pipeline_id": pipeline_id, "input": input}
            }),
            class: EffectClass::Idempotent,
            source: ToolSource::BuiltIn,
        };
        Self { spec }
    }
}

impl Default for RunPipeline {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Tool for RunPipeline {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn uses_files(&self) -> bool {
        false
    }

    async fn call(&self, _params: Value, _context: &ToolContext) -> Result<Value, ToolError> {
        Err(ToolError::NotConfigured { message: "only a node of a run can start a pipeline".to_owned() })
    }

    fn check(&self, params: &Value) -> Problems {
        match params["pipeline_id"].as_str().map(str::parse::<PipelineId>) {
            Some(Err(error)) => Problems::one(Pointer::root().join("pipeline_id"), error.to_string()),
            _ => Problems::new(),
        }
    }
}

/// One call of the tool in an attempt, with parameters that were checked.
pub(crate) struct PipelineCall<'a> {
    pub(crate) attempt: &'a Attempt,
    /// The key of its effect.
    pub(crate) key: &'a str,
    /// Which of the attempt's children it starts: always the same number for the same call.
    pub(crate) item: u32,
    pub(crate) params: &'a Value,
}

/// What the caller learns of a call: the result of the tool, or why there is none.
pub(crate) type PipelineResult = Result<Value, NodeFailure>;

/// Starts pipelines for calls of the tool, and tells how they ended. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct PipelineRuns {
    pipelines: Arc<dyn ChildPipelines>,
    children: Arc<dyn ChildRuns>,
}

impl PipelineRuns {
    pub(crate) fn new(pipelines: Arc<dyn ChildPipelines>, children: Arc<dyn ChildRuns>) -> Self {
        Self { pipelines, children }
    }

    /// The result of a call: starts its run if there is none and `budget` makes calls. `None` if nothing was started.
    ///
    /// Cancellation: safe; the run is found again.
    ///
    /// # Errors
    /// [`CallStop::Waits`] while the run goes on, and for a budget; the store's.
    pub(crate) async fn result_of(
        &self,
        call: &PipelineCall<'_>,
        budget: &CallBudget<'_>,
    ) -> Result<Option<PipelineResult>, CallStop> {
        let parent = Parent::of(call.attempt);
        let find = || retry_while_unavailable(|| self.children.find(&parent, call.item));
        let mut state = find().await?;
        if state.is_none() && budget.makes_calls() {
            budget.admit(call.key, &cost_of_tool_call()).await?;
            if let Some(refusal) = self.start(&parent, call).await? {
                return Ok(Some(Err(refusal)));
            }
            state = find().await?;
        }
        let Some(state) = state else { return Ok(None) };
        Ok(Some(match state {
            ChildState::Active => return Err(CallStop::Waits(Wait { on: WaitingFor::Child, until: None })),
            ChildState::Succeeded(output) => {
                let result = json!({ "run_id": parent.child(call.item), "output": output });
                let checked = check_value(&result).map_err(|limit| {
                    let message = format!("the output of run {} {limit}", parent.child(call.item));
                    NodeFailure::permanent(limit.kind(ValueRole::Output), message)
                });
                checked.map(|()| result)
            }
            ChildState::Unsuccessful(child) => Err(failure_of(&child)),
        }))
    }

    /// Starts the run of a call; the refusal if the caller asked for what cannot be.
    async fn start(
        &self,
        parent: &Parent,
        call: &PipelineCall<'_>,
    ) -> Result<Option<NodeFailure>, NodeFailure> {
        let child = match child_of(parent, call) {
            Ok(child) => child,
            Err(refusal) => return Ok(Some(refusal)),
        };
        loop {
            // Only a store that is away is asked again; any other refusal is the answer.
            let started = retry_while_unavailable(async || match self.pipelines.start(child.clone()).await {
                Err(StartPipelineError::Unavailable(cause)) => Err(StoreError::Unavailable(cause)),
                answered => Ok(answered),
            });
            return match started.await? {
                Ok(()) => Ok(None),
                // It was cancelled, and ends soon.
                Err(StartPipelineError::EarlierActive) => {
                    tokio::time::sleep(EARLIER_CHILDREN_PAUSE).await;
                    continue;
                }
                Err(
                    refusal @ (StartPipelineError::Missing(_)
                    | StartPipelineError::Disabled(_)
                    | StartPipelineError::InvalidInput(..)
                    | StartPipelineError::TooDeep),
                ) => Ok(Some(refusal.into())),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Ends the runs of the attempt that failed before this one. A node that calls the tool begins with this.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn end_earlier_round(&self, attempt: &Attempt) -> Result<(), NodeFailure> {
        end_earlier_round(&*self.children, attempt).await
    }

    /// Requests the end of the runs that the attempt started and that have not ended.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn cancel(&self, attempt: &Attempt) -> Result<(), NodeFailure> {
        let parent = Parent::of(attempt);
        retry_while_unavailable(|| self.children.cancel(&parent)).await
    }

    /// Ends an attempt whose time passed while it waited for its runs.
    pub(crate) async fn give_up(&self, attempt: &Attempt) -> NodeFailure {
        match self.cancel(attempt).await {
            Ok(()) => {
                NodeFailure::retryable(FailureKind::TimedOut, "the pipelines that it runs took too long")
            }
            Err(failure) => failure,
        }
    }
}

fn child_of(parent: &Parent, call: &PipelineCall<'_>) -> Result<ChildPipeline, NodeFailure> {
    let id = call.params["pipeline_id"].as_str().unwrap_or_default();
    let pipeline: PipelineId = id.parse().map_err(|error| {
        NodeFailure::permanent(FailureKind::InvalidParameters, format!("/pipeline_id: {error}"))
    })?;
    let input = match &call.params["input"] {
        Value::Null => json!({}),
        input => input.clone(),
    };
    check_value(&input)
        .map_err(|limit| NodeFailure::permanent(limit.kind(ValueRole::Input), format!("/input {limit}")))?;
    Ok(ChildPipeline {
        project: call.attempt.project,
        parent: parent.clone(),
        item: call.item,
        kind: ChildKind::Awaited,
        pipeline,
        input,
        earlier_runs: call.attempt.earlier_runs.clone(),
        now: call.attempt.now,
    })
}

/// Why a run that did not succeed gives no result: in words, and as a failure of the node that called.
fn failure_of(child: &Unsuccessful) -> NodeFailure {
    let why = child.error.as_ref().map_or("no reason is recorded", |error| error.message.as_str());
    let message = format!("run {} {}: {why}", child.run, child.state.as_clause());
    let details = child.error.as_ref().and_then(|error| error.details.clone()).map(Box::new);
    let failure = if child.state == RunState::Cancelled {
        NodeFailure::permanent(FailureKind::ChildCancelled, message)
    } else {
        NodeFailure::retryable(FailureKind::ChildFailed, message)
    };
    NodeFailure { details, ..failure }
}

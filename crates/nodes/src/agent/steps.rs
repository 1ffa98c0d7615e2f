//! The steps of an agent as effects of its node.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use gathering_agents::{
    ChatModel, ChatReply, ChatRequest, ModelError, StepKey, StepRunner, ToolCall, ToolResult, Usage,
};
use gathering_dag_engine::{ActFailed, Attempt, EffectClass, NodeFailure, Wait};
use gathering_domain::{Amounts, FailureKind, Resource, WaitingFor, with_causes};
use gathering_tools::{ToolContext, Toolbox};
use serde_json::{Value, json};

use crate::budget::{CallBudget, CallStop, cost_of_model_call, cost_of_tool_call};
use crate::failure::act_failed;
use crate::people::People;
use crate::run_pipeline::{PipelineCall, PipelineRuns, RUN_PIPELINE};
use crate::secrets::AttemptSecrets;

/// More calls than one reply can have: an agent makes 10,000 at most.
const CALLS_PER_REPLY: u32 = 10_001;

/// Makes each step once per run: a step that the journal holds costs nothing and is not repeated.
pub(super) struct RecordedSteps<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) budget: &'a CallBudget<'a>,
    pub(super) model: Arc<dyn ChatModel>,
    pub(super) tools: Toolbox,
    pub(super) context: ToolContext,
    pub(super) secrets: &'a AttemptSecrets,
    pub(super) people: &'a People,
    /// Starts pipelines, if the agent may.
    pub(super) pipelines: Option<PipelineRuns>,
    pub(super) waits: Waits,
}

/// What the calls of one reply wait for: they are made side by side, and the node waits once.
#[derive(Default)]
pub(super) struct Waits(Mutex<Option<Wait>>);

impl Waits {
    /// Notes what a call waits for. A node with a child run waits for that, whatever else it waits for: the end of its own run
    /// then ends the child run.
    fn note(&self, wait: Wait) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *noted = Some(noted.map_or(wait, |other| Wait {
            on: if other.on == WaitingFor::Child { other.on } else { wait.on },
            until: [other.until, wait.until].into_iter().flatten().min(),
        }));
    }

    /// What the node waits for, for a conversation that stopped like this.
    pub(super) fn all_of(&self, stopped: CallStop) -> CallStop {
        match (stopped, *self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            (CallStop::Waits(_), Some(wait)) => CallStop::Waits(wait),
            (stopped, _) => stopped,
        }
    }
}

impl RecordedSteps<'_> {
    /// Calls a tool of the toolbox.
    ///
    /// The model gets an unknown tool, bad parameters or a failure as the result, so that it can react. It does not get a
    /// message whose delivery is unknown: it could send it again, as another one.
    async fn call_toolbox(&self, key: &StepKey, call: &ToolCall, request: &Value) -> Result<Value, CallStop> {
        let class = self.tools.class_of(&call.name, &call.arguments).unwrap_or(EffectClass::Pure);
        let context = self.context.clone();
        let mut context = self.people.of_call(context, self.attempt, &call.name, self.secrets);
        context.idempotency_key =
            Some(format!("{}/{key}", self.budget.idempotency_key(key.as_str(), request)));
        let act = |_| async move {
            let redact = |result: &mut Value| self.secrets.redact(result);
            let arguments = call.arguments.clone();
            let called = self.tools.call_and_edit(&call.name, arguments, &context, redact).await;
            if let Err(error) = &called
                && error.is_unknown_delivery()
            {
                return Err(act_failed(error));
            }
            Ok(to_json(&ToolResult::of(call, called))?)
        };
        let cost = cost_of_tool_call();
        let used = |result: &Value| if was_called(result) { cost.clone() } else { Amounts::new() };
        self.budget.once((key.as_str(), class, request), &cost, act, used).await
    }

    /// Calls `run_pipeline`: its result is recorded when the run has ended. Until then the call stops the conversation, so
    /// that the node holds nothing while it waits. The model gets every refusal and every failure as the result.
    async fn run_pipeline(
        &self,
        runs: &PipelineRuns,
        (key, call): (&StepKey, &ToolCall),
        request: &Value,
    ) -> Result<Value, CallStop> {
        let result = if self.budget.is_done(key.as_str(), request) {
            None
        } else if let Err(error) = self.tools.check(&call.name, &call.arguments) {
            Some(ToolResult::of(call, Err(error)))
        } else {
            let (reply, index) = key.tool_call_place().unwrap_or_default();
            let item = reply.saturating_mul(CALLS_PER_REPLY).saturating_add(index);
            let params = &call.arguments;
            let called = PipelineCall { attempt: self.attempt, key: key.as_str(), item, params };
            let ended = runs.result_of(&called, self.budget).await?;
            ended.map(|ended| match ended {
                Ok(mut result) => {
                    self.secrets.redact(&mut result);
                    ToolResult::success(self.tools.bound(result))
                }
                Err(failure) => ToolResult::failure(&failure.kind, &failure.message),
            })
        };
        // Without a result the effect is done, or this is a poll: then nothing is recorded.
        let result = result.map(|result| to_json(&result)).transpose()?.unwrap_or_default();
        let cost = cost_of_tool_call();
        let used = |result: &Value| if was_called(result) { cost.clone() } else { Amounts::new() };
        let effect = (key.as_str(), EffectClass::Idempotent, request);
        self.budget.once(effect, &cost, |_| async { Ok(result) }, used).await
    }
}

#[async_trait]
impl StepRunner for RecordedSteps<'_> {
    type Error = CallStop;

    async fn call_model(&self, key: &StepKey, request: &ChatRequest) -> Result<ChatReply, CallStop> {
        let requested = to_json(request)?;
        // A repeated model call changes nothing outside; it only costs. So its class is pure.
        let ask = |bounded: Vec<Resource>| async move {
            // A budget for tokens bounds the length of the reply.
            let request = request.clone();
            let request = if bounded.contains(&Resource::Tokens) { request.bounded() } else { request };
            Ok(to_json(&self.model.complete(&request).await.map_err(|error| model_failed(&error))?)?)
        };
        let worst = cost_of_model_call(request.worst_usage());
        let used = |reply: &Value| {
            let usage = serde_json::from_value(reply["usage"].clone()).unwrap_or_default();
            // A provider that reports no usage may have used the worst case.
            if usage == Usage::default() { worst.clone() } else { cost_of_model_call(usage) }
        };
        let reply =
            self.budget.once((key.as_str(), EffectClass::Pure, &requested), &worst, ask, used).await?;
        Ok(from_json(reply)?)
    }

    async fn call_tool(&self, key: &StepKey, call: &ToolCall) -> Result<ToolResult, CallStop> {
        let request = json!({"tool": call.name, "params": call.arguments});
        let called = match &self.pipelines {
            Some(runs) if call.name == RUN_PIPELINE => self.run_pipeline(runs, (key, call), &request).await,
            _ => self.call_toolbox(key, call, &request).await,
        };
        if let Err(CallStop::Waits(wait)) = &called {
            self.waits.note(*wait);
        }
        Ok(from_json(called?)?)
    }
}

/// Whether the tool was called: it exists, and its parameters were valid.
fn was_called(result: &Value) -> bool {
    let kind = result["content"]["error"]["kind"].as_str().unwrap_or_default();
    result["is_error"] != true
        || ![FailureKind::UnknownTool, FailureKind::InvalidParameters]
            .iter()
            .any(|other| other.as_str() == kind)
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, NodeFailure> {
    serde_json::from_value(value)
        .map_err(|error| NodeFailure::permanent(FailureKind::Internal, error.to_string()))
}

pub(super) fn to_json(value: &(impl serde::Serialize + Sync)) -> Result<Value, NodeFailure> {
    serde_json::to_value(value)
        .map_err(|error| NodeFailure::permanent(FailureKind::Internal, error.to_string()))
}

fn model_failed(error: &ModelError) -> ActFailed {
    let message = with_causes(error);
    let failure = if error.is_retryable() {
        NodeFailure::retryable(error.kind(), message)
    } else {
        NodeFailure::permanent(error.kind(), message)
    };
    let failure = failure.with_retry_after(error.retry_after());
    if error.may_have_taken_place() { failure.into() } else { ActFailed::before_it_took_place(failure) }
}

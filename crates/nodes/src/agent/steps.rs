//! The steps of an agent as effects of its node.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_agents::{
    ChatModel, ChatReply, ChatRequest, ModelError, StepKey, StepRunner, ToolCall, ToolResult, Usage,
};
use gathering_dag_engine::{ActFailed, EffectClass, NodeFailure};
use gathering_domain::{Amounts, FailureKind, Resource, with_causes};
use gathering_tools::{ToolContext, Toolbox};
use serde_json::{Value, json};

use crate::budget::{CallBudget, CallStop, cost_of_model_call, cost_of_tool_call};
use crate::failure::act_failed;
use crate::secrets::AttemptSecrets;

/// Makes each step once per run: a step that the journal holds costs nothing and is not repeated.
pub(super) struct RecordedSteps<'a> {
    pub(super) budget: &'a CallBudget<'a>,
    pub(super) model: Arc<dyn ChatModel>,
    pub(super) tools: Toolbox,
    pub(super) context: ToolContext,
    pub(super) secrets: &'a AttemptSecrets,
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

    /// The model gets an unknown tool, bad parameters or a failure as the result, so that it can react. It does not get a
    /// message whose delivery is unknown: it could send it again, as another one.
    async fn call_tool(&self, key: &StepKey, call: &ToolCall) -> Result<ToolResult, CallStop> {
        let class = self.tools.class_of(&call.name, &call.arguments).unwrap_or(EffectClass::Pure);
        let mut context = self.context.clone();
        let requested = json!({"tool": call.name, "params": call.arguments});
        context.idempotency_key =
            Some(format!("{}/{key}", self.budget.idempotency_key(key.as_str(), &requested)));
        let act = |_| async move {
            let redact = |result: &mut Value| self.secrets.redact(result);
            let arguments = call.arguments.clone();
            let called = self.tools.call_and_edit(&call.name, arguments, &context, redact).await;
            if let Err(error) = &called
                && error.is_unknown_delivery()
            {
                return Err(act_failed(error));
            }
            Ok(to_json(&ToolResult::from(called))?)
        };
        let cost = cost_of_tool_call();
        let used = |result: &Value| if was_called(result) { cost.clone() } else { Amounts::new() };
        let result = self.budget.once((key.as_str(), class, &requested), &cost, act, used).await?;
        Ok(from_json(result)?)
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

fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, NodeFailure> {
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
    if error.may_have_taken_place() { failure.into() } else { ActFailed::before_it_took_place(failure) }
}

//! `agent {agent, prompt}`: a conversation of a model and its tools about one prompt. Each step is an effect.

mod spec;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use gathering_agents::{
    AgentDefinition, AgentError, ChatModel, Conversation, Limit, Providers, ToolDescription, run_agent,
};
use gathering_dag_engine::{Attempt, BudgetLedger, NodeFailure, Outcome, PollOutcome};
use gathering_domain::FailureKind;
use gathering_tools::{ToolContext, Toolbox};
use serde_json::Value;

pub use self::spec::AgentSpec;
use self::steps::{RecordedSteps, to_json};
use crate::budget::{CallBudget, CallStop};
use crate::files::ProjectFiles;
use crate::project_tools::{NodeTools, ProjectTools, SameTools};
use crate::secrets::{AttemptSecrets, OutsideNode};

/// The provider that stands for `openai` if it is configured, else for `scripted`.
const AUTO: &str = "auto";

/// The provider that needs the name of a model.
const OPENAI: &str = "openai";

/// The provider that needs no configuration.
const SCRIPTED: &str = "scripted";

/// The executor of `agent`; the node's output is `{content, steps, usage, provider, model, finish_reason}`.
pub struct AgentNode {
    providers: Providers,
    tools: NodeTools,
    files: Arc<dyn ProjectFiles>,
    budgets: Option<Arc<dyn BudgetLedger>>,
}

impl AgentNode {
    /// An executor that calls models of `providers` and `tools` with the files of the run's project. No budget bounds its
    /// calls.
    pub fn new(providers: Providers, tools: Toolbox, files: Arc<dyn ProjectFiles>) -> Self {
        let tools = NodeTools::new(tools.clone(), Arc::new(SameTools(tools)));
        Self { providers, tools, files, budgets: None }
    }

    /// The same executor, whose agents use the tools of the run's project, too.
    #[must_use]
    pub fn with_project_tools(self, tools: Arc<dyn ProjectTools>) -> Self {
        Self { tools: self.tools.with_projects(tools), ..self }
    }

    /// The same executor with calls bounded by `budgets`.
    #[must_use]
    pub fn with_budgets(self, budgets: Arc<dyn BudgetLedger>) -> Self {
        Self { budgets: Some(budgets), ..self }
    }

    fn model_of(&self, agent: &AgentDefinition) -> Result<Arc<dyn ChatModel>, NodeFailure> {
        let name = match agent.provider.as_str() {
            AUTO if self.providers.get(OPENAI).is_ok() => OPENAI,
            AUTO => SCRIPTED,
            name => name,
        };
        if name == OPENAI && agent.model.trim().is_empty() {
            let message = "the provider `openai` needs the name of a model: set `model`";
            return Err(NodeFailure::permanent(FailureKind::ModelMissing, message));
        }
        self.providers
            .get(name)
            .map_err(|error| NodeFailure::permanent(FailureKind::Provider, error.to_string()))
    }

    /// Replays the recorded steps and makes the others, as far as `budget` grants their calls.
    async fn converse(
        &self,
        attempt: &Attempt,
        secrets: &AttemptSecrets,
        budget: &CallBudget<'_>,
    ) -> Result<Value, CallStop> {
        let agent = AgentDefinition::parse(&attempt.config["agent"]).map_err(|problems| {
            NodeFailure::permanent(FailureKind::Config, format!("`agent` is invalid: {problems}"))
        })?;
        // A value that came with the input is no secret of the model's provider.
        let mut prompt = attempt.config["prompt"].clone();
        secrets.redact(&mut prompt);
        let prompt = match prompt {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let model = self.model_of(&agent)?;
        let names = || agent.tools.iter().map(String::as_str);
        let known = self.tools.open(attempt.project, names()).await?;
        let tools =
            known.select(names()).map_err(|error| NodeFailure::permanent(error.kind(), error.to_string()))?;
        let descriptions = tools.list().map(ToolDescription::from).collect();
        let context = if agent.tools.is_empty() {
            ToolContext::new()
        } else {
            let files = self.files.open(attempt.project).await.map_err(NodeFailure::from)?;
            ToolContext::new().with_workspace(files)
        };
        let recorded = RecordedSteps { budget, model, tools, context, secrets };
        let outcome = run_agent(Conversation::new(&agent, descriptions, prompt), &recorded).await;
        Ok(to_json(&outcome.map_err(failure_of)?)?)
    }
}

#[async_trait]
impl OutsideNode for AgentNode {
    async fn execute(&self, attempt: Attempt, secrets: &AttemptSecrets) -> Result<Outcome, NodeFailure> {
        let budget = CallBudget::of(self.budgets.as_deref(), &attempt);
        let ended = self.converse(&attempt, secrets, &budget).await;
        ended.map(Outcome::Done).or_else(CallStop::into_outcome)
    }

    async fn poll(&self, attempt: Attempt, secrets: &AttemptSecrets) -> Result<PollOutcome, NodeFailure> {
        let budget = CallBudget::of(self.budgets.as_deref(), &attempt).without_calls();
        budget.poll(self.converse(&attempt, secrets, &budget).await.err())
    }
}

fn failure_of(error: AgentError<CallStop>) -> CallStop {
    let failure = match error {
        AgentError::Step { source: stopped @ CallStop::Waits { .. }, .. } => return stopped,
        AgentError::Step { key, source: CallStop::Failed(failure) } => {
            NodeFailure { message: format!("step {key}: {}", failure.message), ..failure }
        }
        AgentError::Stopped { limit, .. } => NodeFailure::permanent(kind_of(limit), error.to_string()),
        AgentError::OutOfTurn(error) => NodeFailure::permanent(FailureKind::Internal, error.to_string()),
    };
    failure.into()
}

const fn kind_of(limit: Limit) -> FailureKind {
    match limit {
        Limit::Steps => FailureKind::LimitMaxSteps,
        Limit::Tokens => FailureKind::LimitMaxTokens,
        Limit::ToolCalls => FailureKind::LimitMaxToolCalls,
        Limit::Timeout => FailureKind::LimitTimeout,
    }
}

//! `agent {agent | agent_id, prompt}`: a conversation of a model and its tools about one prompt. Each step is an effect.

mod definition;
mod spec;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use gathering_agents::{
    AgentDefinition, AgentError, ChatModel, Conversation, Limit, Providers, ToolDescription, run_agent,
};
use gathering_dag_engine::{Attempt, BudgetLedger, ChildRuns, NodeFailure, Outcome, PollOutcome};
use gathering_domain::FailureKind;
use gathering_tools::{ToolContext, Toolbox};
use serde_json::Value;

use self::definition::AttemptAgent;
pub use self::spec::AgentSpec;
use self::steps::{RecordedSteps, Waits, to_json};
use crate::budget::{CallBudget, CallStop};
use crate::child_pipelines::ChildPipelines;
use crate::files::ProjectFiles;
use crate::people::People;
use crate::project_tools::{NodeTools, ProjectTools, SameTools};
use crate::run_pipeline::{PipelineRuns, RUN_PIPELINE, RunPipeline};
use crate::secrets::{AttemptSecrets, OutsideNode};
use crate::stored_agents::{NoStoredAgents, StoredAgents};

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
    pipelines: Option<PipelineRuns>,
    people: People,
    stored: Arc<dyn StoredAgents>,
}

impl AgentNode {
    /// An executor that calls models of `providers` and `tools` with the files of the run's project. No budget bounds its
    /// calls.
    pub fn new(providers: Providers, tools: Toolbox, files: Arc<dyn ProjectFiles>) -> Self {
        let tools = NodeTools::new(tools.clone(), Arc::new(SameTools(tools)));
        Self {
            providers,
            tools,
            files,
            budgets: None,
            pipelines: None,
            people: People::default(),
            stored: Arc::new(NoStoredAgents),
        }
    }

    /// The same executor, which knows the stored agents of the run's project.
    #[must_use]
    pub fn with_stored_agents(self, stored: Arc<dyn StoredAgents>) -> Self {
        Self { stored, ..self }
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

    /// The same executor, whose agents may start pipelines with `run_pipeline`, if it is one of their tools.
    #[must_use]
    pub fn with_pipelines(self, pipelines: Arc<dyn ChildPipelines>, children: Arc<dyn ChildRuns>) -> Self {
        Self { pipelines: Some(PipelineRuns::new(pipelines, children)), ..self }
    }

    /// The same executor, whose tools tell these people what they do and ask them what they want to know.
    #[must_use]
    pub fn with_people(self, people: People) -> Self {
        Self { people, ..self }
    }

    /// Starts pipelines for this agent, if it may.
    fn pipelines_of(&self, agent: &AgentDefinition) -> Option<&PipelineRuns> {
        self.pipelines.as_ref().filter(|_| agent.tools.iter().any(|tool| tool == RUN_PIPELINE))
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
        (attempt, known): (&Attempt, &AttemptAgent),
        secrets: &AttemptSecrets,
        budget: &CallBudget<'_>,
    ) -> Result<Value, CallStop> {
        let agent = &known.definition;
        // A value that came with the input is no secret of the model's provider.
        let mut prompt = attempt.config["prompt"].clone();
        secrets.redact(&mut prompt);
        let prompt = match prompt {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let model = self.model_of(agent)?;
        let names = || agent.tools.iter().map(String::as_str);
        let tools = self.tools.open(attempt.project, names()).await?;
        let tools = select_tools(&tools, agent)?;
        let descriptions = tools.list().map(ToolDescription::from).collect();
        let mut context = ToolContext::new();
        if agent.tools.iter().any(|name| tools.uses_files(name)) {
            context.workspace = Some(self.files.open(attempt.project).await.map_err(NodeFailure::from)?);
        }
        let (pipelines, people) = (self.pipelines_of(agent).cloned(), &self.people);
        let waits = Waits::default();
        let recorded =
            RecordedSteps { attempt, budget, model, tools, context, secrets, people, pipelines, waits };
        let outcome = run_agent(Conversation::new(agent, descriptions, prompt), &recorded).await;
        let outcome = outcome.map_err(|error| recorded.waits.all_of(failure_of(error)))?;
        Ok(known.output(to_json(&outcome)?))
    }
}

#[async_trait]
impl OutsideNode for AgentNode {
    async fn execute(&self, attempt: Attempt, secrets: &AttemptSecrets) -> Result<Outcome, NodeFailure> {
        let budget = CallBudget::of(self.budgets.as_deref(), &attempt);
        let agent = AttemptAgent::of(&attempt, &*self.stored).await?;
        let Some(pipelines) = self.pipelines_of(&agent.definition) else {
            let ended = self.converse((&attempt, &agent), secrets, &budget).await;
            return ended.map(Outcome::Done).or_else(CallStop::into_outcome);
        };
        if attempt.is_overdue {
            return Err(pipelines.give_up(&attempt).await);
        }
        pipelines.end_earlier_round(&attempt).await?;
        let ended = self.converse((&attempt, &agent), secrets, &budget).await;
        // A failure leaves no run behind. An interrupted attempt has not failed: it is repeated and finds its runs.
        if let Err(CallStop::Failed(failure)) = &ended
            && failure.kind != FailureKind::Interrupted
        {
            pipelines.cancel(&attempt).await?;
        }
        ended.map(Outcome::Done).or_else(CallStop::into_outcome)
    }

    async fn poll(&self, attempt: Attempt, secrets: &AttemptSecrets) -> Result<PollOutcome, NodeFailure> {
        let budget = CallBudget::of(self.budgets.as_deref(), &attempt).without_calls();
        let agent = AttemptAgent::of(&attempt, &*self.stored).await?;
        budget.poll(self.converse((&attempt, &agent), secrets, &budget).await.err())
    }
}

/// The tools of an agent; `run_pipeline` is limited to its pipelines.
fn select_tools(known: &Toolbox, agent: &AgentDefinition) -> Result<Toolbox, NodeFailure> {
    let limited = agent.pipelines.as_ref().filter(|_| known.get(RUN_PIPELINE).is_some());
    let is_limited = |name: &&str| limited.is_some() && *name == RUN_PIPELINE;
    let names = agent.tools.iter().map(String::as_str);
    let selected = known.select(names.clone().filter(|name| !is_limited(name)));
    let mut tools = selected.map_err(|error| NodeFailure::permanent(error.kind(), error.to_string()))?;
    if let Some(pipelines) = limited
        && names.clone().any(|name| is_limited(&name))
    {
        let added = tools.register(RunPipeline::limited_to(pipelines));
        added.map_err(|error| NodeFailure::permanent(FailureKind::Internal, error.to_string()))?;
    }
    Ok(tools)
}

fn failure_of(error: AgentError<CallStop>) -> CallStop {
    let failure = match error {
        AgentError::Step { source: stopped @ CallStop::Waits(_), .. } => return stopped,
        AgentError::Step { key, source: CallStop::Failed(failure) } => {
            NodeFailure { message: format!("step {key}: {}", failure.message), ..failure }
        }
        AgentError::InvalidAnswer { .. } => {
            NodeFailure::permanent(FailureKind::InvalidAnswer, error.to_string())
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

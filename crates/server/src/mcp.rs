//! What this server offers to MCP clients: tools to list, start, show, cancel, rerun and decide runs, which clients can
//! follow as tasks, and files and outputs as resources.
//!
//! Every call is one of `gathering-control`, with the caller's rights. Owns the names, the schemas and the words.

mod arguments;
mod pipelines;
mod resources;
mod runs;
mod tools;

pub(crate) use resources::{OUTPUT_TEMPLATE, output_of, run_of_output};
pub(crate) use runs::{LONG_WAIT, SHORT_WAIT, going_on, result_of, shown, task};

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_control::{ControlError, PipelineControl, Run, RunControl, Workspaces, right};
use gathering_domain::{InvalidId, NodeId, Pointer, Problems, RunId};
use gathering_edge::limits::Slot;
use gathering_mcp::offer::{
    Called, McpOffer, OfferError, OfferedCall, OfferedResult, OfferedTask, OfferedToolPage, ResourceContent,
    ResourceTemplate, TaskAnswer,
};
use gathering_persistence::Runs;

use crate::http::RunEnds;

/// The offer. One is shared by all requests.
pub(crate) struct McpDesk {
    pipelines: PipelineControl,
    runs: RunControl,
    all_runs: Runs,
    ends: RunEnds,
    workspaces: Workspaces,
    tools: Vec<tools::DeskTool>,
}

impl McpDesk {
    /// An offer of these runs and files.
    ///
    /// # Errors
    /// If the schema of a tool is invalid, which is a bug.
    pub(crate) fn new(
        (pipelines, runs): (PipelineControl, RunControl),
        (all_runs, ends): (Runs, RunEnds),
        workspaces: Workspaces,
    ) -> anyhow::Result<Self> {
        Ok(Self { pipelines, runs, all_runs, ends, workspaces, tools: tools::all()? })
    }

    /// A place to wait for the end of a run.
    fn slot(&self, caller: &Caller) -> Result<Slot, OfferError> {
        self.ends.take_slot(caller.user).map_err(|full| OfferError::Unavailable(full.to_string()))
    }

    async fn run(&self, caller: &Caller, task: &str) -> Result<Run, OfferError> {
        let absent = |_: InvalidId| OfferError::NotFound(format!("there is no task `{task:.64}`"));
        let id: RunId = task.parse().map_err(absent)?;
        Ok(self.runs.find::<right::Read>(caller, id).await.map_err(refused)?.into_thing())
    }
}

#[async_trait]
impl McpOffer for McpDesk {
    type Caller = Caller;

    fn instructions(&self) -> Option<String> {
        Some(
            "GatheRing runs pipelines durably: a run that was started ends, whatever crashes. Find a pipeline with \
             list_pipelines, start it with start_run, and see with get_run what became of it."
                .to_owned(),
        )
    }

    async fn list_tools(
        &self,
        caller: &Caller,
        _cursor: Option<&str>,
    ) -> Result<OfferedToolPage, OfferError> {
        let of_pipelines =
            self.pipeline_tools(caller).await.map_err(refused)?.into_iter().map(pipelines::offered);
        let tools = self.tools.iter().map(|tool| tool.offered.clone()).chain(of_pipelines).collect();
        Ok(OfferedToolPage { tools, next_cursor: None })
    }

    async fn call_tool(&self, caller: &Caller, call: OfferedCall) -> Result<Called, OfferError> {
        // Before anything is started that the request waits for.
        let slot = self.slot(caller)?;
        let known = self.tools.iter().find(|tool| tool.offered.name == call.tool);
        let called = match known {
            Some(tool) => {
                tool.schema.check(&call.arguments).map_err(OfferError::Invalid)?;
                self.act(tool.action, caller, &slot, call).await
            }
            None => {
                let unknown = OfferError::NotFound(format!("Unknown tool: {:.64}", call.tool));
                self.call_pipeline(caller, &slot, call).await.map_err(refused)?.ok_or(unknown).map(Ok)?
            }
        };
        match called {
            // The tool is there; what its arguments name is not.
            Err(ControlError::NotFound) => {
                Ok(Called::Ended(OfferedResult::failed(ControlError::NotFound.to_string())))
            }
            called => called.map_err(refused),
        }
    }

    async fn find_task(&self, caller: &Caller, task: &str) -> Result<OfferedTask, OfferError> {
        let run = self.run(caller, task).await?;
        self.task_of(caller, &run).await.map_err(refused)
    }

    async fn wait_for_task(&self, caller: &Caller, task: &str) -> Result<OfferedTask, OfferError> {
        let run = self.run(caller, task).await?;
        let slot = self.slot(caller)?;
        let ended = self.ends.wait(&slot, &run, runs::LONG_WAIT).await;
        let ended = ended.map_err(|error| refused(error.into()))?;
        self.task_of(caller, &ended.unwrap_or(run)).await.map_err(refused)
    }

    async fn cancel_task(&self, caller: &Caller, task: &str) -> Result<OfferedTask, OfferError> {
        let run = self.run(caller, task).await?;
        match self.runs.cancel(caller, run.id).await {
            Ok(_) | Err(ControlError::Conflict(_)) => self.find_task(caller, task).await,
            Err(error) => Err(refused(error)),
        }
    }

    async fn answer_task(
        &self,
        caller: &Caller,
        task: &str,
        answers: Vec<TaskAnswer>,
    ) -> Result<OfferedTask, OfferError> {
        let run = self.run(caller, task).await?;
        check_comments(&answers).map_err(OfferError::Invalid)?;
        for TaskAnswer { key, approve, comment } in answers {
            let absent = |_: InvalidId| OfferError::NotFound(format!("there is no question `{key:.64}`"));
            let node: NodeId = key.parse().map_err(absent)?;
            let decide = gathering_control::Decide { approve, comment };
            self.runs.decide(caller, run.id, &node, decide).await.map_err(refused)?;
        }
        self.find_task(caller, task).await
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        resources::TEMPLATES.to_vec()
    }

    async fn read_resource(&self, caller: &Caller, uri: &str) -> Result<ResourceContent, OfferError> {
        self.read(caller, uri).await
    }
}

/// Before anything is decided.
fn check_comments(answers: &[TaskAnswer]) -> Result<(), Problems> {
    let mut problems = Problems::new();
    let wrong = |answer: &&TaskAnswer| !answer.comment.as_deref().is_none_or(arguments::is_comment);
    for answer in answers.iter().filter(wrong) {
        let at =
            Pointer::root().join("inputResponses").join(answer.key.as_str()).join("content").join("comment");
        problems.add(at, format!("may have at most {} characters, and no NUL", arguments::MAX_COMMENT));
    }
    problems.into_result()
}

/// The table from the errors of control to those of an offer.
pub(crate) fn refused(error: ControlError) -> OfferError {
    match error {
        ControlError::NotFound => OfferError::NotFound(error.to_string()),
        ControlError::Forbidden | ControlError::NotApprover | ControlError::Revoked => {
            OfferError::Forbidden(error.to_string())
        }
        ControlError::Invalid(problems) => OfferError::Invalid(problems),
        ControlError::Conflict(_)
        | ControlError::Outdated
        | ControlError::PipelineChanged(_)
        | ControlError::AgentChanged(_) => OfferError::Conflict(error.to_string()),
        ControlError::Unavailable(_) | ControlError::TimedOut(_) => {
            OfferError::Unavailable("database unavailable; the request may have taken effect".to_owned())
        }
        other => OfferError::Internal(other.into()),
    }
}

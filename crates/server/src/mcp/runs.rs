//! The calls of the tools, and runs as their results and as tasks.

use std::time::Duration;

use gathering_auth::Caller;
use gathering_control::{self as control, ControlError, NodeRuns, Pipeline, Run, visible_to};
use gathering_dag_engine::NodeState;
use gathering_domain::{NodeId, RunState, WaitingFor};
use gathering_edge::limits::Slot;
use gathering_mcp::offer::{Called, OfferedCall, OfferedResult, OfferedTask, TaskQuestion, TaskState};
use gathering_persistence::RunFilter;
use serde_json::{Map, Value, json};

use super::tools::DeskAction;
use super::{McpDesk, arguments};

/// How long a request waits for a run before it becomes a task, and where it cannot become one.
pub(crate) const SHORT_WAIT: Duration = Duration::from_secs(2);
pub(crate) const LONG_WAIT: Duration = Duration::from_secs(60);

/// A larger output is not repeated in a result: it is a resource.
const MAX_OUTPUT_BYTES: usize = 256 * 1024;

const DEFAULT_LIMIT: usize = 20;

impl McpDesk {
    pub(super) async fn act(
        &self,
        action: DeskAction,
        caller: &Caller,
        slot: &Slot,
        call: OfferedCall,
    ) -> Result<Called, ControlError> {
        let OfferedCall { arguments, may_be_task, .. } = call;
        let output = match action {
            DeskAction::ListPipelines => self.list_pipelines(caller, &arguments).await?,
            DeskAction::ListRuns => self.list_runs(caller, &arguments).await?,
            DeskAction::GetRun => self.show(caller, &arguments).await?,
            DeskAction::StartRun => return self.start(caller, slot, &arguments, may_be_task).await,
            DeskAction::RerunRun => return self.rerun(caller, slot, &arguments, may_be_task).await,
            DeskAction::CancelRun => {
                let arguments::OneRun { run_id } = arguments::read(&arguments)?;
                shown(&self.runs.cancel(caller, run_id).await?)
            }
            DeskAction::DecideNode => {
                let arguments::DecideNode { run_id, node_id, approve, comment } =
                    arguments::read(&arguments)?;
                let node = arguments::node(&node_id)?;
                shown(&self.runs.decide(caller, run_id, &node, control::Decide { approve, comment }).await?)
            }
        };
        Ok(Called::Ended(OfferedResult::of(output)))
    }

    async fn list_pipelines(&self, caller: &Caller, arguments: &Value) -> Result<Value, ControlError> {
        let arguments::ListPipelines { project_id, limit } = arguments::read(arguments)?;
        let found = self.pipelines.list(caller, project_id, None, limit.unwrap_or(DEFAULT_LIMIT)).await?;
        let pipelines: Vec<Value> = found.iter().map(shown_pipeline).collect();
        Ok(json!({ "pipelines": pipelines }))
    }

    async fn list_runs(&self, caller: &Caller, arguments: &Value) -> Result<Value, ControlError> {
        let arguments::ListRuns { state, pipeline_id, project_id, limit } = arguments::read(arguments)?;
        let filter = RunFilter {
            visible_to: visible_to(caller)?,
            project: project_id,
            pipeline: pipeline_id,
            state: arguments::state(state.as_deref()),
            ..RunFilter::default()
        };
        let found = self.all_runs.list(&filter, limit.unwrap_or(DEFAULT_LIMIT)).await?;
        let runs: Vec<Value> = found.iter().map(without_output).collect();
        Ok(json!({ "runs": runs }))
    }

    async fn show(&self, caller: &Caller, arguments: &Value) -> Result<Value, ControlError> {
        let arguments::OneRun { run_id } = arguments::read(arguments)?;
        let control::RunDetails { run, graph, mut nodes, .. } = self.runs.show(caller, run_id).await?;
        let mut all = shown(&run);
        let states: Map<String, Value> = graph
            .nodes
            .iter()
            .map(|(id, _)| (id.clone(), json!(state_of(&mut nodes, id).as_str())))
            .collect();
        all["nodes"] = Value::Object(states);
        Ok(all)
    }

    async fn start(
        &self,
        caller: &Caller,
        slot: &Slot,
        given: &Value,
        may_be_task: bool,
    ) -> Result<Called, ControlError> {
        let arguments::StartRun { pipeline_id, input, version, idempotency_key } = arguments::read(given)?;
        let once = arguments::once(idempotency_key.as_deref(), given)?;
        let input = arguments::input("input", input.unwrap_or_else(|| json!({})))?;
        let start = control::StartRun { input, version, once, ..control::StartRun::default() };
        let run = self.runs.start(caller, pipeline_id, start).await?;
        self.follow(caller, slot, run, may_be_task).await
    }

    async fn rerun(
        &self,
        caller: &Caller,
        slot: &Slot,
        given: &Value,
        may_be_task: bool,
    ) -> Result<Called, ControlError> {
        let arguments::RerunRun { run_id, from, input, idempotency_key } = arguments::read(given)?;
        let once = arguments::once(idempotency_key.as_deref(), given)?;
        let from = arguments::from(from.as_deref())?;
        let input = input.map(|input| arguments::input("input", input)).transpose()?;
        let rerun = control::Rerun { from, input, version: None, once };
        let run = self.runs.rerun(caller, run_id, rerun).await?.run;
        self.follow(caller, slot, run, may_be_task).await
    }

    /// Waits for the end of a run that was started; if it takes longer, the call becomes a task, or says so.
    pub(super) async fn follow(
        &self,
        caller: &Caller,
        slot: &Slot,
        run: Run,
        may_be_task: bool,
    ) -> Result<Called, ControlError> {
        let wait = if may_be_task { SHORT_WAIT } else { LONG_WAIT };
        // If the store fails now, the run goes on all the same.
        let ended = self.ends.wait(slot, &run, wait).await.ok().flatten();
        match ended {
            Some(ended) => Ok(Called::Ended(result_of(&ended))),
            None if may_be_task => Ok(Called::Task(self.task_of(caller, &run).await?)),
            None => Ok(Called::Ended(OfferedResult::of(going_on(&run)))),
        }
    }

    /// A run as a task.
    pub(super) async fn task_of(&self, caller: &Caller, run: &Run) -> Result<OfferedTask, ControlError> {
        let state = match run.state {
            RunState::Cancelled => TaskState::Cancelled,
            state if state.is_terminal() => TaskState::Ended(result_of(run)),
            _ if run.waiting_for == Some(WaitingFor::Approval) => {
                TaskState::InputRequired(self.questions(caller, run).await?)
            }
            _ => TaskState::Working,
        };
        Ok(task(run, state))
    }

    /// What the nodes of a run wait to be told.
    async fn questions(&self, caller: &Caller, run: &Run) -> Result<Vec<TaskQuestion>, ControlError> {
        let control::RunDetails { graph, mut nodes, .. } = self.runs.show(caller, run.id).await?;
        let approvals = graph.nodes.iter().filter(|(_, node_type)| node_type == "approval");
        let waiting = approvals.filter(|(id, _)| state_of(&mut nodes, id) == NodeState::Waiting);
        let question = |(id, _): &(String, String)| TaskQuestion {
            key: id.clone(),
            message: format!("Approve node `{id}` of run {}?", run.id),
        };
        Ok(waiting.map(question).collect())
    }
}

fn state_of(nodes: &mut NodeRuns, id: &str) -> NodeState {
    let node = id.parse::<NodeId>().ok().and_then(|id| nodes.take(&id));
    node.map_or(NodeState::Pending, |node| node.state)
}

fn shown_pipeline(pipeline: &Pipeline) -> Value {
    json!({
        "pipeline_id": pipeline.id,
        "name": pipeline.name,
        "description": pipeline.description,
        "project_id": pipeline.project,
        "version": pipeline.version,
        "enabled": pipeline.enabled,
    })
}

fn without_output(run: &Run) -> Value {
    json!({
        "run_id": run.id,
        "state": run.state.as_str(),
        "waiting_for": run.waiting_for.map(WaitingFor::as_str),
        "pipeline_id": run.pipeline.map(|(id, _)| id),
        "created_at": run.created_at,
        "ended_at": run.ended_at,
    })
}

/// A run with its output or its error.
pub(crate) fn shown(run: &Run) -> Value {
    let mut shown = without_output(run);
    match &run.output {
        Some(output) if output.to_string().len() > MAX_OUTPUT_BYTES => {
            shown["output_uri"] = json!(super::resources::uri_of_output(run.id));
        }
        Some(output) => shown["output"] = output.clone(),
        None => {}
    }
    if let Some(error) = &run.error {
        shown["error"] = json!({"kind": error.kind, "message": error.message, "node_id": error.node_id});
    }
    shown
}

/// A run that has lasted longer than a call may wait.
pub(crate) fn going_on(run: &Run) -> Value {
    let mut going_on = shown(run);
    going_on["note"] = json!("The run goes on: ask get_run what became of it.");
    going_on
}

/// A run in this state as a task.
pub(crate) fn task(run: &Run, state: TaskState) -> OfferedTask {
    OfferedTask {
        id: run.id.to_string(),
        state,
        message: Some(format!("run {} is {}", run.id, run.state.as_str())),
        created_at: run.created_at,
        updated_at: run.ended_at.or(run.started_at).unwrap_or(run.created_at),
    }
}

/// What a call is answered with whose run has ended.
pub(crate) fn result_of(run: &Run) -> OfferedResult {
    OfferedResult { output: shown(run), is_error: run.state != RunState::Succeeded }
}

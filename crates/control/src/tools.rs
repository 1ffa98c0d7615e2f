//! Tools as people and programs know them: listed, shown, called by themselves. A call is a run like every other.

use std::sync::Arc;
use std::time::Duration;

use gathering_auth::Caller;
use gathering_dag_engine::NodeFailure;
use gathering_domain::{KeyedBody, NodeId, Pointer, ProjectId, RunId};
use gathering_nodes::{ProjectTools, SameTools};
use gathering_tools::{ToolError, ToolSpec, Toolbox};
use serde_json::{Value, json};

use crate::access::right;
use crate::runs::{PlannedRun, Run, RunControl, StartRun, StartedBy};
use crate::{ControlError, ProjectControl};

/// A call of a tool by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct CallTool {
    /// The name of the tool.
    pub tool: String,
    /// Its parameters. They are data: an expression in them is not evaluated.
    pub params: Value,
    /// The project whose files it uses; the caller's default project if absent.
    pub project: Option<ProjectId>,
    /// How long the run may take; without a limit if absent.
    pub timeout: Option<Duration>,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

/// What may be done with tools. Cloning is cheap.
#[derive(Clone)]
pub struct ToolControl {
    projects: ProjectControl,
    runs: RunControl,
    tools: Toolbox,
    of_projects: Arc<dyn ProjectTools>,
}

impl ToolControl {
    /// These tools, whose calls are runs of `runs`.
    pub fn new(projects: ProjectControl, runs: RunControl, tools: Toolbox) -> Self {
        let of_projects = Arc::new(SameTools(tools.clone()));
        Self { projects, runs, tools, of_projects }
    }

    /// The same, where projects have more tools.
    #[must_use]
    pub fn with_project_tools(self, of_projects: Arc<dyn ProjectTools>) -> Self {
        Self { of_projects, ..self }
    }

    /// The tools of a project; those that every project has, if none is named.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`] for the project, or the store's.
    pub async fn open(&self, caller: &Caller, project: Option<ProjectId>) -> Result<Toolbox, ControlError> {
        let Some(project) = project else { return Ok(self.tools.clone()) };
        let project = self.projects.find::<right::Read>(caller, project).await?;
        Ok(self.of_projects.open(*project.thing()).await?)
    }

    /// The tool with this name, of a project or of all.
    ///
    /// # Errors
    /// [`ControlError::NotFound`]; as [`ToolControl::open`].
    pub async fn find(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        name: &str,
    ) -> Result<ToolSpec, ControlError> {
        self.open(caller, project).await?.get(name).cloned().ok_or(ControlError::NotFound)
    }

    /// Starts a run that is one call of a tool. Its output is that of the tool, and its input the parameters.
    ///
    /// Repeats: the same idempotency key and body answer the same run, whatever became of the tool since.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for the project or the tool, or [`ControlError::Forbidden`]; [`ControlError::Invalid`] with
    /// every bad parameter, below `params`: nothing was executed; [`crate::Conflict::KeyReused`]. After
    /// [`ControlError::Unavailable`] it is unknown whether the run was accepted.
    pub async fn call(&self, caller: &Caller, call: CallTool) -> Result<Run, ControlError> {
        let project = self.projects.find_or_default::<right::Run>(caller, call.project).await?;
        let CallTool { tool, params, timeout, once, .. } = call;
        let once = once.map(|body| body.about(&json!({ "tool": tool })));
        if let Some(run) = self.runs.find_repeated(&project, once.as_ref()).await? {
            return Ok(run);
        }
        let params = self.check(*project.thing(), &tool, params).await?;
        let graph = self.runs.ensure_graph(&definition(&tool)).await?;
        let by = StartedBy::Tool { user: caller.user, tool: &tool };
        let start = StartRun { input: params, ..StartRun::default() };
        let planned = PlannedRun { once, ..PlannedRun::new(by, graph, timeout, start) };
        self.runs.accept(&project, &planned).await
    }

    /// Why the call of a run failed; `None` if it did not, or ended before it was made. The caller must be allowed to read
    /// the run.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_failure(&self, run: RunId) -> Result<Option<NodeFailure>, ControlError> {
        let node: NodeId = CALL.parse().map_err(|invalid| ControlError::Broken(Box::new(invalid)))?;
        self.runs.find_failure(run, &node).await
    }

    /// Checks the parameters on a thread of its own: large ones take a while.
    async fn check(&self, project: ProjectId, tool: &str, params: Value) -> Result<Value, ControlError> {
        let tools = match self.tools.get(tool) {
            Some(_) => self.tools.clone(),
            None => self.of_projects.open(project).await?,
        };
        let tool = tool.to_owned();
        let checked = tokio::task::spawn_blocking(move || tools.check(&tool, &params).map(|()| params)).await;
        match checked.map_err(|panicked| ControlError::Broken(panicked.into()))? {
            Ok(params) => Ok(params),
            Err(ToolError::InvalidParameters(problems)) => {
                Err(ControlError::Invalid(problems.below(&Pointer::root().join("params"))))
            }
            Err(ToolError::UnknownTool { .. }) => Err(ControlError::NotFound),
            Err(other) => Err(ControlError::Broken(other.into())),
        }
    }
}

/// The only node of the run of a call.
const CALL: &str = "call";

/// The definition of every call of a tool: the same for all parameters, so that it is stored once.
fn definition(tool: &str) -> Value {
    json!({
        "nodes": [{"id": CALL, "type": "tool", "config": {"tool": tool, "params": "${{ input }}"}}],
        "output": format!("nodes.{CALL}.output"),
    })
}

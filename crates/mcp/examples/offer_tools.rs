//! Offers the built-in tools of GatheRing to an MCP client on standard input and output, in the files of one directory:
//! `offer_tools DIRECTORY`.

use std::path::Path;

use async_trait::async_trait;
use gathering_mcp::PipeStop;
use gathering_mcp::offer::{
    Called, McpOffer, OfferError, OfferedCall, OfferedResult, OfferedTask, OfferedTool, OfferedToolPage,
    ResourceContent, ResourceTemplate, TaskAnswer, serve_lines,
};
use gathering_tools::{
    BlockingPool, Outbound, OutboundPolicy, ToolContext, ToolError, Toolbox, Workspace, WorkspaceError,
};

/// The files of one directory, and the tools for them.
struct Files {
    tools: Toolbox,
    workspace: Workspace,
}

const FILE: &str = "file:///";

fn no_tasks<T>() -> Result<T, OfferError> {
    Err(OfferError::NotFound("no call becomes a task here".to_owned()))
}

#[async_trait]
impl McpOffer for Files {
    type Caller = ();

    fn instructions(&self) -> Option<String> {
        Some("Paths are relative to the directory that is offered.".to_owned())
    }

    async fn list_tools(&self, _caller: &(), _cursor: Option<&str>) -> Result<OfferedToolPage, OfferError> {
        let offered = |spec: &gathering_tools::ToolSpec| OfferedTool {
            name: spec.name.clone(),
            title: None,
            description: spec.description.clone(),
            input_schema: spec.parameters.clone(),
            class: spec.class,
            may_be_task: false,
        };
        Ok(OfferedToolPage { tools: self.tools.list().map(offered).collect(), next_cursor: None })
    }

    async fn call_tool(&self, _caller: &(), call: OfferedCall) -> Result<Called, OfferError> {
        let context = ToolContext::new().with_workspace(self.workspace.clone());
        match self.tools.call(&call.tool, call.arguments, &context).await {
            Ok(output) => Ok(Called::Ended(OfferedResult::of(output))),
            Err(error @ ToolError::UnknownTool { .. }) => Err(OfferError::NotFound(error.to_string())),
            Err(ToolError::InvalidParameters(problems)) => Err(OfferError::Invalid(problems)),
            Err(error) => Ok(Called::Ended(OfferedResult::failed(error.to_string()))),
        }
    }

    async fn find_task(&self, _caller: &(), _task: &str) -> Result<OfferedTask, OfferError> {
        no_tasks()
    }

    async fn wait_for_task(&self, _caller: &(), _task: &str) -> Result<OfferedTask, OfferError> {
        no_tasks()
    }

    async fn cancel_task(&self, _caller: &(), _task: &str) -> Result<OfferedTask, OfferError> {
        no_tasks()
    }

    async fn answer_task(
        &self,
        _caller: &(),
        _task: &str,
        _answers: Vec<TaskAnswer>,
    ) -> Result<OfferedTask, OfferError> {
        no_tasks()
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        vec![ResourceTemplate {
            uri_template: "file:///{+path}",
            name: "file",
            description: "A file of the directory",
            mime_type: None,
        }]
    }

    async fn read_resource(&self, _caller: &(), uri: &str) -> Result<ResourceContent, OfferError> {
        let absent = || OfferError::NotFound(format!("there is no `{uri}`"));
        let path = uri.strip_prefix(FILE).ok_or_else(absent)?;
        let path = path.parse().map_err(|error: WorkspaceError| OfferError::Forbidden(error.to_string()))?;
        let read = self.workspace.read(&path, 1 << 20).await;
        let content = read.map_err(|error| OfferError::NotFound(error.to_string()))?;
        Ok(ResourceContent { mime_type: "text/plain".to_owned(), bytes: content.bytes.to_vec() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: offer_tools DIRECTORY")?;
    let pool = BlockingPool::new(8);
    let outbound = Outbound::new(OutboundPolicy::public_only())?;
    let tools = Toolbox::with_builtin(&outbound, pool.clone())?;
    let workspace = Workspace::open(Path::new(&directory), pool).await?;
    let offer = Files { tools, workspace };
    Ok(serve_lines(&offer, &(), tokio::io::stdin(), tokio::io::stdout(), &PipeStop::default()).await?)
}

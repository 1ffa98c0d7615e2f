//! The tools that the nodes of a project may call: those of this program, and those of MCP servers mounted in the project.
//!
//! Owns which of the two a name stands for. Never knows how a server is reached or who mounted it.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_agents::Providers;
use gathering_dag_engine::{NodeFailure, NodeSpecs, StoreError, retry_while_unavailable};
use gathering_domain::{FailureKind, McpServerName, ProjectId};
use gathering_tools::Toolbox;

use crate::agent::AgentSpec;
use crate::tool::ToolNodeSpec;

/// Where the tools of projects are.
#[async_trait]
pub trait ProjectTools: Send + Sync + 'static {
    /// The tools of a project at this moment: those of this program, and those of its mounted servers that may be called.
    /// It connects to no server: that is for the first call.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn open(&self, project: ProjectId) -> Result<Toolbox, StoreError>;
}

/// Projects that all have the same tools.
#[derive(Debug, Clone)]
pub struct SameTools(pub Toolbox);

#[async_trait]
impl ProjectTools for SameTools {
    async fn open(&self, _project: ProjectId) -> Result<Toolbox, StoreError> {
        Ok(self.0.clone())
    }
}

/// The tools for the nodes of any project.
#[derive(Clone)]
pub(crate) struct NodeTools {
    own: Toolbox,
    of_projects: Arc<dyn ProjectTools>,
}

impl NodeTools {
    pub(crate) fn new(own: Toolbox, of_projects: Arc<dyn ProjectTools>) -> Self {
        Self { own, of_projects }
    }

    /// The same, where the tools of projects come from elsewhere.
    pub(crate) fn with_projects(self, of_projects: Arc<dyn ProjectTools>) -> Self {
        Self { of_projects, ..self }
    }

    /// A toolbox with the tools of these names. The project is asked only where this program has not got them all.
    ///
    /// # Errors
    /// `unknown_tool` for the first name that could be one of a mounted server and is none; any other unknown name is
    /// left to the toolbox.
    pub(crate) async fn open(
        &self,
        project: ProjectId,
        names: impl IntoIterator<Item = &str> + Send,
    ) -> Result<Toolbox, NodeFailure> {
        let is_mounted = |name: &&str| self.own.get(name).is_none() && McpServerName::of_tool(name).is_some();
        let mounted: Vec<String> =
            names.into_iter().filter(|name| is_mounted(name)).map(str::to_owned).collect();
        if mounted.is_empty() {
            return Ok(self.own.clone());
        }
        let tools = retry_while_unavailable(|| self.of_projects.open(project)).await?;
        match mounted.iter().find(|name| tools.get(name).is_none()) {
            None => Ok(tools),
            Some(missing) => Err(NodeFailure::permanent(FailureKind::UnknownTool, is_not_there(missing))),
        }
    }
}

/// Why the project has no such tool, for a name that could be one of a mounted server.
pub(crate) fn is_not_there(tool: &str) -> String {
    let server = McpServerName::of_tool(tool).map(String::from).unwrap_or_default();
    format!(
        "the project has no tool `{tool}`: no MCP server `{server}` is mounted in it, or the tool is not accepted, or it \
         cannot be called"
    )
}

/// The types of nodes for validation where the project is known, so that the tools of its mounted servers are, too.
#[derive(Clone)]
pub struct ProjectSpecs {
    providers: Providers,
    tools: Arc<dyn ProjectTools>,
}

impl ProjectSpecs {
    /// Types whose agents use these providers, with these tools.
    pub fn new(providers: Providers, tools: Arc<dyn ProjectTools>) -> Self {
        Self { providers, tools }
    }

    /// What agents of this project may be.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn agents_of(&self, project: ProjectId) -> Result<AgentSpec, StoreError> {
        Ok(AgentSpec::of_project(self.providers.clone(), self.tools.open(project).await?))
    }

    /// `specs`, where a tool that the project has not got is a problem.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(&self, project: ProjectId, specs: &NodeSpecs) -> Result<NodeSpecs, StoreError> {
        let tools = self.tools.open(project).await?;
        Ok(specs
            .clone()
            .with("tool", ToolNodeSpec::of_project(tools.clone()))
            .with("agent", AgentSpec::of_project(self.providers.clone(), tools)))
    }
}

#[cfg(test)]
mod tests {
    use gathering_dag_engine::Graph;
    use gathering_tools::{
        BlockingPool, Outbound, OutboundPolicy, Tool, ToolContext, ToolError, ToolSource, ToolSpec,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::node_specs;

    /// A tool of a mounted server.
    struct Mounted(ToolSpec);

    #[async_trait]
    impl Tool for Mounted {
        fn spec(&self) -> &ToolSpec {
            &self.0
        }

        async fn call(&self, params: Value, _context: &ToolContext) -> Result<Value, ToolError> {
            Ok(params)
        }
    }

    fn toolbox() -> Toolbox {
        Toolbox::with_builtin(&Outbound::new(OutboundPolicy::public_only()).unwrap(), BlockingPool::new(1))
            .unwrap()
    }

    fn mounted() -> SameTools {
        let mut tools = toolbox();
        let parameters =
            json!({"type": "object", "required": ["zone"], "properties": {"zone": {"type": "string"}}});
        tools
            .register(Mounted(ToolSpec {
                name: "time__now".to_owned(),
                description: "Tells the time".to_owned(),
                parameters,
                class: gathering_domain::EffectClass::Unsafe,
                source: ToolSource::Mcp("time".to_owned()),
            }))
            .unwrap();
        SameTools(tools)
    }

    fn problems(definition: &Value, specs: &NodeSpecs) -> Vec<String> {
        match Graph::validate(definition, specs) {
            Ok(_) => Vec::new(),
            Err(found) => found.into_iter().map(|problem| problem.to_string()).collect(),
        }
    }

    #[tokio::test]
    async fn a_mounted_tool_is_checked_where_its_project_is_known() {
        let call = |tool: &str, params: Value| {
            json!({"nodes": [{"id": "a", "type": "tool", "config": {"tool": tool, "params": params}},
                {"id": "b", "type": "agent", "config": {"prompt": "x", "agent": {"provider": "scripted", "tools": [tool]}}}]})
        };
        let providers = Providers::with_scripted();
        let everywhere = node_specs(&toolbox(), &providers);
        let here = ProjectSpecs::new(providers, Arc::new(mounted()))
            .of(ProjectId::new(), &everywhere)
            .await
            .unwrap();
        let bad = call("time__now", json!({"zone": 1}));
        assert_eq!(problems(&bad, &everywhere), [""; 0], "where the project is unknown, a run decides");
        assert_eq!(problems(&bad, &here), ["/nodes/0/config/params/zone: must be of type string"]);
        assert_eq!(problems(&call("time__now", json!({"zone": "UTC"})), &here), [""; 0]);
        let unknown = call("time__later", json!({}));
        assert_eq!(problems(&unknown, &everywhere), [""; 0]);
        let found = problems(&unknown, &here);
        assert!(found.len() == 2 && found[0].contains("no MCP server `time` is mounted"), "{found:?}");
        assert!(found[1].starts_with("/nodes/1/config/agent/tools/0: "), "{found:?}");
        assert_eq!(problems(&call("fly", json!({})), &everywhere).len(), 2, "no server has such a name");
    }

    #[tokio::test]
    async fn the_project_is_asked_only_for_tools_of_servers() {
        let tools = NodeTools::new(toolbox(), Arc::new(mounted()));
        let project = ProjectId::new();
        let own = tools.open(project, ["now", "fly"]).await.unwrap();
        assert!(own.get("now").is_some() && own.get("time__now").is_none());
        assert!(tools.open(project, ["now", "time__now"]).await.unwrap().get("time__now").is_some());
        let failure = tools.open(project, ["time__later"]).await.unwrap_err();
        assert!(failure.kind == FailureKind::UnknownTool && !failure.retryable, "{failure:?}");
    }
}

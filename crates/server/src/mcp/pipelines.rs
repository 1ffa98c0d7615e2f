//! Pipelines as tools: those whose definitions say so.

use std::collections::HashSet;

use gathering_auth::Caller;
use gathering_control::{self as control, ControlError, PipelineTool};
use gathering_domain::{EffectClass, MAX_TOOL_NAME};
use gathering_edge::limits::Slot;
use gathering_mcp::offer::{Called, OfferedCall, OfferedTool};

use super::{McpDesk, arguments};

/// How many characters of a pipeline's id tell two tools of one name apart.
const ID_DIGITS: usize = 8;

impl McpDesk {
    /// The pipelines that the caller has as tools, each under a name of its own.
    pub(super) async fn pipeline_tools(
        &self,
        caller: &Caller,
    ) -> Result<Vec<(String, PipelineTool)>, ControlError> {
        let taken = self.tools.iter().map(|tool| tool.offered.name.clone()).collect();
        Ok(named(self.pipelines.list_tools(caller).await?, taken))
    }

    /// Starts a run of the pipeline that has this name as a tool; `None` if none has.
    pub(super) async fn call_pipeline(
        &self,
        caller: &Caller,
        slot: &Slot,
        call: OfferedCall,
    ) -> Result<Option<Called>, ControlError> {
        let tools = self.pipeline_tools(caller).await?;
        let Some((_, tool)) = tools.into_iter().find(|(name, _)| *name == call.tool) else { return Ok(None) };
        let input = arguments::input("", call.arguments)?;
        let start = control::StartRun { input, ..control::StartRun::default() };
        let run = self.runs.start(caller, tool.pipeline, start).await?;
        Ok(Some(self.follow(caller, slot, run, call.may_be_task).await?))
    }
}

/// Of several tools of one name the oldest keeps it; the others end with a part of the pipeline's id. So a new pipeline
/// renames no other.
fn named(tools: Vec<PipelineTool>, mut taken: HashSet<String>) -> Vec<(String, PipelineTool)> {
    let mut named = Vec::with_capacity(tools.len());
    for tool in tools {
        let mut name = tool.offer.name.clone();
        if taken.contains(&name) {
            let id = tool.pipeline.to_string().replace('-', "");
            name.truncate(MAX_TOOL_NAME - ID_DIGITS - 1);
            name = format!("{name}_{}", &id[id.len() - ID_DIGITS..]);
        }
        if taken.insert(name.clone()) {
            named.push((name, tool));
        }
    }
    named
}

/// A pipeline as clients see it. What a run does is not known here, so a repeated call may do as much again.
pub(super) fn offered((name, tool): (String, PipelineTool)) -> OfferedTool {
    let PipelineTool { title, offer, input_schema, .. } = tool;
    let description = offer.description.unwrap_or_else(|| format!("Runs the pipeline `{title}`."));
    OfferedTool {
        name,
        title: Some(title),
        description,
        input_schema,
        class: EffectClass::Unsafe,
        may_be_task: true,
    }
}

#[cfg(test)]
mod tests {
    use gathering_domain::PipelineId;
    use serde_json::json;

    use super::*;

    fn tool(name: &str, id: &str) -> PipelineTool {
        let pipeline: PipelineId = id.parse().unwrap();
        PipelineTool::new(pipeline, "P".to_owned(), &json!({ "name": name }), None).unwrap()
    }

    #[test]
    fn every_tool_has_a_name_of_its_own_and_the_oldest_keeps_the_written_one() {
        let long = "x".repeat(64);
        let tools = vec![
            tool("sum", "0197b8a4-9ab1-7000-8000-00000000000a"),
            tool("sum", "0197b8a4-9ab1-7000-8000-00000000000b"),
            tool("get_run", "0197b8a4-9ab1-7000-8000-00000000000c"),
            tool(&long, "0197b8a4-9ab1-7000-8000-00000000000d"),
            tool(&long, "0197b8a4-9ab1-7000-8000-00000000000e"),
        ];
        let names: Vec<String> =
            named(tools, HashSet::from(["get_run".to_owned()])).into_iter().map(|(name, _)| name).collect();
        let shortened = format!("{}_0000000e", "x".repeat(55));
        assert_eq!(names, ["sum", "sum_0000000b", "get_run_0000000c", long.as_str(), shortened.as_str()]);
    }
}

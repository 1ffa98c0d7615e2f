//! The tools of pipeline files: a tool for each, and those about its runs.

use std::path::Path;

use gathering_domain::{EffectClass, MAX_TOOL_NAME, is_tool_name_character};
use gathering_mcp::offer::{OfferError, OfferedTool};
use gathering_tools::JsonSchema;
use serde_json::{Value, json};

/// What a tool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalAction {
    /// Runs the pipeline of this file.
    Run(usize),
    GetRun,
    CancelRun,
}

/// A tool.
pub(super) struct LocalTool {
    pub(super) action: LocalAction,
    pub(super) offered: OfferedTool,
    /// What the arguments must fit; those of a pipeline are checked where it starts.
    schema: Option<JsonSchema>,
}

impl LocalTool {
    /// # Errors
    /// [`OfferError::Invalid`].
    pub(super) fn check(&self, arguments: &Value) -> Result<(), OfferError> {
        let schema = self.schema.as_ref();
        schema.map_or(Ok(()), |schema| schema.check(arguments)).map_err(OfferError::Invalid)
    }
}

/// The tools of these files, each a path and a definition.
///
/// # Errors
/// In words for the operator: a name that two have, or an input that is no object.
pub(super) fn all<'a>(files: impl Iterator<Item = (&'a Path, &'a Value)>) -> Result<Vec<LocalTool>, String> {
    let mut tools = vec![about_run(LocalAction::GetRun), about_run(LocalAction::CancelRun)];
    for (index, (path, definition)) in files.enumerate() {
        let tool = of_file(index, path, definition)?;
        let name = &tool.offered.name;
        if tools.iter().any(|other| other.offered.name == *name) {
            return Err(format!(
                "{}: another tool is called `{name}`: set `tool: {{name: ...}}` in the file",
                path.display()
            ));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn of_file(index: usize, path: &Path, definition: &Value) -> Result<LocalTool, String> {
    let text = |place: &str| definition.pointer(place).and_then(Value::as_str).map(str::to_owned);
    let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let title = text("/name").unwrap_or_else(stem);
    let input_schema =
        definition.pointer("/input/schema").cloned().unwrap_or_else(|| json!({"type": "object"}));
    if input_schema["type"] != "object" {
        return Err(format!(
            "{}: /input/schema: must be of an object, as the file is a tool",
            path.display()
        ));
    }
    let description = text("/tool/description").or_else(|| text("/description"));
    let offered = OfferedTool {
        name: text("/tool/name").unwrap_or_else(|| tool_name(&title)),
        description: description.unwrap_or_else(|| format!("Runs the pipeline `{title}`.")),
        title: Some(title),
        input_schema,
        class: EffectClass::Unsafe,
        may_be_task: true,
    };
    Ok(LocalTool { action: LocalAction::Run(index), offered, schema: None })
}

/// A name as model providers accept it.
fn tool_name(title: &str) -> String {
    let accepted = |char| if is_tool_name_character(char) { char } else { '_' };
    let name: String = title.chars().take(MAX_TOOL_NAME).map(accepted).collect();
    if name.is_empty() { "pipeline".to_owned() } else { name }
}

fn about_run(action: LocalAction) -> LocalTool {
    let (name, description, class) = match action {
        LocalAction::CancelRun => {
            ("cancel_run", "Cancels a run that has not ended.", EffectClass::Idempotent)
        }
        _ => (
            "get_run",
            "Shows a run that was started here: its state, its output or error.",
            EffectClass::Pure,
        ),
    };
    let id = json!({"type": "string", "description": "The run"});
    let input_schema = json!({"type": "object", "properties": {"run_id": id}, "required": ["run_id"], "additionalProperties": false});
    let offered = OfferedTool {
        name: name.to_owned(),
        title: None,
        description: description.to_owned(),
        // An invalid schema would be a bug, and checks nothing.
        input_schema: input_schema.clone(),
        class,
        may_be_task: false,
    };
    LocalTool { action, offered, schema: JsonSchema::compile(&input_schema).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_tool_by_what_it_says_of_itself() {
        let plain = json!({"name": "fan out: 3", "description": "Fans out"});
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let said =
            json!({"name": "x", "tool": {"name": "sum", "description": "Adds"}, "input": {"schema": schema}});
        let nameless = json!({});
        let files = [("a.yaml", &plain), ("b.yaml", &said), ("dir/größe.yaml", &nameless)];
        let tools = all(files.iter().map(|(path, value)| (Path::new(*path), *value))).unwrap();
        let shown: Vec<(&str, &str)> = tools
            .iter()
            .skip(2)
            .map(|tool| (tool.offered.name.as_str(), tool.offered.description.as_str()))
            .collect();
        assert_eq!(
            shown,
            [("fan_out__3", "Fans out"), ("sum", "Adds"), ("gr__e", "Runs the pipeline `größe`.")]
        );
        assert_eq!(tools[3].offered.input_schema, schema);
        assert_eq!(tools[4].offered.input_schema, json!({"type": "object"}));
    }

    #[test]
    fn two_tools_of_one_name_are_refused_and_so_is_an_input_that_is_no_object() {
        let refused = |name: &str, value: &Value| all([(Path::new(name), value)].into_iter()).err().unwrap();
        let taken = json!({"tool": {"name": "get_run"}});
        assert!(refused("a.yaml", &taken).starts_with("a.yaml: another tool is called `get_run`"));
        let list = json!({"input": {"schema": {"type": "array"}}});
        assert!(refused("a.yaml", &list).contains("/input/schema: must be of an object"));
    }
}

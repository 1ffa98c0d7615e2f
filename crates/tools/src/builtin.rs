//! The built-in tools.

mod edit_file;
mod files;
mod http_request;
mod notification;
mod read_table;
mod run_command;
mod search_files;
mod time;

use std::sync::Arc;

use gathering_domain::{EffectClass, Pointer, Problems};
use serde_json::{Value, json};

use crate::outbound::Outbound;
use crate::pool::BlockingPool;
use crate::spec::{ToolSource, ToolSpec};
use crate::tool::ToolError;
use crate::toolbox::{RegisterToolError, Toolbox};
use crate::workspace::{FileVersion, Precondition, WorkspacePath};

pub use edit_file::EditFile;
pub use files::{ListFiles, ReadFile, WriteFile};
pub use http_request::HttpRequest;
pub use notification::{NotificationChannels, SendNotification};
pub use read_table::{ReadTable, RowFilter, RowFilters};
pub use run_command::RunCommand;
pub use search_files::SearchFiles;
pub use time::{Now, WaitSeconds};

/// What the operator has set up for the built-in tools. By default: nothing.
#[derive(Debug, Default)]
pub struct ToolSetup {
    /// The ways of `send_notification`.
    pub notifications: NotificationChannels,
    /// The language of `where` in `read_table`.
    pub row_filters: Option<Arc<dyn RowFilters>>,
    /// `run_command`, if there is such a tool.
    pub run_command: Option<RunCommand>,
}

impl Toolbox {
    /// A toolbox of the built-in tools, without anything that must be set up.
    ///
    /// # Errors
    /// [`RegisterToolError`], which tests rule out.
    pub fn with_builtin(outbound: &Outbound, pool: BlockingPool) -> Result<Self, RegisterToolError> {
        Self::with_setup(outbound, ToolSetup::default(), pool)
    }

    /// As [`Toolbox::with_builtin`], with what the operator has set up.
    ///
    /// # Errors
    /// [`RegisterToolError`], which tests rule out.
    pub fn with_setup(
        outbound: &Outbound,
        setup: ToolSetup,
        pool: BlockingPool,
    ) -> Result<Self, RegisterToolError> {
        let mut tools = Toolbox::new(pool);
        tools.register(HttpRequest::new(outbound.clone()))?;
        tools.register(ReadFile::new())?;
        tools.register(WriteFile::new())?;
        tools.register(EditFile::new())?;
        tools.register(ListFiles::new())?;
        tools.register(SearchFiles::new())?;
        tools.register(ReadTable::new(setup.row_filters))?;
        tools.register(SendNotification::new(outbound.clone(), setup.notifications))?;
        tools.register(Now::new())?;
        tools.register(WaitSeconds::new())?;
        if let Some(run_command) = setup.run_command {
            tools.register(run_command)?;
        }
        Ok(tools)
    }
}

/// The description of a built-in tool.
fn spec(name: &str, description: &str, class: EffectClass, required: &[&str], properties: Value) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: json!({
            "type": "object", "additionalProperties": false, "required": required, "properties": properties
        }),
        class,
        source: ToolSource::BuiltIn,
    }
}

fn path_schema(what: &str) -> Value {
    json!({
        "description": format!("{what}, relative to the workspace, such as `reports/2026.md`."),
        "type": "string", "maxLength": WorkspacePath::MAX_LEN
    })
}

const VERSION_HELP: &str =
    "Writes only if the file has this `version`, as `read_file` and `write_file` return it.";

/// The condition that a file has this version. The HTTP API writes versions as an `ETag`, in quotes.
fn read_version(text: &str) -> Precondition {
    Precondition::Version(vec![FileVersion::from(text.trim_matches('"').to_owned())])
}

/// A problem with the parameter of this name.
fn problem_at(name: &str, message: impl Into<String>) -> Problems {
    Problems::one(Pointer::root().join(name), message)
}

/// Reads parameters that the schema has accepted into the tool's own struct.
fn read_params<T: serde::de::DeserializeOwned>(params: Value) -> Result<T, ToolError> {
    serde_json::from_value(params)
        .map_err(|error| ToolError::InvalidParameters(Problems::one(Pointer::root(), error.to_string())))
}

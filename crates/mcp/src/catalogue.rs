//! The tools of a server at one moment, and which of them may be called.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use gathering_domain::{Digest, EffectClass};
use gathering_tools::{JsonSchema, ToolSource, ToolSpec};

use crate::config::{McpProtocol, McpServerConfig, McpTransport};
use crate::definition::ToolDefinition;
use crate::effects::class_of;
use crate::naming::mounted_name;
use crate::param_headers::ParamHeaders;
use crate::pins::{Pinned, ToolChange, ToolChanges, ToolPins};
use crate::server_info::McpServerInfo;

/// The tools of a server, as it listed them last.
#[derive(Debug, Clone)]
pub struct McpCatalogue {
    /// What the server says of itself.
    pub server: McpServerInfo,
    /// Its tools, in its order.
    pub tools: Vec<McpTool>,
    /// How they differ from the pins.
    pub changes: ToolChanges,
    /// What was wrong with the list, such as that it has no end.
    pub problems: Vec<String>,
}

/// A tool of a server.
#[derive(Debug, Clone)]
pub struct McpTool {
    /// Its name here: `server__tool`, 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What the server says of it.
    pub definition: ToolDefinition,
    /// The digest of that.
    pub digest: Digest,
    /// What repeating a call may do.
    pub class: EffectClass,
    /// Why it must not be called; `None` if it may.
    pub not_callable: Option<NotCallable>,
    pub(crate) input: Option<Arc<JsonSchema>>,
    /// Its parameters that are sent as headers.
    pub(crate) headers: Arc<ParamHeaders>,
    pub(crate) output: Option<Arc<JsonSchema>>,
}

/// Why a tool must not be called.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum NotCallable {
    /// It is not pinned.
    New,
    /// The server describes it differently from its pin.
    Changed(ToolChange),
    /// It can only be called as a task, which this client does not do.
    NeedsTask,
    /// The schema of its arguments is invalid.
    InvalidSchema {
        /// What is wrong.
        reason: String,
    },
    /// A mark of its schema that names a header is not valid (`x-mcp-header`).
    InvalidHeader {
        /// What is wrong.
        reason: String,
    },
    /// The server lists another tool of this name before it.
    Duplicate,
    /// The server describes it differently since it was mounted.
    Outdated,
}

impl fmt::Display for NotCallable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("it is new; look at its definition and accept it"),
            Self::Changed(change) => {
                write!(f, "the server has changed its {change}; look at the new definition and accept it")
            }
            Self::NeedsTask => f.write_str("it can only be called as a task, which this client does not do"),
            Self::InvalidSchema { reason } => {
                write!(f, "the schema of its arguments is not usable: {reason}")
            }
            Self::InvalidHeader { reason } => {
                write!(
                    f,
                    "its schema marks a parameter as a header in a way that is not valid (`x-mcp-header`): {reason}"
                )
            }
            Self::Outdated => {
                f.write_str("the server describes it differently since it was mounted; mount it anew")
            }
            Self::Duplicate => f.write_str("the server lists another tool of this name before it"),
        }
    }
}

impl McpCatalogue {
    /// Builds the catalogue from the server's list.
    pub(crate) fn new(
        config: &McpServerConfig,
        pins: &ToolPins,
        server: McpServerInfo,
        definitions: Vec<ToolDefinition>,
        problems: Vec<String>,
    ) -> Self {
        let mut names = BTreeSet::new();
        let mut tools = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let mut tool = McpTool::new(config, definition);
            if !names.insert(tool.name.clone()) {
                tool.not_callable = Some(NotCallable::Duplicate);
            }
            tools.push(tool);
        }
        let mut catalogue = Self { server, tools, changes: ToolChanges::default(), problems };
        catalogue.compare(pins);
        catalogue
    }

    /// The pinned tools, as if the server had just listed them: what is known of them without a connection.
    pub fn pinned(config: &McpServerConfig) -> Self {
        let definitions = match &config.pins {
            ToolPins::AcceptAll => Vec::new(),
            ToolPins::Only(pins) => pins.values().cloned().collect(),
        };
        Self::new(config, &config.pins, McpServerInfo::default(), definitions, Vec::new())
    }

    /// The catalogue with other pins.
    pub(crate) fn with_pins(&self, pins: &ToolPins) -> Self {
        let mut other = self.clone();
        for tool in &mut other.tools {
            if matches!(tool.not_callable, Some(NotCallable::New | NotCallable::Changed(_))) {
                tool.not_callable = None;
            }
        }
        other.compare(pins);
        other
    }

    /// The tool that the server calls `name`.
    pub fn find(&self, name: &str) -> Option<&McpTool> {
        self.tools.iter().find(|tool| tool.definition.name() == name)
    }

    /// The tools that may be called.
    pub fn callable(&self) -> impl Iterator<Item = &McpTool> {
        self.tools.iter().filter(|tool| tool.not_callable.is_none())
    }

    /// Pins of all tools as they are now: what a person accepts who has looked at them.
    pub fn to_pins(&self) -> ToolPins {
        let mut pins = BTreeMap::new();
        for tool in &self.tools {
            pins.entry(tool.definition.name().to_owned()).or_insert_with(|| tool.definition.clone());
        }
        ToolPins::Only(pins)
    }

    fn compare(&mut self, pins: &ToolPins) {
        let mut changes = ToolChanges::default();
        for tool in self.tools.iter_mut().filter(|tool| tool.not_callable != Some(NotCallable::Duplicate)) {
            let difference = match pins.compare(&tool.definition) {
                Pinned::Same => continue,
                Pinned::New => {
                    changes.added.push(tool.definition.name().to_owned());
                    NotCallable::New
                }
                Pinned::Changed(change) => {
                    changes.changed.push(change.clone());
                    NotCallable::Changed(change)
                }
            };
            tool.not_callable.get_or_insert(difference);
        }
        let is_removed = |name: &&str| self.find(name).is_none();
        changes.removed = pins.names().filter(is_removed).map(str::to_owned).collect();
        self.changes = changes;
    }
}

impl McpTool {
    /// The tool as a toolbox describes it; `server` is the name of the server in the settings.
    pub fn spec(&self, server: &str) -> ToolSpec {
        ToolSpec {
            name: self.name.clone(),
            description: self.definition.description().to_owned(),
            parameters: self.definition.input_schema(),
            class: self.class,
            source: ToolSource::Mcp(server.to_owned()),
        }
    }

    fn new(config: &McpServerConfig, definition: ToolDefinition) -> Self {
        let compiled = compile_input(&definition);
        let headers = param_headers(config, &definition);
        let not_callable = match (&compiled, &headers) {
            _ if definition.needs_task() => Some(NotCallable::NeedsTask),
            (Err(reason), _) => Some(NotCallable::InvalidSchema { reason: reason.clone() }),
            (_, Err(reason)) => Some(NotCallable::InvalidHeader { reason: reason.clone() }),
            (Ok(_), Ok(_)) => None,
        };
        // Without a usable schema a result is not checked: it is kept as it came.
        let output = definition.output_schema().and_then(|schema| JsonSchema::compile(schema).ok());
        Self {
            name: mounted_name(&config.name, definition.name()),
            digest: definition.digest(),
            class: class_of(&definition, &config.allowance),
            not_callable,
            input: compiled.ok().map(Arc::new),
            headers: Arc::new(headers.unwrap_or_default()),
            output: output.map(Arc::new),
            definition,
        }
    }
}

/// The marks mean something over HTTP, to a server that may speak 2026-07-28.
fn param_headers(config: &McpServerConfig, definition: &ToolDefinition) -> Result<ParamHeaders, String> {
    let are_sent =
        matches!(config.transport, McpTransport::Http(_)) && config.protocol != McpProtocol::V2025_11_25;
    if are_sent { ParamHeaders::read(&definition.input_schema()) } else { Ok(ParamHeaders::default()) }
}

fn compile_input(definition: &ToolDefinition) -> Result<JsonSchema, String> {
    let schema = definition.input_schema();
    if !schema.is_object() {
        return Err("it is not an object".to_owned());
    }
    JsonSchema::compile(&schema).map_err(|error| error.to_string())
}

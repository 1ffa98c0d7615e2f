//! A mounted server as people see it: its connection in this process, and each tool with whether it may be called.

use gathering_control::{McpMount, pins_digest};
use gathering_dag_engine::Redaction as _;
use gathering_domain::EffectClass;
use gathering_mcp::{FieldChange, McpCatalogue, McpServerInfo, McpStatus, McpTool, NotCallable, ToolPins};
use gathering_nodes::KnownSecrets;
use serde_json::Value;

/// A mounted server as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct ShownServer {
    pub(crate) mount: McpMount,
    /// `None` while it is not connected here.
    pub(crate) connection: Option<McpStatus>,
    /// What the server says of itself; `None` while it is not connected here.
    pub(crate) about: Option<McpServerInfo>,
    pub(crate) tools: Vec<ShownTool>,
    /// What was wrong with its list.
    pub(crate) problems: Vec<String>,
    /// The digest of the definitions that are shown; with it they are accepted.
    pub(crate) digest: String,
}

/// A tool of a mounted server as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct ShownTool {
    /// Its name for pipelines and agents.
    pub(crate) name: String,
    /// What the server says of it; what was accepted if the server has it no longer.
    pub(crate) definition: Value,
    pub(crate) class: EffectClass,
    pub(crate) status: ToolStatus,
    /// Why it cannot be called.
    pub(crate) reason: Option<String>,
    /// How it differs from what was accepted.
    pub(crate) changes: Vec<FieldChange>,
}

/// Whether a tool may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolStatus {
    Accepted,
    New,
    Changed,
    Removed,
    NotCallable,
}

impl ShownServer {
    /// A connected server.
    pub(super) fn connected(mount: McpMount, catalogue: &McpCatalogue) -> Self {
        let mut shown = Self::of(mount, catalogue);
        shown.connection = Some(McpStatus::Connected);
        shown.about = Some(catalogue.server.clone());
        shown
    }

    /// What is known of a server without a connection.
    pub(super) fn pinned(mount: McpMount, known: &McpCatalogue, connection: Option<McpStatus>) -> Self {
        Self { connection, ..Self::of(mount, known) }
    }

    fn of(mount: McpMount, catalogue: &McpCatalogue) -> Self {
        let digest = match catalogue.to_pins() {
            ToolPins::Only(pins) => {
                let pins = pins.into_iter().map(|(name, definition)| (name, definition.as_json().clone()));
                pins_digest(&pins.collect()).to_string()
            }
            ToolPins::AcceptAll => String::new(),
        };
        let mut tools: Vec<ShownTool> = catalogue.tools.iter().map(ShownTool::of).collect();
        let removed = catalogue.changes.removed.iter().filter_map(|name| Some((name, mount.pins.get(name)?)));
        tools.extend(removed.map(|(name, pin)| ShownTool::removed(&mount, name, pin)));
        Self { mount, connection: None, about: None, tools, problems: catalogue.problems.clone(), digest }
    }

    /// Without the values of the project's secrets, which a server may repeat.
    pub(super) fn redacted(mut self, secrets: &KnownSecrets) -> Self {
        if let Some(McpStatus::Down { reason }) = &mut self.connection {
            secrets.redact_text(reason);
        }
        if let Some(about) = &mut self.about {
            secrets.redact_text(&mut about.name);
            secrets.redact_text(&mut about.version);
        }
        for tool in &mut self.tools {
            secrets.redact(&mut tool.definition);
            tool.reason.iter_mut().for_each(|reason| secrets.redact_text(reason));
            let changes = tool.changes.iter_mut();
            for value in changes.flat_map(|change| change.old.iter_mut().chain(change.new.iter_mut())) {
                secrets.redact(value);
            }
        }
        self
    }
}

impl ShownTool {
    fn of(tool: &McpTool) -> Self {
        let (status, changes) = match &tool.not_callable {
            None => (ToolStatus::Accepted, Vec::new()),
            Some(NotCallable::New) => (ToolStatus::New, Vec::new()),
            Some(NotCallable::Changed(change)) => (ToolStatus::Changed, change.fields.clone()),
            Some(_) => (ToolStatus::NotCallable, Vec::new()),
        };
        Self {
            name: tool.name.clone(),
            definition: tool.definition.as_json().clone(),
            class: tool.class,
            status,
            reason: tool.not_callable.as_ref().map(ToString::to_string),
            changes,
        }
    }

    fn removed(mount: &McpMount, name: &str, pin: &Value) -> Self {
        Self {
            name: format!("{}__{name}", mount.name),
            definition: pin.clone(),
            class: EffectClass::Unsafe,
            status: ToolStatus::Removed,
            reason: Some("the server does not have it any more".to_owned()),
            changes: Vec::new(),
        }
    }
}

impl ToolStatus {
    /// Every status.
    pub(crate) const ALL: [Self; 5] =
        [Self::Accepted, Self::New, Self::Changed, Self::Removed, Self::NotCallable];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::New => "new",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::NotCallable => "not_callable",
        }
    }
}

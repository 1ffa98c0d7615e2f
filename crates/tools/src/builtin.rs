//! The built-in tools.

mod files;
mod http_request;
mod notification;

use crate::outbound::Outbound;
use crate::pool::BlockingPool;
use crate::toolbox::{RegisterToolError, Toolbox};

pub use files::{ListFiles, ReadFile, WriteFile};
pub use http_request::HttpRequest;
pub use notification::{NotificationChannels, SendNotification};

impl Toolbox {
    /// A toolbox of `http_request`, `read_file`, `write_file`, `list_files` and `send_notification`, without anything that
    /// only an operator can set up.
    ///
    /// # Errors
    /// [`RegisterToolError`], which tests rule out.
    pub fn with_builtin(outbound: &Outbound, pool: BlockingPool) -> Result<Self, RegisterToolError> {
        Self::with_channels(outbound, NotificationChannels::default(), pool)
    }

    /// As [`Toolbox::with_builtin`], with what the operator has set up for notifications.
    ///
    /// # Errors
    /// [`RegisterToolError`], which tests rule out.
    pub fn with_channels(
        outbound: &Outbound,
        channels: NotificationChannels,
        pool: BlockingPool,
    ) -> Result<Self, RegisterToolError> {
        let mut tools = Toolbox::new(pool);
        tools.register(HttpRequest::new(outbound.clone()))?;
        tools.register(ReadFile::new())?;
        tools.register(WriteFile::new())?;
        tools.register(ListFiles::new())?;
        tools.register(SendNotification::new(outbound.clone(), channels))?;
        Ok(tools)
    }
}

/// Reads parameters that the schema has accepted into the tool's own struct.
fn read_params<T: serde::de::DeserializeOwned>(params: serde_json::Value) -> Result<T, crate::ToolError> {
    serde_json::from_value(params).map_err(|error| {
        let root = gathering_domain::Pointer::root();
        crate::ToolError::InvalidParameters(gathering_domain::Problems::one(root, error.to_string()))
    })
}

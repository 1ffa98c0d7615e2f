//! The other direction: tools, tasks and resources that this program offers to MCP clients.
//!
//! Owns the requests of both generations of the protocol and their answers, without a session, so that any instance
//! answers any request. Never knows where a message comes from, nor what a tool does: an embedder implements
//! [`McpOffer`].

mod call;
mod error;
mod model;
mod reply;
mod request;
mod resources;
mod stdio;
mod tasks;
#[cfg(test)]
mod tests;

pub use error::OfferError;
pub use model::{
    Called, OfferedCall, OfferedResult, OfferedTask, OfferedTool, OfferedToolPage, ResourceContent,
    ResourceTemplate, TaskAnswer, TaskQuestion, TaskState,
};
pub use reply::McpReply;
pub use request::McpHeaders;
pub(crate) use request::named_parameter;
pub use stdio::serve_lines;

use async_trait::async_trait;
use serde_json::{Value, json};

use self::request::{Incoming, Request};
use crate::message::RpcError;
use crate::protocol::{LEGACY_VERSION, LEGACY_VERSIONS, MODERN_VERSION};

/// What is offered, and to whom.
#[async_trait]
pub trait McpOffer: Send + Sync {
    /// Who sends the request.
    type Caller: Send + Sync;

    /// What clients and models should know before they call anything.
    fn instructions(&self) -> Option<String> {
        None
    }

    /// A page of the tools that this caller may call: those after `cursor`, which is that of the page before.
    ///
    /// # Errors
    /// [`OfferError`].
    async fn list_tools(
        &self,
        caller: &Self::Caller,
        cursor: Option<&str>,
    ) -> Result<OfferedToolPage, OfferError>;

    /// Calls a tool.
    ///
    /// Cancel: what the call has started may go on.
    ///
    /// # Errors
    /// [`OfferError`]. What went wrong in the tool is a result.
    async fn call_tool(&self, caller: &Self::Caller, call: OfferedCall) -> Result<Called, OfferError>;

    /// What became of a task.
    ///
    /// # Errors
    /// [`OfferError::NotFound`], or another.
    async fn find_task(&self, caller: &Self::Caller, task: &str) -> Result<OfferedTask, OfferError>;

    /// Waits until a task has ended or has a question, as long as the offer sees fit, and says what became of it.
    ///
    /// # Errors
    /// As [`McpOffer::find_task`].
    async fn wait_for_task(&self, caller: &Self::Caller, task: &str) -> Result<OfferedTask, OfferError>;

    /// Cancels a task.
    ///
    /// # Errors
    /// As [`McpOffer::find_task`].
    async fn cancel_task(&self, caller: &Self::Caller, task: &str) -> Result<OfferedTask, OfferError>;

    /// Answers questions of a task.
    ///
    /// # Errors
    /// As [`McpOffer::find_task`], and [`OfferError::Invalid`] for an answer that does not fit.
    async fn answer_task(
        &self,
        caller: &Self::Caller,
        task: &str,
        answers: Vec<TaskAnswer>,
    ) -> Result<OfferedTask, OfferError>;

    /// The forms of the addresses that can be read.
    fn resource_templates(&self) -> Vec<ResourceTemplate>;

    /// Reads a resource.
    ///
    /// # Errors
    /// [`OfferError::NotFound`] also for an address of no form.
    async fn read_resource(&self, caller: &Self::Caller, uri: &str) -> Result<ResourceContent, OfferError>;
}

/// Answers one message of a client.
///
/// Cancel: as the call that the message makes.
pub async fn answer<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    body: &[u8],
    headers: &McpHeaders<'_>,
) -> McpReply {
    let request = match request::read(body, headers) {
        Ok(Incoming::Request(request)) => request,
        Ok(Incoming::Nothing) => return McpReply::accepted(),
        Err(refused) => return *refused,
    };
    let outcome = dispatch(offer, caller, &request).await;
    McpReply::of(&request, outcome)
}

async fn dispatch<O: McpOffer>(offer: &O, caller: &O::Caller, request: &Request) -> Result<Value, RpcError> {
    match (request.method.as_str(), request.is_modern) {
        ("server/discover", true) => Ok(discovered(offer)),
        ("initialize", false) => Ok(initialized(offer, request)),
        ("ping", false) => Ok(json!({})),
        ("tools/list", _) => call::list(offer, caller, request).await,
        ("tools/call", _) => call::call(offer, caller, request).await,
        ("resources/list", _) => Ok(resources::list(request)),
        ("resources/templates/list", _) => Ok(resources::list_templates(offer, request)),
        ("resources/read", _) => resources::read(offer, caller, request).await,
        ("tasks/get", _) => tasks::get(offer, caller, request).await,
        ("tasks/cancel", _) => tasks::cancel(offer, caller, request).await,
        ("tasks/update", true) => tasks::update(offer, caller, request).await,
        ("tasks/result", false) => tasks::result(offer, caller, request).await,
        _ => Err(RpcError::new(error::METHOD_NOT_FOUND, "Method not found")),
    }
}

fn server_info() -> Value {
    json!({"name": "gathering", "title": "GatheRing", "version": env!("CARGO_PKG_VERSION")})
}

fn discovered<O: McpOffer>(offer: &O) -> Value {
    let mut result = json!({
        "supportedVersions": [MODERN_VERSION],
        "capabilities": {"tools": {}, "resources": {}, "extensions": {tasks::EXTENSION: {}}},
        "ttlMs": 3_600_000,
        "cacheScope": "public",
        "_meta": {"io.modelcontextprotocol/serverInfo": server_info()},
    });
    if let Some(instructions) = offer.instructions() {
        result["instructions"] = json!(instructions);
    }
    result
}

/// The version that the client asks for if it is an older one that is known, else the newest that has a handshake: also
/// for clients that ask for a version without one.
fn initialized<O: McpOffer>(offer: &O, request: &Request) -> Value {
    let asked = request.params["protocolVersion"].as_str().unwrap_or_default();
    let version = LEGACY_VERSIONS.into_iter().find(|version| *version == asked).unwrap_or(LEGACY_VERSION);
    let mut result = json!({
        "protocolVersion": version,
        "capabilities": {
            "tools": {},
            "resources": {},
            "tasks": {"cancel": {}, "requests": {"tools": {"call": {}}}},
        },
        "serverInfo": server_info(),
    });
    if let Some(instructions) = offer.instructions() {
        result["instructions"] = json!(instructions);
    }
    result
}

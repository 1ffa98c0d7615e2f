//! The Model Context Protocol in both directions: a client that mounts the tools of any MCP server, and the protocol of
//! a server, for a program that offers its own.
//!
//! Owns the connections to servers, their processes, which of their tools may be called, and how requests of clients are
//! read and answered, or passed on. Never knows users, runs, a database or where settings come from.

mod calls;
mod catalogue;
mod config;
mod connection;
mod definition;
mod effects;
mod elicitation;
mod error;
mod hidden;
mod http;
mod link;
mod list;
mod message;
mod mounted;
mod naming;
mod notices;
pub mod offer;
mod param_headers;
mod peer;
mod pins;
mod pipe;
mod pool;
mod protocol;
pub mod relay;
mod result;
mod server;
mod server_info;
mod stdio;
mod supervisor;
mod tool_call;

pub use catalogue::{McpCatalogue, McpTool, NotCallable};
pub use config::{
    EffectAllowance, HttpEndpoint, McpAuth, McpLimits, McpProtocol, McpServerConfig, McpTransport, OnConnect,
    StdioCommand,
};
pub use definition::ToolDefinition;
pub use error::{McpError, ServerEnd};
pub use mounted::MountedTool;
pub use notices::{McpNotice, McpNoticeKind, McpNotices};
pub use pins::{FieldChange, ToolChange, ToolChanges, ToolPins};
pub use pipe::PipeStop;
pub use pool::{McpPool, McpPoolSettings, PooledServer, SingleServer};
pub use result::McpResult;
pub use server::{McpServer, McpServices, McpStatus};
pub use server_info::McpServerInfo;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

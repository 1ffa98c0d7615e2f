//! What people make and change: projects and their members, pipelines, budgets.

mod agents;
pub(crate) mod budgets;
pub(crate) mod deletions;
mod hook_store;
pub(crate) mod hooks;
mod mcp_servers;
pub(crate) mod members;
mod pipeline_store;
pub(crate) mod pipelines;
mod project_store;
mod project_versions;
pub(crate) mod projects;
mod questions;
pub(crate) mod runs;
mod schedule_store;
pub(crate) mod schedules;
mod secrets;
pub(crate) mod store;

#![doc = include_str!("../README.md")]

mod action;
mod agent;
mod budget;
mod call_api;
mod child_pipelines;
mod config;
mod execute_pipeline;
mod failure;
mod files;
mod notices;
mod notification;
mod people;
mod project_tools;
mod questions;
mod row_expressions;
mod run_pipeline;
mod secrets;
mod stored_agents;
#[cfg(test)]
mod testing;
mod tool;
mod types;

pub use action::{ActionNode, ActionSpec};
pub use agent::{AgentNode, AgentSpec};
pub use child_pipelines::{ChildPipeline, ChildPipelines, StartPipelineError};
pub use files::{OpenFilesError, ProjectFiles};
pub use notices::{FollowedNotices, RunNotice, RunNotices};
pub use people::People;
pub use project_tools::{ProjectSpecs, ProjectTools, SameTools};
pub use questions::{NewQuestion, NodeQuestions, Questions};
pub use row_expressions::RowExpressions;
pub use run_pipeline::RunPipeline;
pub use secrets::{
    AttemptSecrets, KnownSecrets, NoSecrets, OutsideNode, ProjectSecrets, Revealed, WithSecrets,
};
pub use stored_agents::{AgentVersion, NoStoredAgents, StoredAgents};
pub use tool::{ToolNode, ToolNodeSpec};
pub use types::{NodeServices, node_specs, node_types};

//! The nouns of the API: each file has its handlers and the views that they render.

pub(crate) mod api_keys;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod budgets;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod health;
pub(crate) mod hooks;
pub(crate) mod lists;
pub(crate) mod mcp;
pub(crate) mod mcp_servers;
pub(crate) mod members;
pub(crate) mod metadata;
pub(crate) mod metrics;
pub(crate) mod pipelines;
pub(crate) mod projects;
pub(crate) mod question_view;
pub(crate) mod run_view;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod secrets;
pub(crate) mod stream;
pub(crate) mod system;
pub(crate) mod tools;
pub(crate) mod users;
pub(crate) mod words;

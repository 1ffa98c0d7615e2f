//! The server as its users meet it, through its API and its command line.
//!
//! All these tests are one program: linking takes longer than most of them. They run beside each other, so none of them
//! may change the environment, or need the machine for itself; those that do are in `load`.

mod access;
mod agents;
mod approvals;
mod audit;
mod auth;
mod benchmark_statistics;
mod breakers;
mod budgets;
mod calendars;
mod children;
mod commands;
mod contradictions;
mod corrected;
mod decisions;
mod doctor;
mod edge;
mod emails;
mod embedded;
mod ends;
mod event_schedules;
mod event_streams;
mod events;
mod first_run;
mod hooks;
mod http;
mod idempotency;
mod keys;
mod mcp;
mod mcp_files;
mod mcp_refusals;
mod mcp_relay;
mod mcp_rust;
mod mcp_servers;
mod migrations;
mod pipeline_versions;
mod pipelines;
mod pooler;
mod project_secrets;
mod projects;
mod readme;
mod reruns;
mod resume;
mod retention;
mod reuse;
mod run_limits;
mod runs;
mod schedules;
mod secrets;
mod shutdown;
mod stream;
mod throttle;
mod tools;
mod webhooks;

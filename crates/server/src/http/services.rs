//! The services that handlers ask for, as one table.

use std::sync::Arc;

use actix_web::web::{Data, ServiceConfig};
use gathering_auth::Auth;
use gathering_control::{Control, SecretControl, ToolControl, Workspaces};
use gathering_persistence::{Pool, Runs};
use tokio::sync::watch;

use crate::http::api::events::Watches;
use crate::http::api::hooks::HookLimits;
use crate::http::api::stream::{Sources, Streams};
use crate::http::run_ends::RunEnds;
use crate::instance::Identity;
use crate::mcp::McpDesk;
use crate::mounts::Mounts;
use gathering_edge::readiness::Readiness;

/// The identity of this process, which changes when it loses its liveness lock.
pub(crate) type Identities = watch::Receiver<Identity>;

/// The largest file that is taken, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxFileBytes(pub(crate) u64);

/// Everything that some handler asks for.
pub(crate) struct Services {
    pub(crate) auth: Arc<Auth>,
    pub(crate) pool: Pool,
    /// What may be done with projects, pipelines, budgets and runs.
    pub(crate) control: Control,
    /// The secrets of projects.
    pub(crate) secrets: SecretControl,
    /// The mounted MCP servers of projects.
    pub(crate) mounts: Mounts,
    pub(crate) runs: Runs,
    pub(crate) identities: Identities,
    pub(crate) readiness: Readiness,
    pub(crate) streams: Streams,
    pub(crate) tools: ToolControl,
    pub(crate) mcp: McpDesk,
    pub(crate) run_ends: RunEnds,
    pub(crate) watches: Arc<Watches>,
    pub(crate) workspaces: Workspaces,
    pub(crate) max_file_bytes: MaxFileBytes,
    /// For how many hooks at a time calls are counted.
    pub(crate) n_limited_hooks: u64,
}

impl Services {
    /// Gives each handler the services that it names.
    pub(crate) fn into_table(self) -> impl Fn(&mut ServiceConfig) + Clone {
        let Self {
            auth,
            pool,
            control,
            secrets,
            mounts,
            runs,
            identities,
            readiness,
            streams,
            tools,
            mcp,
            run_ends,
            watches,
            workspaces,
            max_file_bytes,
            n_limited_hooks,
        } = self;
        let projects = control.projects.clone();
        let sources = Sources { auth: Arc::clone(&auth), projects, runs: runs.clone(), readiness };
        let (auth, pool, identities) = (Data::from(auth), Data::new(pool), Data::new(identities));
        let Control {
            projects,
            agents,
            pipelines,
            budgets,
            runs: run_control,
            events,
            hooks,
            schedules,
            graphs,
        } = control;
        let (events, watches) = (Data::new(events), Data::from(watches));
        let (projects, pipelines) = (Data::new(projects), Data::new(pipelines));
        let agents = Data::new(agents);
        let (budgets, run_control, graphs) = (Data::new(budgets), Data::new(run_control), Data::new(graphs));
        let (schedules, hooks) = (Data::new(schedules), Data::new(hooks));
        let (secrets, mounts) = (Data::new(secrets), Data::new(mounts));
        let hook_limits = Data::new(HookLimits::new(n_limited_hooks));
        let (tools, mcp, run_ends) = (Data::new(tools), Data::new(mcp), Data::new(run_ends));
        let (runs, streams, sources) = (Data::new(runs), Data::new(streams), Data::new(sources));
        let (workspaces, max_file_bytes) = (Data::new(workspaces), Data::new(max_file_bytes));
        move |app| {
            app.app_data(auth.clone())
                .app_data(pool.clone())
                .app_data(identities.clone())
                .app_data(projects.clone())
                .app_data(pipelines.clone())
                .app_data(agents.clone())
                .app_data(budgets.clone())
                .app_data(run_control.clone())
                .app_data(schedules.clone())
                .app_data(hooks.clone())
                .app_data(hook_limits.clone())
                .app_data(secrets.clone())
                .app_data(mounts.clone())
                .app_data(graphs.clone())
                .app_data(runs.clone())
                .app_data(events.clone())
                .app_data(watches.clone())
                .app_data(streams.clone())
                .app_data(tools.clone())
                .app_data(mcp.clone())
                .app_data(run_ends.clone())
                .app_data(sources.clone())
                .app_data(workspaces.clone())
                .app_data(max_file_bytes.clone());
        }
    }
}

//! Everything of this crate over one store.

use std::sync::Arc;

use gathering_auth::KeyRing;
use gathering_dag_engine::{NodeSpecs, RunStore};

use crate::{
    AgentControl, BudgetControl, ControlStore, EventControl, Graphs, HookControl, PipelineControl,
    ProjectControl, RunControl, ScheduleControl, Workspaces,
};

/// What may be done, noun by noun. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct Control {
    /// Projects and their members.
    pub projects: ProjectControl,
    /// Agents and their versions.
    pub agents: AgentControl,
    /// Pipelines and their versions.
    pub pipelines: PipelineControl,
    /// The budgets of projects and run trees.
    pub budgets: BudgetControl,
    /// Runs.
    pub runs: RunControl,
    /// The log of events.
    pub events: EventControl,
    /// Hooks.
    pub hooks: HookControl,
    /// Schedules.
    pub schedules: ScheduleControl,
    /// The graphs of pipelines and runs.
    pub graphs: Graphs,
}

impl Control {
    /// Everything over `store`. The graphs and journals of its runs are in `run_store`, and their nodes have these
    /// types. At most `n_cached_graphs` summaries of graphs are kept; at least 1. The secrets of hooks are encrypted with
    /// `keys`.
    pub fn new(
        store: Arc<dyn ControlStore>,
        run_store: Arc<dyn RunStore>,
        specs: NodeSpecs,
        n_cached_graphs: u64,
        keys: Arc<KeyRing>,
    ) -> Self {
        Self::over(store, Graphs::new(run_store, specs, n_cached_graphs), keys)
    }

    /// Everything over `store` and these graphs, where the secrets of hooks are encrypted with `keys`.
    pub fn over(store: Arc<dyn ControlStore>, graphs: Graphs, keys: Arc<KeyRing>) -> Self {
        Self {
            projects: ProjectControl::new(Arc::clone(&store)),
            agents: AgentControl::new(Arc::clone(&store), graphs.clone()),
            pipelines: PipelineControl::new(Arc::clone(&store), graphs.clone()),
            budgets: BudgetControl::new(Arc::clone(&store)),
            runs: RunControl::new(Arc::clone(&store), graphs.clone()),
            events: EventControl::new(Arc::clone(&store)),
            hooks: HookControl::new(Arc::clone(&store), keys),
            schedules: ScheduleControl::new(store, graphs.clone()),
            graphs,
        }
    }

    /// The same, where schedules find their calendars in these workspaces.
    #[must_use]
    pub fn with_files(self, files: Workspaces) -> Self {
        Self { schedules: self.schedules.with_files(files), ..self }
    }
}

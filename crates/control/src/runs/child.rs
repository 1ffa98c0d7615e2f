//! Starting pipelines as child runs: what `execute_pipeline` asks for.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use gathering_dag_engine::{ChildRuns, NewChild, RunStore, StoreError};
use gathering_domain::{PipelineId, ProjectId};
use gathering_nodes::{ChildPipeline, ChildPipelines, StartPipelineError};

use super::Startable;
use crate::graphs::{Admission, below_input};
use crate::{Conflict, ControlError, ControlStore, RunRules};

/// The pipelines that nodes run: those of the project that their own run belongs to. Cloning is cheap.
#[derive(Clone)]
pub struct ProjectPipelines {
    store: Arc<dyn ControlStore>,
    graphs: Arc<dyn RunStore>,
    children: Arc<dyn ChildRuns>,
    limits_runs: bool,
}

impl ProjectPipelines {
    /// The pipelines of this store, whose graphs are in `graphs`, and whose runs are accepted by `children`.
    pub fn new(
        store: Arc<dyn ControlStore>,
        graphs: Arc<dyn RunStore>,
        children: Arc<dyn ChildRuns>,
    ) -> Self {
        Self { store, graphs, children, limits_runs: true }
    }

    /// Without the limits of pipelines: a process that drives one run tree alone cannot wait for the runs of others.
    #[must_use]
    pub fn without_limits(self) -> Self {
        Self { limits_runs: false, ..self }
    }

    /// The latest version of a pipeline of this project, and what holds for its runs.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a pipeline that is absent or of another project;
    /// [`Conflict::PipelineDisabled`]; or the store's.
    async fn find(
        &self,
        project: ProjectId,
        pipeline: PipelineId,
    ) -> Result<(Startable, RunRules), ControlError> {
        let head = self.store.find_pipeline_in(project, pipeline).await?.ok_or(ControlError::NotFound)?;
        let startable = Startable::choose(&*self.store, &head, None).await?;
        let definition = self.graphs.load_graph(startable.graph).await?;
        let rules = RunRules::of_definition(&definition);
        Ok((startable, rules.map_err(|problems| ControlError::Broken(problems.into()))?))
    }
}

#[async_trait]
impl ChildPipelines for ProjectPipelines {
    async fn start(&self, child: ChildPipeline) -> Result<(), StartPipelineError> {
        let ChildPipeline { project, parent, item, kind, pipeline, input, earlier_runs, now } = child;
        let found = self.find(project, pipeline).await;
        let (startable, rules) = found.map_err(|error| refused(pipeline, error))?;
        let admitted = rules.admit(input);
        let Admission { input, permit } =
            admitted.map_err(|problems| StartPipelineError::InvalidInput(pipeline, below_input(problems)))?;
        let timeout = rules.timeout.and_then(|timeout| TimeDelta::from_std(timeout).ok());
        let child = NewChild {
            item,
            graph: startable.graph,
            input,
            pipeline: Some((pipeline, startable.version)),
            deadline_at: timeout.and_then(|timeout| now.checked_add_signed(timeout)),
            permit: permit.filter(|_| self.limits_runs),
        };
        Ok(self.children.start(&parent, kind, vec![child], &earlier_runs).await?)
    }
}

fn refused(pipeline: PipelineId, error: ControlError) -> StartPipelineError {
    match error {
        ControlError::NotFound => StartPipelineError::Missing(pipeline),
        ControlError::Conflict(Conflict::PipelineDisabled) => StartPipelineError::Disabled(pipeline),
        ControlError::Unavailable(cause) | ControlError::TimedOut(cause) => {
            StartPipelineError::Unavailable(cause)
        }
        other => StoreError::Fault(other.into()).into(),
    }
}

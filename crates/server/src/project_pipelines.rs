//! The stored pipelines as nodes start them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use gathering_dag_engine::{ChildRuns, NewChild, StoreError};
use gathering_nodes::{ChildPipeline, ChildPipelines, StartPipelineError};
use gathering_persistence::{DatabaseError, Pipelines};

/// Starts the current version of a stored pipeline as a child run.
pub(crate) struct StoredPipelines {
    pub(crate) pipelines: Pipelines,
    pub(crate) children: Arc<dyn ChildRuns>,
}

#[async_trait]
impl ChildPipelines for StoredPipelines {
    async fn start(&self, child: ChildPipeline) -> Result<(), StartPipelineError> {
        let ChildPipeline { project, parent, kind, pipeline, input, now } = child;
        let found = self.pipelines.find(pipeline).await.map_err(StoreError::from)?;
        let found = found.filter(|found| found.project == project);
        let found = found.ok_or(StartPipelineError::Missing(pipeline))?;
        if !found.enabled {
            return Err(StartPipelineError::Disabled(pipeline));
        }
        let loaded = self.pipelines.load_definition(pipeline, found.version).await;
        let (graph, definition) = loaded.map_err(|error| match error {
            // It was deleted in between.
            DatabaseError::Missing { .. } => StartPipelineError::Missing(pipeline),
            error => StoreError::from(error).into(),
        })?;
        let timeout = definition["timeout_seconds"].as_f64();
        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let timeout = timeout.and_then(|timeout| TimeDelta::from_std(timeout).ok());
        let child = NewChild {
            item: 0,
            graph,
            input,
            pipeline: Some((pipeline, found.version)),
            deadline_at: timeout.and_then(|timeout| now.checked_add_signed(timeout)),
        };
        Ok(self.children.start(&parent, kind, vec![child]).await?)
    }
}

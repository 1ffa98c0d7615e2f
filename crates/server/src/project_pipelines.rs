//! The pipelines that nodes may run: those of their own project, as they stand.

use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::NodeFailure;
use gathering_domain::{PipelineId, ProjectId, with_causes};
use gathering_nodes::{PipelineToRun, ProjectPipelines};
use gathering_persistence::{DatabaseError, Pipelines};

/// The stored pipelines as nodes find them.
pub(crate) struct StoredPipelines(pub(crate) Pipelines);

#[async_trait]
impl ProjectPipelines for StoredPipelines {
    async fn find(&self, project: ProjectId, pipeline: PipelineId) -> Result<PipelineToRun, NodeFailure> {
        let missing = || {
            let message = format!("there is no pipeline {pipeline} in this project");
            NodeFailure::permanent("no_pipeline", message)
        };
        let found = self.0.find(pipeline).await.map_err(away)?;
        let found = found.filter(|found| found.project == project).ok_or_else(missing)?;
        if !found.enabled {
            let message = format!("pipeline {pipeline} is disabled");
            return Err(NodeFailure::permanent("pipeline_disabled", message));
        }
        let (graph, definition) = match self.0.load_definition(pipeline, found.version).await {
            Ok(loaded) => loaded,
            // It was deleted meanwhile.
            Err(DatabaseError::Missing { .. }) => return Err(missing()),
            Err(error) => return Err(away(error)),
        };
        let timeout = definition["timeout_seconds"].as_f64();
        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(PipelineToRun { version: found.version, graph, timeout })
    }
}

fn away(error: DatabaseError) -> NodeFailure {
    NodeFailure::retryable("unavailable", with_causes(&error))
}

//! Pipelines and their versions in memory.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_dag_engine::RunStore as _;
use gathering_dag_engine::testing::MemoryStore;
use gathering_domain::{Digest, PipelineId, ProjectId, UserId};

use super::MemoryControl;
use super::idempotency::Claim;
use super::state::State;
use crate::{
    ControlError, Creation, Definitions, Found, NewPipeline, Pipeline, PipelineHead, PipelineStore,
    PipelineToStart, PipelineTool, PipelineVersion, PlannedChange, PlannedDeletion, RunRules, Scoped,
    VersionsPage, right,
};

pub(super) struct StoredPipeline {
    pipeline: Pipeline,
    /// Version 1 first.
    versions: Vec<StoredVersion>,
}

#[derive(Clone)]
struct StoredVersion {
    graph: Digest,
    created_by: Option<UserId>,
    created_at: DateTime<Utc>,
}

impl StoredPipeline {
    fn head(&self) -> Option<PipelineHead> {
        Some(PipelineHead { pipeline: self.pipeline.clone(), graph: self.versions.last()?.graph })
    }
}

impl State {
    pub(super) fn head(&self, pipeline: PipelineId) -> Option<PipelineHead> {
        self.pipelines.get(&pipeline)?.head()
    }

    /// The pipeline as something other than a request starts it.
    pub(super) fn to_start(
        &self,
        pipeline: PipelineId,
        version: Option<i32>,
        graphs: &MemoryStore,
    ) -> Option<PipelineToStart> {
        let named = version.and_then(|version| self.graph_of_version(pipeline, version));
        let head = self.head(pipeline)?;
        let rules = RunRules::of_definition(&graphs.graph(named.unwrap_or(head.graph))?).ok()?;
        Some(PipelineToStart { head, named, rules })
    }

    fn graph_of_version(&self, pipeline: PipelineId, version: i32) -> Option<Digest> {
        let place = usize::try_from(version).ok()?.checked_sub(1)?;
        self.pipelines.get(&pipeline)?.versions.get(place).map(|version| version.graph)
    }

    fn create_pipeline(
        &mut self,
        project: ProjectId,
        by: Option<UserId>,
        new: &NewPipeline,
    ) -> Result<Creation<PipelineHead>, ControlError> {
        if !self.has_project(project) {
            return Err(ControlError::NotFound);
        }
        if let Some((user, once)) = by.zip(new.once.as_ref()) {
            match self.pipeline_keys.claim(user, once, new.id) {
                Claim::Granted => {}
                Claim::CreatedBefore(id) => {
                    return Ok(self.head(id).map_or(Creation::Deleted, Creation::Repeated));
                }
                Claim::OtherRequest => return Ok(Creation::OtherRequest),
            }
        }
        let now = Utc::now();
        let pipeline = Pipeline {
            id: new.id,
            project,
            name: new.name.clone(),
            description: new.description.clone(),
            enabled: new.enabled,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let first = StoredVersion { graph: new.graph, created_by: by, created_at: now };
        let head = PipelineHead { pipeline: pipeline.clone(), graph: new.graph };
        self.pipelines.insert(new.id, StoredPipeline { pipeline, versions: vec![first] });
        Ok(Creation::Created(head))
    }

    fn change_pipeline(
        &mut self,
        id: PipelineId,
        by: Option<UserId>,
        change: &PlannedChange,
    ) -> Result<PipelineHead, ControlError> {
        let stored = self.pipelines.get_mut(&id).ok_or(ControlError::NotFound)?;
        let before = stored.head().ok_or(ControlError::NotFound)?;
        let mut after = change.of(&before)?;
        if after == before {
            return Ok(before);
        }
        let now = Utc::now();
        after.pipeline.updated_at = now;
        if after.pipeline.version != before.pipeline.version {
            stored.versions.push(StoredVersion { graph: after.graph, created_by: by, created_at: now });
        }
        stored.pipeline = after.pipeline.clone();
        Ok(after)
    }
}

impl MemoryControl {
    fn has_active_runs(&self, pipeline: PipelineId) -> bool {
        let mut runs = self.runs.runs().into_iter();
        runs.any(|run| run.pipeline == Some(pipeline) && !run.state.is_terminal())
    }
}

#[async_trait]
impl PipelineStore for MemoryControl {
    async fn find_pipeline(
        &self,
        by: &Caller,
        pipeline: PipelineId,
    ) -> Result<Option<Found<PipelineHead>>, ControlError> {
        let state = self.lock();
        let Some(head) = state.head(pipeline) else { return Ok(None) };
        Ok(state.found(by, head.pipeline.project, head))
    }

    async fn find_pipeline_in(
        &self,
        project: ProjectId,
        pipeline: PipelineId,
    ) -> Result<Option<PipelineHead>, ControlError> {
        Ok(self.lock().head(pipeline).filter(|head| head.pipeline.project == project))
    }

    async fn find_version(&self, pipeline: PipelineId, version: i32) -> Result<Option<Digest>, ControlError> {
        Ok(self.lock().graph_of_version(pipeline, version))
    }

    async fn list_pipeline_tools(
        &self,
        visible_to: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<PipelineTool>, ControlError> {
        let state = self.lock();
        let is_shown = |stored: &&StoredPipeline| {
            let owning = state.projects.get(&stored.pipeline.project);
            stored.pipeline.enabled
                && owning.is_some_and(|owning| visible_to.is_none_or(|user| owning.role(user).is_some()))
        };
        let tool = |stored: &StoredPipeline| {
            let definition = self.runs.graph(stored.head()?.graph)?;
            let Pipeline { id, name, .. } = stored.pipeline.clone();
            PipelineTool::new(id, name, definition.get("tool")?, definition.get("input"))
        };
        Ok(state.pipelines.values().filter(is_shown).filter_map(tool).take(limit).collect())
    }

    async fn list_pipelines(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<PipelineId>,
        limit: usize,
    ) -> Result<Vec<Pipeline>, ControlError> {
        let state = self.lock();
        let is_shown = |pipeline: &&Pipeline| {
            let Some(owning) = state.projects.get(&pipeline.project) else { return false };
            visible_to.is_none_or(|user| owning.role(user).is_some())
                && project.is_none_or(|project| pipeline.project == project)
                && before.is_none_or(|before| pipeline.id < before)
        };
        let newest_first = state.pipelines.values().rev().map(|stored| &stored.pipeline);
        Ok(newest_first.filter(is_shown).take(limit).cloned().collect())
    }

    async fn list_pipeline_versions(
        &self,
        pipeline: PipelineId,
        before: Option<i32>,
        limit: usize,
        definitions: Definitions,
    ) -> Result<VersionsPage, ControlError> {
        let stored = self.lock().pipelines.get(&pipeline).map(|stored| stored.versions.clone());
        let numbered = (1..).zip(stored.unwrap_or_default());
        let mut versions: Vec<(i32, StoredVersion)> =
            numbered.filter(|(version, _)| before.is_none_or(|before| *version < before)).collect();
        versions.reverse();
        let has_more = versions.len() > limit;
        versions.truncate(limit);
        let mut items = Vec::new();
        for (version, StoredVersion { graph, created_by, created_at }) in versions {
            let definition = match definitions {
                Definitions::Omitted => None,
                Definitions::Included => Some(self.runs.load_graph(graph).await?),
            };
            items.push(PipelineVersion { version, graph, created_by, created_at, definition });
        }
        Ok(VersionsPage { items, has_more })
    }

    async fn create_pipeline(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewPipeline,
    ) -> Result<Creation<PipelineHead>, ControlError> {
        self.lock().create_pipeline(*project.thing(), project.user(), new)
    }

    async fn change_pipeline(
        &self,
        pipeline: &Scoped<PipelineHead, right::Write>,
        change: &PlannedChange,
    ) -> Result<PipelineHead, ControlError> {
        self.lock().change_pipeline(pipeline.pipeline.id, pipeline.user(), change)
    }

    async fn delete_pipeline(
        &self,
        pipeline: &Scoped<PipelineHead, right::Write>,
        deletion: &PlannedDeletion,
    ) -> Result<(), ControlError> {
        let id = pipeline.pipeline.id;
        let mut state = self.lock();
        let stands = state.head(id).ok_or(ControlError::NotFound)?.pipeline;
        deletion.permitted(&stands, self.has_active_runs(id))?;
        state.pipelines.remove(&id);
        state.unlink_runs_of(id);
        Ok(())
    }
}

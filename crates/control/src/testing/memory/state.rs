//! What the in-memory store keeps beside the engine's runs.

use std::collections::{BTreeMap, HashMap};

use chrono::Utc;
use gathering_auth::Account;
use gathering_dag_engine::testing::StoredRun;
use gathering_domain::{Digest, Once, PipelineId, ProjectId, RunId, RunKind, UserId};
use serde_json::Value;

use super::projects::StoredProject;
use crate::{LocalProject, Pipeline, PipelineHead, PlannedRun, Run};

#[derive(Default)]
pub(super) struct State {
    pub(super) projects: BTreeMap<ProjectId, StoredProject>,
    pub(super) locals: Vec<LocalProject>,
    pub(super) accounts: HashMap<UserId, Account>,
    pipelines: BTreeMap<PipelineId, StoredPipeline>,
    pub(super) runs: HashMap<RunId, RunFacts>,
}

struct StoredPipeline {
    pipeline: Pipeline,
    /// Version 1 first.
    versions: Vec<Digest>,
}

/// What the engine does not know of a run.
#[derive(Clone)]
pub(super) struct RunFacts {
    project: ProjectId,
    planned: PlannedRun,
}

impl State {
    pub(super) fn define(&mut self, project: ProjectId, graph: Digest) -> PipelineId {
        let (id, now) = (PipelineId::new(), Utc::now());
        let pipeline = Pipeline {
            id,
            project,
            name: id.to_string(),
            description: String::new(),
            enabled: true,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        self.pipelines.insert(id, StoredPipeline { pipeline, versions: vec![graph] });
        id
    }

    pub(super) fn change(&mut self, pipeline: PipelineId, enabled: bool, graph: Option<Digest>) {
        if let Some(stored) = self.pipelines.get_mut(&pipeline) {
            stored.pipeline.enabled = enabled;
            if let Some(graph) = graph {
                stored.versions.push(graph);
                stored.pipeline.version += 1;
            }
        }
    }

    pub(super) fn head(&self, pipeline: PipelineId) -> Option<PipelineHead> {
        let stored = self.pipelines.get(&pipeline)?;
        Some(PipelineHead { pipeline: stored.pipeline.clone(), graph: *stored.versions.last()? })
    }

    pub(super) fn version(&self, pipeline: PipelineId, version: i32) -> Option<Digest> {
        let place = usize::try_from(version).ok()?.checked_sub(1)?;
        self.pipelines.get(&pipeline)?.versions.get(place).copied()
    }

    pub(super) fn accept(&mut self, project: ProjectId, planned: &PlannedRun) {
        self.runs.insert(planned.id, RunFacts { project, planned: planned.clone() });
    }

    /// The request that used this key for a run in the project: its digest, and its run.
    pub(super) fn key_of_run(&self, project: ProjectId, once: &Once) -> Option<(Digest, RunId)> {
        let of_project = self.runs.values().filter(|facts| facts.project == project);
        let mut keyed = of_project.filter_map(|facts| Some((facts, facts.planned.once.as_ref()?)));
        let (facts, earlier) = keyed.find(|(_, earlier)| earlier.key == once.key)?;
        Some((earlier.digest, facts.planned.id))
    }
}

/// The run as it is shown. A child run, which the engine started, has no facts of its own.
pub(super) fn shown(stored: &StoredRun, facts: Option<&RunFacts>) -> Run {
    let new = &stored.new;
    let planned = facts.map(|facts| &facts.planned);
    let end = stored.end.as_ref();
    Run {
        id: new.id,
        project: new.project,
        graph: new.graph,
        kind: planned.map_or(RunKind::Pipeline, |planned| planned.kind),
        trigger: planned.map_or(Value::Null, |planned| planned.trigger.clone()),
        pipeline: planned.and_then(|planned| planned.pipeline),
        schedule: None,
        parent: stored.place.as_ref().map(|place| place.parent.run),
        rerun_of: planned.and_then(|planned| planned.rerun_of),
        state: stored.state,
        waiting_for: None,
        input: new.input.clone(),
        output: end.and_then(|end| end.output.clone()),
        error: end.and_then(|end| end.error.clone()),
        priority: new.priority,
        recoveries: stored.recoveries,
        deadline_at: stored.deadline_at,
        cancel_requested_at: None,
        created_at: stored.created_at,
        started_at: None,
        ended_at: None,
    }
}

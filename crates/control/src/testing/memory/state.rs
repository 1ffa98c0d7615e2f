//! What the in-memory store keeps beside the engine's runs.

use std::collections::{BTreeMap, HashMap};

use gathering_auth::{Account, AuditEvent};
use gathering_dag_engine::testing::StoredRun;
use gathering_domain::{
    AgentId, Digest, HookId, McpServerName, Once, PipelineId, ProjectId, QuestionId, RunId, RunKind,
    ScheduleId, SecretName, UserId,
};
use serde_json::Value;

use super::agents::KeptAgent;
use super::budgets::Books;
use super::hooks::StoredHook;
use super::idempotency::IdempotencyKeys;
use super::pipelines::StoredPipeline;
use super::projects::StoredProject;
use super::questions::StoredQuestion;
use super::schedules::StoredSchedule;
use super::secrets::StoredSecret;
use crate::{EventSeq, LocalFile, LocalProject, LoggedEvent, McpMount, PlannedRun, Run, StartedBy};

#[derive(Default)]
pub(super) struct State {
    pub(super) projects: BTreeMap<ProjectId, StoredProject>,
    pub(super) locals: Vec<LocalProject>,
    /// The projects that requests created under an idempotency key.
    pub(super) project_keys: IdempotencyKeys<ProjectId>,
    pub(super) accounts: HashMap<UserId, Account>,
    pub(super) pipelines: BTreeMap<PipelineId, StoredPipeline>,
    /// The pipelines that requests created under an idempotency key.
    pub(super) pipeline_keys: IdempotencyKeys<PipelineId>,
    pub(super) agents: BTreeMap<AgentId, KeptAgent>,
    /// The agents that requests created under an idempotency key.
    pub(super) agent_keys: IdempotencyKeys<AgentId>,
    pub(super) schedules: BTreeMap<ScheduleId, StoredSchedule>,
    /// The schedules that requests created under an idempotency key.
    pub(super) schedule_keys: IdempotencyKeys<ScheduleId>,
    pub(super) hooks: BTreeMap<HookId, StoredHook>,
    /// The hooks that requests created under an idempotency key.
    pub(super) hook_keys: IdempotencyKeys<HookId>,
    pub(super) secrets: BTreeMap<(ProjectId, SecretName), StoredSecret>,
    /// Grow with every change of the project's secrets.
    pub(super) secret_versions: HashMap<ProjectId, i64>,
    pub(super) mcp_servers: BTreeMap<(ProjectId, McpServerName), McpMount>,
    /// Grow with every change of the project's MCP servers.
    pub(super) mcp_versions: HashMap<ProjectId, i64>,
    pub(super) questions: BTreeMap<QuestionId, StoredQuestion>,
    /// What was recorded, the oldest first.
    pub(super) audit: Vec<AuditEvent>,
    pub(super) runs: HashMap<RunId, RunFacts>,
    pub(super) budgets: Books,
    /// The log, in order.
    pub(super) events: Vec<LoggedEvent>,
    /// Up to where schedules have fired for them.
    pub(super) matched: EventSeq,
    /// Whether somebody goes through them.
    pub(super) is_matching: bool,
}

/// What the engine does not know of a run.
#[derive(Clone)]
pub(super) struct RunFacts {
    project: ProjectId,
    planned: PlannedRun,
}

impl State {
    /// From now on the runs of this pipeline name no pipeline.
    pub(super) fn unlink_runs_of(&mut self, pipeline: PipelineId) {
        for facts in self.runs.values_mut() {
            facts.planned.pipeline = facts.planned.pipeline.filter(|(id, _)| *id != pipeline);
        }
    }

    pub(super) fn accept(&mut self, project: ProjectId, planned: &PlannedRun) {
        self.runs.insert(planned.id, RunFacts { project, planned: planned.clone() });
    }

    /// The latest run of this file.
    pub(super) fn latest_run_of(&self, project: ProjectId, file: &LocalFile) -> Option<RunId> {
        let trigger = StartedBy::Local(file).trigger();
        let of_file =
            self.runs.values().filter(|facts| facts.project == project && facts.planned.trigger == trigger);
        of_file.map(|facts| facts.planned.id).max()
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
        schedule: planned.and_then(|planned| planned.schedule),
        parent: stored.place.as_ref().map(|place| place.parent.run),
        rerun_of: planned.and_then(|planned| planned.rerun_of),
        state: stored.state,
        waiting_for: None,
        input: new.input.clone(),
        output: end.and_then(|end| end.result.output().cloned()),
        error: end.and_then(|end| end.result.error().cloned()),
        priority: new.priority,
        recoveries: stored.recoveries,
        deadline_at: stored.deadline_at,
        cancel_requested_at: None,
        created_at: stored.created_at,
        started_at: None,
        ended_at: None,
    }
}

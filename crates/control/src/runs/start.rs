//! Starting runs: one set of rules for every way to start one.

use chrono::{DateTime, SecondsFormat, Utc};
use gathering_auth::Caller;
use gathering_domain::{
    AgentId, DeliveryId, Digest, HookId, KeyedBody, Once, PipelineId, Pointer, Problems, ProjectId, RunId,
    RunKind, ScheduleId, UserId,
};
use gathering_scheduler::Due;
use serde_json::{Map, Value, json};

use super::{LocalFile, PlannedRun, Run, RunControl};
use crate::access::right;
use crate::graphs::{Admission, below_input};
use crate::idempotency::Creation;
use crate::pipelines::PipelineHead;
use crate::schedules::Cause;
use crate::{Conflict, ControlError, ControlStore, RunRules, Scoped};

/// The priority of a run that names none.
pub const DEFAULT_PRIORITY: i32 = 5;

/// Who or what starts a run. It decides the run's kind and the trigger that the API shows.
///
/// Another way to start runs is one more variant here, and one more function that finds the pipeline its own way; the
/// rules are the same ([`Startable`]). Runs that a node starts are [`ProjectPipelines`](super::ProjectPipelines): the
/// engine's port for child runs derives their kind and trigger from the parent.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum StartedBy<'a> {
    /// A caller of the API.
    Caller(UserId),
    /// A caller of the API, who reruns this run.
    Rerun(UserId, RunId),
    /// A caller of the API, who calls a tool by itself.
    Tool {
        /// The caller.
        user: UserId,
        /// The name of the tool.
        tool: &'a str,
    },
    /// A caller of the API, who sends a message to an agent.
    Agent {
        /// The caller.
        user: UserId,
        /// The agent.
        agent: AgentId,
    },
    /// The operator, with the definition of this file.
    Local(&'a LocalFile),
    /// A schedule, at a due time or for an event.
    Schedule {
        /// The schedule.
        schedule: ScheduleId,
        /// What was due.
        due: Due,
        /// The event that it fires for, unless that was deleted.
        cause: Option<&'a Cause>,
        /// Who had it fired by hand.
        by: Option<UserId>,
        /// Whether the run is an action of its own, not a pipeline.
        is_action: bool,
    },
    /// A call of a hook.
    Hook {
        /// The hook.
        hook: HookId,
        /// The call, as its ledger has it.
        delivery: DeliveryId,
        /// Who had it sent again.
        by: Option<UserId>,
    },
    /// A schedule, of which a run failed.
    ScheduleFailure {
        /// The schedule.
        schedule: ScheduleId,
        /// The run that failed.
        run: RunId,
    },
}

impl StartedBy<'_> {
    /// What the run is one execution of.
    pub(super) const fn kind(self) -> RunKind {
        match self {
            StartedBy::Caller(_) | StartedBy::Rerun(..) => RunKind::Pipeline,
            StartedBy::Hook { .. } => RunKind::Pipeline,
            StartedBy::Tool { .. } => RunKind::Tool,
            StartedBy::Agent { .. } => RunKind::Agent,
            StartedBy::Local(_) => RunKind::Local,
            StartedBy::Schedule { is_action: false, .. } => RunKind::Pipeline,
            StartedBy::Schedule { .. } | StartedBy::ScheduleFailure { .. } => RunKind::Action,
        }
    }

    /// The trigger of the run, as the API shows it.
    pub(crate) fn trigger(self) -> Value {
        match self {
            StartedBy::Caller(user) => json!({ "type": "api", "user_id": user }),
            StartedBy::Rerun(user, run) => json!({ "type": "rerun", "user_id": user, "run_id": run }),
            StartedBy::Tool { user, tool } => json!({ "type": "tool", "user_id": user, "tool": tool }),
            StartedBy::Agent { user, agent } => {
                json!({ "type": "agent", "user_id": user, "agent_id": agent })
            }
            StartedBy::Local(LocalFile { path, name }) => {
                json!({ "type": "local", "file": path, "name": name })
            }
            StartedBy::Schedule { schedule, due, cause, by, .. } => {
                let due_at = due.at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                let mut trigger = json!({ "type": "schedule", "schedule_id": schedule, "due_at": due_at });
                if let Some(seq) = due.event {
                    trigger["event"] =
                        json!({ "seq": seq, "type": cause.map(|cause| &cause.event.event_type) });
                    trigger["caused_by"] = json!(Cause::chain_with(cause, schedule));
                }
                if let Some(user) = by {
                    trigger["user_id"] = json!(user);
                }
                trigger
            }
            StartedBy::Hook { hook, delivery, by } => {
                let mut trigger = json!({ "type": "hook", "hook_id": hook, "delivery_id": delivery });
                if let (Some(user), Some(fields)) = (by, trigger.as_object_mut()) {
                    fields.insert("user_id".to_owned(), json!(user));
                }
                trigger
            }
            StartedBy::ScheduleFailure { schedule, run } => {
                json!({ "type": "schedule_failure", "schedule_id": schedule, "run_id": run })
            }
        }
    }

    /// The schedule that the run belongs to.
    pub(crate) const fn schedule(self) -> Option<ScheduleId> {
        match self {
            StartedBy::Schedule { schedule, .. } | StartedBy::ScheduleFailure { schedule, .. } => {
                Some(schedule)
            }
            StartedBy::Caller(_)
            | StartedBy::Rerun(..)
            | StartedBy::Tool { .. }
            | StartedBy::Agent { .. }
            | StartedBy::Local(_)
            | StartedBy::Hook { .. } => None,
        }
    }
}

/// What a run is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRun {
    /// Its input.
    pub input: Value,
    /// 1 to 10; runs with a higher priority are claimed first.
    pub priority: i32,
    /// Not to be claimed before, in UTC; at once if absent.
    pub available_at: Option<DateTime<Utc>>,
    /// The version of the pipeline; the latest if absent.
    pub version: Option<i32>,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

impl Default for StartRun {
    /// An empty object as the input, the priority 5, the latest version, at once.
    fn default() -> Self {
        Self {
            input: Value::Object(Map::new()),
            priority: DEFAULT_PRIORITY,
            available_at: None,
            version: None,
            once: None,
        }
    }
}

/// The version of a pipeline that a run is started of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Startable {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The version.
    pub version: i32,
    /// Its graph.
    pub graph: Digest,
}

impl Startable {
    /// The version to run: the one that is named, else the latest.
    ///
    /// # Errors
    /// [`Conflict::PipelineDisabled`]; [`ControlError::Invalid`] at `version` if there is no such version.
    pub(crate) async fn choose(
        store: &dyn ControlStore,
        head: &PipelineHead,
        version: Option<i32>,
    ) -> Result<Self, ControlError> {
        let named = match version {
            Some(version) if version != head.pipeline.version => {
                store.find_version(head.pipeline.id, version).await?
            }
            _ => None,
        };
        Self::of_loaded(head, version, named)
    }

    /// As [`choose`](Self::choose); `named` is the graph of the named version, if it is another than the latest.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub(crate) fn of_loaded(
        head: &PipelineHead,
        version: Option<i32>,
        named: Option<Digest>,
    ) -> Result<Self, ControlError> {
        let PipelineHead { pipeline, graph: latest } = head;
        pipeline.check_enabled()?;
        let (version, graph) = match version {
            Some(version) if version != pipeline.version => {
                (version, named.ok_or_else(|| no_such_version(version))?)
            }
            _ => (pipeline.version, *latest),
        };
        Ok(Self { pipeline: pipeline.id, version, graph })
    }
}

/// A pipeline that something other than a request starts, as it stands under a lock.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineToStart {
    /// The pipeline with its latest graph.
    pub head: PipelineHead,
    /// The graph of the version that is named; `None` if none is.
    pub named: Option<Digest>,
    /// What holds for a run of the version.
    pub rules: RunRules,
}

impl PipelineToStart {
    /// The version to run in this project.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the pipeline is one of another project; those of [`Startable::of_loaded`].
    pub(crate) fn startable(
        &self,
        project: ProjectId,
        version: Option<i32>,
    ) -> Result<Startable, ControlError> {
        if self.head.pipeline.project != project {
            return Err(ControlError::NotFound);
        }
        Startable::of_loaded(&self.head, version, self.named)
    }

    /// A run of the version in this project, with this input.
    ///
    /// # Errors
    /// As [`startable`](Self::startable), and [`Conflict::InvalidInput`].
    pub(crate) fn plan_run(
        &self,
        by: StartedBy<'_>,
        project: ProjectId,
        version: Option<i32>,
        input: Value,
    ) -> Result<PlannedRun, ControlError> {
        let Startable { pipeline, version, graph } = self.startable(project, version)?;
        let admitted = self.rules.admit(input);
        let admitted = admitted.map_err(|problems| Conflict::InvalidInput(below_input(problems)))?;
        let Admission { input, permit } = admitted;
        let start = StartRun { input, ..StartRun::default() };
        let planned = PlannedRun::new(by, graph, self.rules.timeout, start);
        Ok(PlannedRun { pipeline: Some((pipeline, version)), permit, ..planned })
    }
}

fn no_such_version(version: i32) -> ControlError {
    let message = format!("the pipeline has no version {version}");
    ControlError::Invalid(Problems::one(Pointer::root().join("version"), message))
}

impl RunControl {
    /// Starts a run of a pipeline: once this is answered, the run will reach a terminal state (I4).
    ///
    /// Repeats: the same idempotency key and body answer the same run, whatever became of the pipeline since.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`crate::Conflict::PipelineDisabled`] or
    /// [`crate::Conflict::KeyReused`]; [`ControlError::Invalid`] for a version that does not exist, or for an input that does
    /// not fit its schema. After [`ControlError::Unavailable`] it is unknown whether the run was accepted.
    pub async fn start(
        &self,
        caller: &Caller,
        pipeline: PipelineId,
        start: StartRun,
    ) -> Result<Run, ControlError> {
        let found = self.store.find_pipeline(caller, pipeline).await?;
        let head: Scoped<PipelineHead, right::Run> = Scoped::check(caller, found)?;
        let project = head.in_project();
        let once = start.once.as_ref().map(|body| body.about(&json!({ "pipeline_id": pipeline })));
        if let Some(run) = self.find_repeated(&project, once.as_ref()).await? {
            return Ok(run);
        }
        let startable = Startable::choose(&*self.store, &head, start.version).await?;
        let rules = &self.graphs.summarize(startable.graph).await?.rules;
        let Admission { input, permit } = rules.admit_request(start.input).await?;
        let start = StartRun { input, ..start };
        let planned = PlannedRun {
            pipeline: Some((pipeline, startable.version)),
            permit,
            once,
            ..PlannedRun::new(StartedBy::Caller(caller.user), startable.graph, rules.timeout, start)
        };
        self.accept(&project, &planned).await
    }

    /// The run that the same request started before. It is looked up before anything is planned, as what the run was
    /// made of may have changed since.
    pub(crate) async fn find_repeated(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        once: Option<&Once>,
    ) -> Result<Option<Run>, ControlError> {
        let Some(once) = once else { return Ok(None) };
        let found = self.store.find_repeated_run(project, once).await?;
        found.map(Creation::into_result).transpose()
    }

    pub(crate) async fn accept(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        planned: &PlannedRun,
    ) -> Result<Run, ControlError> {
        let accepted = self.store.accept_run(project, planned).await?;
        if let Creation::Created(run) = &accepted {
            tracing::info!(run.id = %run.id, project.id = %run.project, "run {} accepted", run.id);
        }
        accepted.into_result()
    }
}

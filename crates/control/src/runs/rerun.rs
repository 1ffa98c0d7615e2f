//! Rerunning a run that has ended: a new run, which keeps the results that stand.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::Caller;
use gathering_dag_engine::{Continuation, EarlierRun, Graph, RerunFrom, RerunPlan, RerunRefused, plan_rerun};
use gathering_domain::{Digest, KeyedBody, Once, PipelineId, Pointer, Problems, RunId};
use serde_json::{Value, json};

use super::nodes::load_journal;
use super::{PlannedRun, Run, RunControl, StartRun, Startable, StartedBy};
use crate::access::right;
use crate::graphs::Admission;
use crate::{Conflict, ControlError, RunRules, Scoped};

/// How a run is rerun.
#[derive(Debug, Clone, PartialEq)]
pub struct Rerun {
    /// From where: what succeeded before that point is kept, if it would be the same again.
    pub from: RerunFrom,
    /// The input of the new run; that of the old one if absent.
    pub input: Option<Value>,
    /// The version of the pipeline; that of the old run if absent.
    pub version: Option<i32>,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

/// A rerun that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedRerun {
    /// The new run.
    pub run: Run,
    /// What it keeps. Absent if the request is a repeat and the journal of the old run is no longer kept.
    pub plan: Option<RerunPlan>,
}

/// What a rerun executes.
pub(super) struct Correction {
    pub(super) graph: Digest,
    pub(super) pipeline: Option<(PipelineId, i32)>,
    pub(super) input: Value,
    pub(super) from: RerunFrom,
    /// Not to be claimed before, in UTC.
    pub(super) available_at: Option<DateTime<Utc>>,
}

impl RunControl {
    /// Reruns a run that has ended, as a new run that refers to it.
    ///
    /// Repeats: the same idempotency key and body answer the same run.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`Conflict::RunNotEnded`], [`Conflict::ChildRun`],
    /// [`Conflict::NothingFailed`], [`Conflict::JournalPruned`], [`Conflict::PipelineDisabled`] or [`Conflict::KeyReused`];
    /// [`ControlError::Invalid`] at `from` for a node that the graph does not have, or at `version` for a version that the
    /// pipeline does not have. After [`ControlError::Unavailable`] it is unknown whether the run was accepted.
    pub async fn rerun(
        &self,
        caller: &Caller,
        run: RunId,
        rerun: Rerun,
    ) -> Result<AcceptedRerun, ControlError> {
        let old = self.find::<right::Run>(caller, run).await?;
        let once = rerun.once.as_ref().map(|body| body.about(&json!({ "rerun_of": run })));
        if let Some(run) = self.find_repeated(&old.in_project(), once.as_ref()).await? {
            return self.repeated(&old, rerun.from, run).await;
        }
        let correction = self.correct(&old, rerun).await?;
        self.accept_rerun(&old, correction, StartedBy::Rerun(caller.user, run), once).await
    }

    /// What [`RunControl::rerun`] would keep. Nothing is started.
    ///
    /// # Errors
    /// As those of [`RunControl::rerun`].
    pub async fn preview_rerun(
        &self,
        caller: &Caller,
        run: RunId,
        rerun: Rerun,
    ) -> Result<RerunPlan, ControlError> {
        let old = self.find::<right::Run>(caller, run).await?;
        let correction = self.correct(&old, rerun).await?;
        self.plan_rerun(&old, &correction).await
    }

    /// The answer to a repeated request: what the run keeps is computed as it was the first time.
    async fn repeated(
        &self,
        old: &Scoped<Run, right::Run>,
        from: RerunFrom,
        run: Run,
    ) -> Result<AcceptedRerun, ControlError> {
        let (graph, pipeline, input) = (run.graph, run.pipeline, run.input.clone());
        match self.plan_rerun(old, &Correction { graph, pipeline, input, from, available_at: None }).await {
            Ok(plan) => Ok(AcceptedRerun { run, plan: Some(plan) }),
            Err(ControlError::Conflict(Conflict::JournalPruned)) => Ok(AcceptedRerun { run, plan: None }),
            Err(error) => Err(error),
        }
    }

    /// Accepts a run that continues the old one.
    pub(super) async fn accept_rerun(
        &self,
        old: &Scoped<Run, right::Run>,
        correction: Correction,
        by: StartedBy<'_>,
        once: Option<Once>,
    ) -> Result<AcceptedRerun, ControlError> {
        let mut plan = self.plan_rerun(old, &correction).await?;
        let Correction { graph, pipeline, input, available_at, .. } = correction;
        let rules = &self.graphs.summarize(graph).await?.rules;
        // A run of a file belongs to no pipeline, and has no others to be limited with.
        let limits = rules.limits.clone().filter(|_| pipeline.is_some());
        let timeout = rules.timeout;
        // The input was completed before.
        let rules = RunRules { timeout, input: None, limits };
        let Admission { input, permit } = rules.admit_request(input).await?;
        let start = StartRun { input, priority: old.priority, available_at, ..StartRun::default() };
        let planned = PlannedRun {
            kind: old.kind,
            pipeline,
            permit,
            rerun_of: Some(old.id),
            once,
            begins_with: std::mem::take(&mut plan.records),
            ..PlannedRun::new(by, graph, timeout, start)
        };
        let run = self.accept(&old.in_project(), &planned).await?;
        Ok(AcceptedRerun { run, plan: Some(plan) })
    }

    /// What the rerun executes, if the run may be rerun at all.
    async fn correct(&self, old: &Scoped<Run, right::Run>, rerun: Rerun) -> Result<Correction, ControlError> {
        if !old.state.is_terminal() {
            return Err(Conflict::RunNotEnded.into());
        }
        if let Some(parent) = old.parent {
            return Err(Conflict::ChildRun(parent).into());
        }
        let head = match old.pipeline {
            Some((pipeline, _)) => self.store.find_pipeline_in(old.project, pipeline).await?,
            None => None,
        };
        if let Some(head) = &head {
            head.pipeline.check_enabled()?;
        }
        let (graph, pipeline) = match (rerun.version, &head) {
            (None, _) => (old.graph, old.pipeline),
            (Some(version), Some(head)) => {
                let chosen = Startable::choose(&*self.store, head, Some(version)).await?;
                (chosen.graph, Some((chosen.pipeline, chosen.version)))
            }
            (Some(_), None) => {
                let message = "the pipeline of this run does not exist, so it has no versions";
                return Err(ControlError::Invalid(Problems::one(Pointer::root().join("version"), message)));
            }
        };
        let input = rerun.input.unwrap_or_else(|| old.input.clone());
        let input = self.complete_input(graph, input).await?;
        Ok(Correction { graph, pipeline, input, from: rerun.from, available_at: None })
    }

    /// What a rerun keeps. Computed on a thread of its own, since a large graph takes a while.
    async fn plan_rerun(&self, old: &Run, new: &Correction) -> Result<RerunPlan, ControlError> {
        let store = &**self.graphs.store();
        let (old_definition, new_definition) =
            (store.load_graph(old.graph).await?, store.load_graph(new.graph).await?);
        let journal = match new.from {
            RerunFrom::Start => Vec::new(),
            RerunFrom::Failed | RerunFrom::Node(_) => load_journal(store, old.id).await?,
        };
        // A run that was claimed has a journal for as long as retention keeps it.
        if new.from != RerunFrom::Start && journal.is_empty() && old.started_at.is_some() {
            return Err(Conflict::JournalPruned.into());
        }
        let decisions = store.find_outcomes(old.id).await?;
        let (specs, old, from) = (self.graphs.specs().clone(), old.clone(), new.from.clone());
        let input = new.input.clone();
        let computed = tokio::task::spawn_blocking(move || {
            let old_graph = Arc::new(Graph::validate(&old_definition, &specs)?);
            let new_graph = Arc::new(Graph::validate(&new_definition, &specs)?);
            let earlier = EarlierRun {
                id: old.id,
                project: old.project,
                graph: &old_graph,
                input: &old.input,
                journal: &journal,
                decisions: &decisions,
            };
            Ok(plan_rerun(earlier, old.state, Continuation { graph: &new_graph, input: &input, from: &from }))
        });
        let computed = computed.await.map_err(|panicked| ControlError::Broken(panicked.into()))?;
        let computed = computed.map_err(|problems: Problems| ControlError::Broken(problems.into()))?;
        computed.map_err(refused)
    }
}

fn refused(refused: RerunRefused) -> ControlError {
    match refused {
        RerunRefused::NothingFailed => Conflict::NothingFailed.into(),
        RerunRefused::UnknownNode(node) => {
            let message = format!("the graph has no node `{node}`");
            ControlError::Invalid(Problems::one(Pointer::root().join("from"), message))
        }
        corrupt @ RerunRefused::Corrupt(_) => ControlError::Broken(corrupt.into()),
    }
}

//! Rerunning a run that has ended: a new run, which keeps the results that stand.

use gathering_auth::Caller;
use gathering_dag_engine::{EarlierRun, Record, RerunFrom, RerunRefused, records_that_stand};
use gathering_domain::{KeyedBody, Pointer, Problems, RunId};
use serde_json::{Value, json};

use super::nodes::load_journal;
use super::{PlannedRun, Run, RunControl, StartedBy};
use crate::access::right;
use crate::{Conflict, ControlError, Scoped};

/// How a run is rerun.
#[derive(Debug, Clone, PartialEq)]
pub struct Rerun {
    /// From where: what succeeded before that point is kept.
    pub from: RerunFrom,
    /// The input of the new run; that of the old one if absent.
    pub input: Option<Value>,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

impl RunControl {
    /// Reruns a run that has ended, as a new run that refers to it.
    ///
    /// Repeats: the same idempotency key and body answer the same run.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`Conflict::RunNotEnded`], [`Conflict::ChildRun`],
    /// [`Conflict::NothingFailed`], [`Conflict::JournalPruned`], [`Conflict::PipelineDisabled`] or [`Conflict::KeyReused`];
    /// [`ControlError::Invalid`] at `from` for a node that the graph does not have. After
    /// [`ControlError::Unavailable`] it is unknown whether the run was accepted.
    pub async fn rerun(&self, caller: &Caller, run: RunId, rerun: Rerun) -> Result<Run, ControlError> {
        let old = self.find::<right::Run>(caller, run).await?;
        let project = old.in_project();
        let once = rerun.once.as_ref().map(|body| body.about(&json!({ "rerun_of": run })));
        if let Some(run) = self.find_repeated(&project, once.as_ref()).await? {
            return Ok(run);
        }
        self.check_repeatable(&old).await?;
        let planned = PlannedRun {
            id: RunId::new(),
            graph: old.graph,
            input: rerun.input.unwrap_or_else(|| old.input.clone()),
            priority: old.priority,
            available_at: None,
            timeout: self.graphs.summarize(old.graph).await?.timeout,
            kind: old.kind,
            trigger: StartedBy::Rerun(caller.user, run).trigger(),
            pipeline: old.pipeline,
            rerun_of: Some(run),
            once,
            begins_with: self.standing(&old, rerun.from).await?,
        };
        self.accept(&project, &planned).await
    }

    /// Whether the run may be rerun at all.
    async fn check_repeatable(&self, old: &Scoped<Run, right::Run>) -> Result<(), ControlError> {
        if !old.state.is_terminal() {
            return Err(Conflict::RunNotEnded.into());
        }
        if let Some(parent) = old.parent {
            return Err(Conflict::ChildRun(parent).into());
        }
        let Some((pipeline, _)) = old.pipeline else { return Ok(()) };
        match self.store.find_pipeline_in(old.project, pipeline).await? {
            Some(head) => head.pipeline.check_enabled(),
            None => Ok(()),
        }
    }

    /// What the new run's journal begins with. Computed on a thread of its own, since a large graph takes a while.
    async fn standing(
        &self,
        old: &Scoped<Run, right::Run>,
        from: RerunFrom,
    ) -> Result<Vec<Record>, ControlError> {
        let store = &**self.graphs.store();
        let definition = store.load_graph(old.graph).await?;
        let journal = match from {
            RerunFrom::Start => Vec::new(),
            RerunFrom::Failed | RerunFrom::Node(_) => load_journal(store, old.id).await?,
        };
        // A run that was claimed has a journal for as long as retention keeps it.
        if from != RerunFrom::Start && journal.is_empty() && old.started_at.is_some() {
            return Err(Conflict::JournalPruned.into());
        }
        let decisions = store.find_outcomes(old.id).await?;
        let (specs, id, ended) = (self.graphs.specs().clone(), old.id, old.state);
        let computed = tokio::task::spawn_blocking(move || {
            let graph = gathering_dag_engine::Graph::validate(&definition, &specs);
            let earlier = EarlierRun { id, journal: &journal, ended, decisions: &decisions };
            graph.map(|graph| records_that_stand(&graph, earlier, &from))
        });
        let computed = computed.await.map_err(|panicked| ControlError::Broken(panicked.into()))?;
        let computed = computed.map_err(|problems| ControlError::Broken(problems.into()))?;
        computed.map_err(|refused| match refused {
            RerunRefused::NothingFailed => Conflict::NothingFailed.into(),
            RerunRefused::UnknownNode(node) => {
                let message = format!("the graph has no node `{node}`");
                ControlError::Invalid(Problems::one(Pointer::root().join("from"), message))
            }
            corrupt @ RerunRefused::Corrupt(_) => ControlError::Broken(corrupt.into()),
        })
    }
}

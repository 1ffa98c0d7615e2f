//! Runs of the operator's local projects: of definitions in files, found again by their file.

use chrono::{DateTime, Utc};
use gathering_dag_engine::RerunFrom;
use serde_json::Value;

use super::rerun::Correction;
use super::{AcceptedRerun, PlannedRun, Run, RunControl, StartRun, StartedBy};
use crate::access::right;
use crate::projects::LocalProject;
use crate::{ControlError, Scoped};

/// A definition in a file. Two files of one path and name are versions of the same pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// The absolute path of the file.
    pub path: String,
    /// The name that the definition gives itself.
    pub name: Option<String>,
}

/// What a local run is continued with.
#[derive(Debug, Clone, PartialEq)]
pub struct RerunLocal<'a> {
    /// Where its definition is.
    pub file: &'a LocalFile,
    /// The definition as it is now, checked before.
    pub definition: &'a Value,
    /// The input; that of the old run if absent.
    pub input: Option<Value>,
    /// Not to be claimed before, in UTC.
    pub available_at: Option<DateTime<Utc>>,
}

impl RunControl {
    /// Starts a run of a definition from a file, in one of the operator's local projects.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] for an input that does not fit its schema. After [`ControlError::Unavailable`] it is
    /// unknown whether the run was accepted.
    pub async fn start_local(
        &self,
        project: &Scoped<LocalProject, right::Run>,
        file: &LocalFile,
        definition: &Value,
        start: StartRun,
    ) -> Result<Scoped<Run, right::Run>, ControlError> {
        let graph = self.ensure_graph(definition).await?;
        let rules = &self.graphs.summarize(graph).await?.rules;
        let start = StartRun { input: rules.complete_input_of_request(start.input).await?, ..start };
        let planned = PlannedRun::new(StartedBy::Local(file), graph, rules.timeout, start);
        Ok(project.with(self.accept(&project.in_project(), &planned).await?))
    }

    /// The latest run of this file, whatever the file held then.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_local(
        &self,
        project: &Scoped<LocalProject, right::Run>,
        file: &LocalFile,
    ) -> Result<Option<Scoped<Run, right::Run>>, ControlError> {
        let found = self.store.find_local_run(project, file).await?;
        Ok(found.map(|run| project.with(run)))
    }

    /// Requests the cancellation of a local run; see [`RunControl::cancel`]. Repeats: safe, also if it has ended.
    ///
    /// # Errors
    /// The store's.
    pub async fn cancel_local(&self, run: &Scoped<Run, right::Run>) -> Result<(), ControlError> {
        self.store.cancel_run(run).await.map(|_| ())
    }

    /// Continues a local run that has ended, as a new run: from what failed or was changed.
    ///
    /// # Errors
    /// [`Conflict::NothingFailed`](crate::Conflict::NothingFailed) or
    /// [`Conflict::JournalPruned`](crate::Conflict::JournalPruned). After [`ControlError::Unavailable`] it is unknown
    /// whether the run was accepted.
    pub async fn rerun_local(
        &self,
        old: &Scoped<Run, right::Run>,
        rerun: RerunLocal<'_>,
    ) -> Result<AcceptedRerun, ControlError> {
        let graph = self.ensure_graph(rerun.definition).await?;
        let input = rerun.input.unwrap_or_else(|| old.input.clone());
        let input = self.complete_input(graph, input).await?;
        let correction = Correction {
            graph,
            pipeline: None,
            input,
            from: RerunFrom::Failed,
            available_at: rerun.available_at,
        };
        self.accept_rerun(old, correction, StartedBy::Local(rerun.file), None).await
    }
}

//! The cases, one promise of [`ControlStore`](crate::ControlStore) and the rules above it each. Every case wants an
//! empty store.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

mod agents;
mod budgets;
mod calendars;
mod decisions;
mod event_schedules;
mod events;
mod hook_calls;
mod hook_secrets;
mod hooks;
mod inputs;
mod mcp_servers;
mod members;
mod pipelines;
mod projects;
mod questions;
mod reruns;
mod runs;
mod schedule_views;
mod schedules;
mod secret_values;
mod secrets;
mod tools;

use gathering_auth::{Caller, Role};
use gathering_dag_engine::{
    Checkpoint, Claim, JournalEvent, NodeSpecs, Record, Release, RunEnd, RunError, RunResult,
};
use gathering_domain::{FailureKind, NodeId, PipelineId, Pointer, ProjectId, RunId};
use serde_json::{Value, json};

use super::ControlFixture;
use crate::{
    ChangePipeline, Conflict, ControlError, DefinePipeline, ExpectedRevision, Graphs, PipelineControl,
    RunControl, SubmittedDefinition,
};

pub use agents::*;
pub use budgets::*;
pub use calendars::*;
pub use decisions::*;
pub use event_schedules::*;
pub use events::*;
pub use hook_calls::*;
pub use hook_secrets::*;
pub use hooks::*;
pub use inputs::*;
pub use mcp_servers::*;
pub use members::*;
pub use pipelines::*;
pub use projects::*;
pub use questions::*;
pub use reruns::*;
pub use runs::*;
pub use schedule_views::*;
pub use schedules::*;
pub use secret_values::*;
pub use secrets::*;
pub use tools::*;

/// A member who owns a project with a pipeline.
#[derive(Clone)]
struct World {
    runs: RunControl,
    pipelines: PipelineControl,
    owner: Caller,
    project: ProjectId,
    pipeline: PipelineId,
}

impl World {
    async fn new<F: ControlFixture>(fixture: &F) -> Self {
        let owner = fixture.account(Role::Member).await;
        let project = fixture.project(&owner).await;
        let graphs = Graphs::new(fixture.run_store(), NodeSpecs::builtin(), 16);
        let runs = RunControl::new(fixture.store(), graphs.clone());
        let pipelines = PipelineControl::new(fixture.store(), graphs);
        let first = define_in(project, definition("first"));
        let pipeline = pipelines.define(&owner, first).await.unwrap().pipeline.id;
        Self { runs, pipelines, owner, project, pipeline }
    }

    /// Another pipeline of the project.
    async fn define(&self, definition: &Value) -> PipelineId {
        let defined = self.pipelines.define(&self.owner, define_in(self.project, definition.clone())).await;
        defined.unwrap().pipeline.id
    }

    /// Enables or disables the pipeline, and gives it another definition where there is one.
    async fn change(&self, enabled: bool, definition: Option<&Value>) {
        let definition = definition.map(|definition| submitted(definition.clone()));
        let change = ChangePipeline { enabled: Some(enabled), definition, ..ChangePipeline::default() };
        self.pipelines.change(&self.owner, self.pipeline, ExpectedRevision::Any, change).await.unwrap();
    }
}

/// A definition as a JSON body has it.
fn submitted(value: Value) -> SubmittedDefinition {
    SubmittedDefinition { value, at: Pointer::root().join("definition") }
}

/// A new, enabled pipeline of this project.
fn define_in(project: ProjectId, definition: Value) -> DefinePipeline {
    DefinePipeline { project: Some(project), ..DefinePipeline::new("numbers", definition) }
}

/// A definition of one node.
fn definition(node: &str) -> Value {
    json!({"nodes": [{"id": node, "type": "trigger"}]})
}

fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

fn conflict<T: std::fmt::Debug>(answer: Result<T, ControlError>) -> Conflict {
    match answer {
        Err(ControlError::Conflict(conflict)) => conflict,
        other => panic!("{other:?}"),
    }
}

/// Claims a run, as an instance would.
async fn claim<F: ControlFixture>(fixture: &F, run: RunId) -> Claim {
    let instance = fixture.instance().await;
    fixture.run_store().claim_run(instance, run).await.unwrap().unwrap().claim
}

/// Writes what happened in a claimed run.
async fn commit<F: ControlFixture>(
    fixture: &F,
    claim: Claim,
    events: Vec<(&str, JournalEvent)>,
    release: Option<Release>,
) {
    let records = events.into_iter().map(|(id, event)| Record::of_node(node(id), 1, event)).collect();
    let checkpoint = Checkpoint { claim, first_seq: 1, records, release, frees: Vec::new() };
    let written = fixture.run_store().commit(&[checkpoint]).await.unwrap();
    assert!(written.iter().all(Result::is_ok), "{written:?}");
}

/// The end of a run that failed.
fn failed() -> Release {
    let error = RunError::of(FailureKind::Failed, "it failed");
    Release::End(RunEnd { result: RunResult::Failed(error), abandons_children: false, is_limited: false })
}

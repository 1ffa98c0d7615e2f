//! Tools called by themselves: each call is a run, and none starts with bad parameters.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gathering_auth::Role;
use gathering_dag_engine::{
    Checkpoint, JournalEvent, NodeFailure, Record, Release, RunEnd, RunError, RunResult, StoreError,
};
use gathering_domain::{EffectClass, FailureKind, KeyedBody, ProjectId, RunKind};
use gathering_nodes::ProjectTools;
use gathering_tools::{BlockingPool, Tool, ToolContext, ToolError, ToolSource, ToolSpec, Toolbox};
use serde_json::{Value, json};

use super::{World, claim, conflict, node};
use crate::testing::ControlFixture;
use crate::{CallTool, Conflict, ControlError, ProjectControl, ToolControl};

/// A tool with one parameter. Nothing here calls it.
struct Count(ToolSpec);

#[async_trait]
impl Tool for Count {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, _params: Value, _context: &ToolContext) -> Result<Value, ToolError> {
        panic!("a run calls it, not the control")
    }
}

fn tools_of<F: ControlFixture>(fixture: &F, world: &World) -> ToolControl {
    let properties = json!({"n": {"type": "integer"}});
    let count = ToolSpec {
        name: "count".to_owned(),
        description: "Counts".to_owned(),
        parameters: json!({"type": "object", "properties": properties, "required": ["n"], "additionalProperties": false}),
        class: EffectClass::Pure,
        source: ToolSource::BuiltIn,
    };
    let mut tools = Toolbox::new(BlockingPool::new(2));
    tools.register(Count(count)).unwrap();
    ToolControl::new(ProjectControl::new(fixture.store()), world.runs.clone(), tools)
}

fn call(world: &World, params: Value) -> CallTool {
    let project = Some(world.project);
    CallTool { tool: "count".to_owned(), params, project, timeout: None, once: None }
}

/// The parameters are its input, as data, and all calls of a tool have one graph.
pub async fn a_call_of_a_tool_is_a_run_of_its_own_kind<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let tools = tools_of(fixture, &world);
    let timed = CallTool { timeout: Some(Duration::from_secs(60)), ..call(&world, json!({"n": 1})) };
    let first = tools.call(&world.owner, timed).await.unwrap();
    assert_eq!((first.kind, first.project, &first.input), (RunKind::Tool, world.project, &json!({"n": 1})));
    let trigger = json!({"type": "tool", "user_id": world.owner.user, "tool": "count"});
    assert_eq!((&first.trigger, first.pipeline), (&trigger, None));
    assert!(first.deadline_at.is_some());
    let second = tools.call(&world.owner, call(&world, json!({"n": 2}))).await.unwrap();
    assert_eq!((first.graph, second.deadline_at), (second.graph, None));
}

/// Nothing is executed, and every place is named.
pub async fn a_call_with_bad_parameters_starts_nothing<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let tools = tools_of(fixture, &world);
    match tools.call(&world.owner, call(&world, json!({"m": 1}))).await {
        Err(ControlError::Invalid(problems)) => {
            assert_eq!(problems.to_string(), "/params/m: is unknown here; /params/n: is required");
        }
        other => panic!("{other:?}"),
    }
    let unknown = CallTool { tool: "fly".to_owned(), ..call(&world, json!({"n": 1})) };
    assert!(matches!(tools.call(&world.owner, unknown).await, Err(ControlError::NotFound)));
    let stranger = fixture.account(Role::Member).await;
    let theirs = tools.call(&stranger, call(&world, json!({"n": 1}))).await;
    assert!(matches!(theirs, Err(ControlError::NotFound)), "a project of others is not there");
}

/// One project with a tool more than the others.
struct OneProject(ProjectId, Toolbox);

#[async_trait]
impl ProjectTools for OneProject {
    async fn open(&self, project: ProjectId) -> Result<Toolbox, StoreError> {
        let mut tools = self.1.clone();
        if project == self.0 {
            let spec = ToolSpec { name: "time__count".to_owned(), ..tools.get("count").unwrap().clone() };
            tools.register(Count(spec)).unwrap();
        }
        Ok(tools)
    }
}

/// Members of the project see and call it, and for others it is absent.
pub async fn a_tool_of_one_project_is_there_for_its_members_only<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let tools = tools_of(fixture, &world);
    let own = tools.open(&world.owner, None).await.unwrap();
    let tools = tools.with_project_tools(Arc::new(OneProject(world.project, own)));
    let (name, here) = ("time__count", Some(world.project));
    assert_eq!(tools.find(&world.owner, here, name).await.unwrap().name, name);
    let everywhere = tools.find(&world.owner, None, name).await;
    assert!(matches!(everywhere, Err(ControlError::NotFound)), "{everywhere:?}");
    let stranger = fixture.account(Role::Member).await;
    let theirs = tools.open(&stranger, here).await;
    assert!(matches!(theirs, Err(ControlError::NotFound)), "{theirs:?}");

    let of_project = |params: Value| CallTool { tool: name.to_owned(), ..call(&world, params) };
    let run = tools.call(&world.owner, of_project(json!({"n": 1}))).await.unwrap();
    assert_eq!(run.trigger["tool"], name);
    let bad = tools.call(&world.owner, of_project(json!({}))).await;
    assert!(matches!(bad, Err(ControlError::Invalid(_))), "{bad:?}");
    let default = CallTool { project: None, ..of_project(json!({"n": 1})) };
    let elsewhere = tools.call(&world.owner, default).await;
    assert!(matches!(elsewhere, Err(ControlError::NotFound)), "{elsewhere:?}");
}

/// The same key and body are one call, and another body is refused.
pub async fn a_repeated_call_of_a_tool_is_the_same_run<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let tools = tools_of(fixture, &world);
    let keyed = |n: i64| {
        let params = json!({ "n": n });
        let once = Some(KeyedBody::new("call-1".parse().unwrap(), &params));
        CallTool { once, ..call(&world, params) }
    };
    let first = tools.call(&world.owner, keyed(1)).await.unwrap();
    assert_eq!(tools.call(&world.owner, keyed(1)).await.unwrap().id, first.id);
    assert_eq!(conflict(tools.call(&world.owner, keyed(2)).await), Conflict::KeyReused);
    let without = Toolbox::new(BlockingPool::new(2));
    let without = ToolControl::new(ProjectControl::new(fixture.store()), world.runs.clone(), without);
    let repeated = without.call(&world.owner, keyed(1)).await.unwrap();
    assert_eq!(repeated.id, first.id, "also where the tool is no more");
}

/// Of a call that was made.
pub async fn the_failure_of_a_call_is_that_of_its_node<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let tools = tools_of(fixture, &world);
    let run = tools.call(&world.owner, call(&world, json!({"n": 1}))).await.unwrap().id;
    assert_eq!(tools.find_failure(run).await.unwrap(), None);
    let failure = NodeFailure::permanent(FailureKind::NotFound, "it is not there");
    let error =
        RunError { node_id: Some("call".to_owned()), ..RunError::of(FailureKind::NodeFailed, "it failed") };
    let end = Release::End(RunEnd {
        result: RunResult::Failed(error),
        abandons_children: false,
        is_limited: false,
    });
    let claim = claim(fixture, run).await;
    // The claim has recorded the start of the node.
    let first_seq = fixture.run_store().load_journal(run, 0, 10).await.unwrap().len() as i64 + 1;
    let records = vec![Record::of_node(node("call"), 1, JournalEvent::Failed(failure.clone()))];
    let checkpoint = Checkpoint { claim, first_seq, records, release: Some(end), frees: Vec::new() };
    assert!(fixture.run_store().commit(&[checkpoint]).await.unwrap()[0].is_ok());
    assert_eq!(tools.find_failure(run).await.unwrap(), Some(failure));
}

//! Starting runs, and finding them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use chrono::{TimeDelta, Utc};
use gathering_auth::{Caller, ProjectRole, Role};
use gathering_dag_engine::{ChildKind, Parent, RerunFrom};
use gathering_domain::{Digest, KeyedBody, PipelineId, ProjectId, RunId, RunKind, RunState};
use gathering_nodes::{ChildPipeline, ChildPipelines as _, StartPipelineError};
use serde_json::{Value, json};

use super::{World, claim, conflict, definition, node};
use crate::testing::ControlFixture;
use crate::{
    Conflict, ControlError, Decide, LocalFile, Operator, ProjectControl, ProjectPipelines, Rerun, RerunLocal,
    Run, Scoped, StartRun, right,
};

pub(super) fn keyed(key: &str, body: Value) -> StartRun {
    let once = KeyedBody::new(key.parse().unwrap(), &body);
    StartRun { input: body["input"].clone(), once: Some(once), ..StartRun::default() }
}

/// Starts a pipeline as a child, as a node of the claimed parent would; answers with the child's id.
async fn start_child<F: ControlFixture>(
    fixture: &F,
    project: ProjectId,
    parent: RunId,
    pipeline: PipelineId,
) -> Result<RunId, StartPipelineError> {
    let pipelines = ProjectPipelines::new(fixture.store(), fixture.run_store(), fixture.child_runs());
    let parent = Parent { run: parent, node: node("call"), round: 0 };
    let id = parent.child(0);
    let kind = ChildKind::Awaited;
    let child = ChildPipeline {
        project,
        parent,
        item: 0,
        kind,
        pipeline,
        input: json!({}),
        earlier_runs: Vec::new(),
        now: Utc::now(),
    };
    pipelines.start(child).await.map(|()| id)
}

impl World {
    pub(super) async fn start(&self, by: &Caller, start: StartRun) -> Result<Run, ControlError> {
        self.runs.start(by, self.pipeline, start).await
    }

    async fn find(&self, by: &Caller, run: RunId) -> Result<Scoped<Run, right::Run>, ControlError> {
        self.runs.find(by, run).await
    }
}

/// What was asked for is what stands, in the answer and in the store.
pub async fn a_started_run_is_queued_and_names_who_started_it<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let start = StartRun { input: json!({"n": 1}), priority: 7, ..StartRun::default() };
    let run = world.start(&world.owner, start).await.unwrap();
    assert_eq!((run.state, run.project, run.priority), (RunState::Queued, world.project, 7));
    assert_eq!((run.kind, run.pipeline), (RunKind::Pipeline, Some((world.pipeline, 1))));
    assert_eq!(run.trigger, json!({"type": "api", "user_id": world.owner.user}));
    assert_eq!((&run.input, run.graph), (&json!({"n": 1}), Digest::of_json(&definition("first"))));
    assert_eq!((run.deadline_at, run.parent, run.rerun_of), (None, None, None));
    assert_eq!(world.find(&world.owner, run.id).await.unwrap().into_thing(), run);
}

/// `timeout_seconds` of the definition counts from the acceptance.
pub async fn a_run_ends_in_the_time_that_its_definition_allows<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let mut limited = definition("limited");
    limited["timeout_seconds"] = json!(90);
    let pipeline = world.define(&limited).await;
    let run = world.runs.start(&world.owner, pipeline, StartRun::default()).await.unwrap();
    assert_eq!(run.deadline_at, Some(run.created_at + TimeDelta::seconds(90)));
    let project = ProjectControl::new(fixture.store()).ensure_local(Operator, "/tmp/limited").await.unwrap();
    let run = world.runs.start_local(&project, &local_file(), &limited, StartRun::default()).await.unwrap();
    assert_eq!(run.deadline_at, Some(run.created_at + TimeDelta::seconds(90)));
}

/// A stranger cannot tell a pipeline from none.
pub async fn a_stranger_finds_no_pipeline_and_a_viewer_starts_none<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let caller = fixture.account(Role::Member).await;
    let refused = world.start(&caller, StartRun::default()).await;
    assert!(matches!(refused, Err(ControlError::NotFound)), "{refused:?}");
    fixture.join(world.project, &caller, ProjectRole::Viewer).await;
    let refused = world.start(&caller, StartRun::default()).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    let editor = fixture.account(Role::Member).await;
    fixture.join(world.project, &editor, ProjectRole::Editor).await;
    assert!(world.start(&editor, StartRun::default()).await.is_ok());
}

/// An admin needs no membership.
pub async fn an_admin_starts_a_run_in_any_project<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let admin = fixture.account(Role::Admin).await;
    let run = world.start(&admin, StartRun::default()).await.unwrap();
    assert_eq!(run.trigger["user_id"], json!(admin.user));
}

/// Neither a caller nor a node starts it, until it is enabled again.
pub async fn a_disabled_pipeline_starts_no_run<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let parent = world.start(&world.owner, StartRun::default()).await.unwrap().id;
    claim(fixture, parent).await;
    world.change(false, None).await;
    let refused = world.start(&world.owner, StartRun::default()).await;
    assert_eq!(conflict(refused), Conflict::PipelineDisabled);
    let refused = start_child(fixture, world.project, parent, world.pipeline).await;
    assert!(matches!(refused, Err(StartPipelineError::Disabled(_))), "{refused:?}");
    world.change(true, None).await;
    assert!(world.start(&world.owner, StartRun::default()).await.is_ok());
    start_child(fixture, world.project, parent, world.pipeline).await.unwrap();
}

/// A version that does not exist is named as the field that is wrong.
pub async fn a_run_has_the_latest_version_unless_another_is_named<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    world.change(true, Some(&definition("second"))).await;
    for (named, version, node) in [(None, 2, "second"), (Some(2), 2, "second"), (Some(1), 1, "first")] {
        let start = StartRun { version: named, ..StartRun::default() };
        let run = world.start(&world.owner, start).await.unwrap();
        assert_eq!(run.pipeline, Some((world.pipeline, version)));
        assert_eq!(run.graph, Digest::of_json(&definition(node)));
    }
    let missing = world.start(&world.owner, StartRun { version: Some(3), ..StartRun::default() }).await;
    let Err(ControlError::Invalid(problems)) = missing else { panic!("{missing:?}") };
    assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/version");
}

/// The second is answered with the run as it stands then.
pub async fn the_same_key_and_body_start_one_run<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let body = json!({"input": {"n": 1}});
    let first = world.start(&world.owner, keyed("k", body.clone())).await.unwrap();
    let second = world.start(&world.owner, keyed("k", body.clone())).await.unwrap();
    assert_eq!(first, second);
    let other = world.start(&world.owner, keyed("l", body)).await.unwrap();
    assert_ne!(first.id, other.id);
}

/// Both are answered with the same run.
pub async fn of_two_starts_with_one_key_at_once_one_is_accepted<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let start = || world.start(&world.owner, keyed("k", json!({"input": {}})));
    let (one, two) = tokio::join!(start(), start());
    assert_eq!(one.unwrap().id, two.unwrap().id);
}

/// The key belongs to the request that came with it first.
pub async fn a_key_with_another_body_is_refused<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    world.start(&world.owner, keyed("k", json!({"input": 1}))).await.unwrap();
    let refused = world.start(&world.owner, keyed("k", json!({"input": 2}))).await;
    assert_eq!(conflict(refused), Conflict::KeyReused);
    let pipeline = world.define(&definition("other")).await;
    let refused = world.runs.start(&world.owner, pipeline, keyed("k", json!({"input": 1}))).await;
    assert_eq!(conflict(refused), Conflict::KeyReused);
}

/// What was answered once is answered again.
pub async fn a_repeated_start_is_answered_whatever_became_of_the_pipeline<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let start = || keyed("k", json!({"input": 1}));
    let first = world.start(&world.owner, start()).await.unwrap();
    world.change(false, Some(&definition("second"))).await;
    assert_eq!(world.start(&world.owner, start()).await.unwrap().id, first.id);
}

/// With the rights of their role.
pub async fn a_run_is_found_by_the_members_of_its_project<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let run = world.start(&world.owner, StartRun::default()).await.unwrap().id;
    let caller = fixture.account(Role::Member).await;
    assert!(matches!(world.find(&caller, run).await, Err(ControlError::NotFound)));
    assert!(matches!(world.find(&world.owner, RunId::new()).await, Err(ControlError::NotFound)));
    fixture.join(world.project, &caller, ProjectRole::Viewer).await;
    assert!(matches!(world.find(&caller, run).await, Err(ControlError::Forbidden)));
    let seen = world.runs.find::<right::Read>(&caller, run).await.unwrap();
    assert_eq!((seen.thing().id, seen.membership()), (run, Some(ProjectRole::Viewer)));
}

/// What never began ends at once, and what has ended stays as it is.
pub async fn a_cancelled_run_ends_and_is_not_cancelled_twice<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let run = world.start(&world.owner, StartRun::default()).await.unwrap().id;
    let cancelled = world.runs.cancel(&world.owner, run).await.unwrap();
    assert_eq!((cancelled.id, cancelled.state), (run, RunState::Cancelled));
    assert_eq!(conflict(world.runs.cancel(&world.owner, run).await), Conflict::RunEnded);
    let driven = world.start(&world.owner, StartRun::default()).await.unwrap().id;
    claim(fixture, driven).await;
    for _ in 0..2 {
        let cancelled = world.runs.cancel(&world.owner, driven).await.unwrap();
        assert_eq!(cancelled.state, RunState::Running, "its driver ends it");
    }
}

/// To look is all that a viewer may do.
pub async fn a_viewer_neither_cancels_nor_reruns_nor_decides<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let run = world.start(&world.owner, StartRun::default()).await.unwrap().id;
    let viewer = fixture.account(Role::Member).await;
    fixture.join(world.project, &viewer, ProjectRole::Viewer).await;
    let cancelled = world.runs.cancel(&viewer, run).await;
    assert!(matches!(cancelled, Err(ControlError::Forbidden)), "{cancelled:?}");
    let rerun = Rerun { from: RerunFrom::Start, input: None, version: None, once: None };
    let rerun = world.runs.rerun(&viewer, run, rerun).await;
    assert!(matches!(rerun, Err(ControlError::Forbidden)), "{rerun:?}");
    let decide = Decide { approve: true, comment: None };
    let decided = world.runs.decide(&viewer, run, &node("first"), decide).await;
    assert!(matches!(decided, Err(ControlError::Forbidden)), "{decided:?}");
    assert_eq!(world.find(&world.owner, run).await.unwrap().state, RunState::Queued);
}

/// Its own project is all that a node can reach.
pub async fn a_node_runs_the_pipelines_of_its_own_project_only<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let parent = world.start(&world.owner, StartRun::default()).await.unwrap().id;
    claim(fixture, parent).await;
    let mut limited = definition("second");
    limited["timeout_seconds"] = json!(60);
    world.change(true, Some(&limited)).await;
    let child = start_child(fixture, world.project, parent, world.pipeline).await.unwrap();
    let child = world.find(&world.owner, child).await.unwrap();
    assert_eq!((child.graph, child.project), (Digest::of_json(&limited), world.project));
    assert!(child.deadline_at.is_some());
    let other = fixture.project(&world.owner).await;
    let missing = start_child(fixture, other, parent, world.pipeline).await;
    assert!(matches!(missing, Err(StartPipelineError::Missing(_))), "{missing:?}");
}

fn local_file() -> LocalFile {
    LocalFile { path: "/home/ada/p.yaml".to_owned(), name: Some("p".to_owned()) }
}

/// Whatever the file held then; of another file, name or project there is none.
pub async fn a_local_run_is_found_by_its_file_and_continued<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let projects = ProjectControl::new(fixture.store());
    let project = projects.ensure_local(Operator, "/home/ada/work").await.unwrap();
    let other = projects.ensure_local(Operator, "/home/ada/other").await.unwrap();
    let file = local_file();
    assert!(world.runs.find_local(&project, &file).await.unwrap().is_none());
    let old = definition("old");
    world.runs.start_local(&project, &file, &old, StartRun::default()).await.unwrap();
    let latest = world.runs.start_local(&project, &file, &old, StartRun::default()).await.unwrap();
    let found = world.runs.find_local(&project, &file).await.unwrap().unwrap();
    assert_eq!(found.id, latest.id);
    for (project, path, name) in [
        (&other, "/home/ada/p.yaml", Some("p")),
        (&project, "/home/ada/q.yaml", Some("p")),
        (&project, "/home/ada/p.yaml", Some("q")),
        (&project, "/home/ada/p.yaml", None),
    ] {
        let file = LocalFile { path: path.to_owned(), name: name.map(str::to_owned) };
        assert!(world.runs.find_local(project, &file).await.unwrap().is_none(), "{file:?}");
    }
    world.runs.cancel_local(&found).await.unwrap();
    let found = world.runs.find_local(&project, &file).await.unwrap().unwrap();
    assert!(found.state.is_terminal());
    let definition = definition("corrected");
    let rerun = RerunLocal { file: &file, definition: &definition, input: None, available_at: None };
    let continued = world.runs.rerun_local(&found, rerun).await.unwrap();
    assert_eq!((continued.run.rerun_of, continued.run.graph), (Some(found.id), Digest::of_json(&definition)));
    let found = world.runs.find_local(&project, &file).await.unwrap().unwrap();
    assert_eq!(found.id, continued.run.id, "what continues a run is the latest one");
}

/// Not even an admin sees it or its runs.
pub async fn a_local_project_is_the_same_each_time_and_hidden_from_accounts<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let projects = ProjectControl::new(fixture.store());
    let path = "/home/ada/work";
    let (one, two) =
        tokio::join!(projects.ensure_local(Operator, path), projects.ensure_local(Operator, path));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.thing(), one.name.as_str()), (two.thing(), "work"));
    let other = projects.ensure_local(Operator, "/home/ada/other").await.unwrap();
    assert_ne!(other.id, one.id);
    let run =
        world.runs.start_local(&one, &local_file(), &definition("file"), StartRun::default()).await.unwrap();
    assert_eq!((run.kind, run.project), (RunKind::Local, one.id));
    assert_eq!(
        (&run.trigger, run.pipeline),
        (&json!({"type": "local", "file": "/home/ada/p.yaml", "name": "p"}), None)
    );
    let admin = fixture.account(Role::Admin).await;
    let hidden = projects.find::<right::Read>(&admin, one.id).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
    let hidden = world.runs.find::<right::Read>(&admin, run.id).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
}

//! Defining, changing, deleting and listing pipelines.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_auth::{Caller, ProjectRole, Role};
use gathering_domain::{KeyedBody, PipelineId, Pointer, ProjectId};
use serde_json::{Value, json};

use super::{World, conflict, define_in, definition, submitted};
use crate::testing::{ControlFixture, key_caller};
use crate::{
    ChangePipeline, Conflict, ControlError, DefinePipeline, DefinedPipeline, Definitions, ExpectedRevision,
    Pipeline, PipelineVersion, StartRun, SubmittedDefinition, right,
};

/// Wrong at `/nodes/0/type` and at `/edges/0/to`.
fn broken() -> Value {
    json!({"nodes": [{"id": "a", "type": "fly"}], "edges": [{"from": "a", "to": "nowhere"}]})
}

fn invalid<T: std::fmt::Debug>(answer: Result<T, ControlError>) -> Vec<String> {
    let Err(ControlError::Invalid(problems)) = answer else { panic!("{answer:?}") };
    problems.iter().map(|problem| problem.pointer.as_str().to_owned()).collect()
}

fn only(pipeline: &Pipeline) -> ExpectedRevision {
    ExpectedRevision::OneOf(vec!["1.another".to_owned(), pipeline.revision()])
}

fn to(definition: Value) -> ChangePipeline {
    ChangePipeline { definition: Some(submitted(definition)), ..ChangePipeline::default() }
}

impl World {
    /// Asks for a pipeline with an idempotency key; the body is the definition.
    async fn define_once(&self, key: &str, body: Value) -> Result<DefinedPipeline, ControlError> {
        let once = Some(KeyedBody::new(key.parse().unwrap(), &body));
        let define = DefinePipeline { once, ..define_in(self.project, body) };
        self.pipelines.define(&self.owner, define).await
    }

    async fn change_if(
        &self,
        expected: ExpectedRevision,
        change: ChangePipeline,
    ) -> Result<DefinedPipeline, ControlError> {
        self.pipelines.change(&self.owner, self.pipeline, expected, change).await
    }

    async fn load(&self) -> DefinedPipeline {
        self.pipelines.load(&self.owner, self.pipeline).await.unwrap()
    }

    async fn list(&self, by: &Caller, project: Option<ProjectId>) -> Vec<PipelineId> {
        let listed = self.pipelines.list(by, project, None, 10).await.unwrap();
        listed.into_iter().map(|pipeline| pipeline.id).collect()
    }

    async fn versions(&self, before: Option<i32>, limit: usize) -> (Vec<PipelineVersion>, bool) {
        let omitted = Definitions::Omitted;
        let page = self.pipelines.list_versions(&self.owner, self.pipeline, before, limit, omitted).await;
        let page = page.unwrap();
        (page.items, page.has_more)
    }
}

/// The answer is what is stored, definition included.
pub async fn a_pipeline_is_found_as_it_was_defined<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let define = DefinePipeline {
        name: "odd".to_owned(),
        description: "of three".to_owned(),
        enabled: false,
        ..define_in(world.project, definition("odd"))
    };
    let created = world.pipelines.define(&world.owner, define).await.unwrap();
    let Pipeline { id, project, name, description, enabled, version, created_at, updated_at } =
        created.pipeline.clone();
    assert_eq!((project, name.as_str(), description.as_str()), (world.project, "odd", "of three"));
    assert_eq!((enabled, version, created_at == updated_at), (false, 1, true));
    assert_eq!(created.definition, definition("odd"));
    assert_eq!(world.pipelines.load(&world.owner, id).await.unwrap(), created);
}

/// Without a project, the default one is it.
pub async fn a_pipeline_belongs_to_the_default_project_unless_another_is_named<F: ControlFixture>(
    fixture: &F,
) {
    let world = World::new(fixture).await;
    let homeless = DefinePipeline { project: None, ..define_in(world.project, definition("a")) };
    let created = world.pipelines.define(&world.owner, homeless).await.unwrap().pipeline;
    let default = fixture.store().find_default_project(&world.owner).await.unwrap();
    assert_eq!(Some(created.project), default);
    assert_ne!(created.project, world.project);
}

/// Every problem is named at its place in the request, and nothing is stored.
pub async fn an_invalid_definition_is_refused_with_every_problem<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let before = world.load().await;
    let refused = world.pipelines.define(&world.owner, define_in(world.project, broken())).await;
    assert_eq!(invalid(refused), ["/definition/nodes/0/type", "/definition/edges/0/to"]);
    let refused = world.change_if(ExpectedRevision::Any, to(broken())).await;
    assert_eq!(invalid(refused), ["/definition/nodes/0/type", "/definition/edges/0/to"]);
    let alone = SubmittedDefinition { value: broken(), at: Pointer::root() };
    let alone = ChangePipeline { definition: Some(alone), ..ChangePipeline::default() };
    let refused = world.change_if(ExpectedRevision::Any, alone).await;
    assert_eq!(invalid(refused), ["/nodes/0/type", "/edges/0/to"]);
    assert_eq!(world.load().await, before);
    assert_eq!(world.list(&world.owner, None).await, [world.pipeline]);
}

/// A stranger cannot tell a pipeline or project from none; a viewer only reads.
pub async fn a_viewer_sees_pipelines_and_changes_none<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let caller = fixture.account(Role::Member).await;
    let (any, pipelines) = (|| ExpectedRevision::Any, &world.pipelines);
    let define = || pipelines.define(&caller, define_in(world.project, definition("a")));
    let change = || pipelines.change(&caller, world.pipeline, any(), ChangePipeline::default());
    let delete = || pipelines.delete(&caller, world.pipeline, any());
    let versions = || pipelines.list_versions(&caller, world.pipeline, None, 1, Definitions::Omitted);
    assert!(matches!(define().await, Err(ControlError::NotFound)));
    assert!(matches!(change().await, Err(ControlError::NotFound)));
    assert!(matches!(delete().await, Err(ControlError::NotFound)));
    assert!(matches!(versions().await, Err(ControlError::NotFound)));
    assert!(matches!(pipelines.load(&caller, world.pipeline).await, Err(ControlError::NotFound)));
    fixture.join(world.project, &caller, ProjectRole::Viewer).await;
    assert!(matches!(define().await, Err(ControlError::Forbidden)));
    assert!(matches!(change().await, Err(ControlError::Forbidden)));
    assert!(matches!(delete().await, Err(ControlError::Forbidden)));
    assert_eq!(versions().await.unwrap().items.len(), 1);
    assert_eq!(pipelines.load(&caller, world.pipeline).await.unwrap(), world.load().await);
}

/// Another definition is a new version; what is absent stays, and so does everything where nothing changes.
pub async fn another_definition_is_a_new_version_and_the_same_one_is_none<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let before = world.load().await;
    let same = world.change_if(ExpectedRevision::Any, to(definition("first"))).await.unwrap();
    assert_eq!(same, before);
    let rename = ChangePipeline { name: Some("second".to_owned()), ..to(definition("second")) };
    let changed = world.change_if(ExpectedRevision::Any, rename).await.unwrap();
    assert_eq!((changed.pipeline.version, changed.pipeline.name.as_str()), (2, "second"));
    assert_eq!((changed.pipeline.enabled, &changed.definition), (true, &definition("second")));
    assert!(changed.pipeline.updated_at > before.pipeline.updated_at);
    assert_eq!(world.load().await, changed);
    let back = world.change_if(ExpectedRevision::Any, to(definition("first"))).await.unwrap();
    assert_eq!(back.pipeline.version, 3, "an earlier definition is another one than the latest");
    let describe = ChangePipeline { description: Some("of numbers".to_owned()), ..ChangePipeline::default() };
    let described = world.change_if(ExpectedRevision::Any, describe).await.unwrap();
    assert_eq!((described.pipeline.version, described.definition), (3, definition("first")));
    assert_ne!(described.pipeline.revision(), back.pipeline.revision());
}

/// A change or deletion that expects another revision does nothing.
pub async fn a_pipeline_that_was_changed_since_is_neither_changed_nor_deleted<F: ControlFixture>(
    fixture: &F,
) {
    let world = World::new(fixture).await;
    let seen = world.load().await.pipeline;
    let disable = || ChangePipeline { enabled: Some(false), ..ChangePipeline::default() };
    let changed = world.change_if(only(&seen), disable()).await.unwrap().pipeline;
    let refused = world.change_if(only(&seen), to(definition("second"))).await;
    assert!(matches!(refused, Err(ControlError::PipelineChanged(id)) if id == world.pipeline), "{refused:?}");
    let refused = world.pipelines.delete(&world.owner, world.pipeline, only(&seen)).await;
    assert!(matches!(refused, Err(ControlError::PipelineChanged(_))), "{refused:?}");
    assert_eq!(world.load().await.pipeline, changed);
    world.pipelines.delete(&world.owner, world.pipeline, only(&changed)).await.unwrap();
}

/// The other one is told that the pipeline was changed.
pub async fn of_two_changes_at_once_that_expect_the_same_revision_one_is_made<F: ControlFixture>(
    fixture: &F,
) {
    let world = World::new(fixture).await;
    let seen = world.load().await.pipeline;
    let change = |node: &str| world.change_if(only(&seen), to(definition(node)));
    let (one, two) = tokio::join!(change("one"), change("two"));
    let (made, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(matches!(refused, Err(ControlError::PipelineChanged(_))), "{refused:?}");
    assert_eq!(world.load().await, made.unwrap());
    let (one, two) = tokio::join!(
        world.change_if(ExpectedRevision::Any, to(definition("three"))),
        world.change_if(ExpectedRevision::Any, to(definition("four")))
    );
    let versions = [one.unwrap().pipeline.version, two.unwrap().pipeline.version];
    assert!(versions == [3, 4] || versions == [4, 3], "each is a version: {versions:?}");
}

/// Its runs stay, and name no pipeline.
pub async fn a_deleted_pipeline_is_gone_once_its_runs_have_ended<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let run = world.start(&world.owner, StartRun::default()).await.unwrap().id;
    let delete = || world.pipelines.delete(&world.owner, world.pipeline, ExpectedRevision::Any);
    assert_eq!(conflict(delete().await), Conflict::PipelineRunsActive);
    world.runs.cancel(&world.owner, run).await.unwrap();
    delete().await.unwrap();
    assert!(matches!(delete().await, Err(ControlError::NotFound)));
    let started = world.start(&world.owner, StartRun::default()).await;
    assert!(matches!(started, Err(ControlError::NotFound)), "{started:?}");
    let changed = world.change_if(ExpectedRevision::Any, ChangePipeline::default()).await;
    assert!(matches!(changed, Err(ControlError::NotFound)), "{changed:?}");
    assert_eq!(world.list(&world.owner, None).await, []);
    let kept = world.runs.find::<right::Read>(&world.owner, run).await.unwrap();
    assert_eq!(kept.pipeline, None);
}

/// The newest first; an admin sees those of every project, and an API key needs the scope to read.
pub async fn pipelines_are_listed_newest_first_to_those_who_see_their_project<F: ControlFixture>(
    fixture: &F,
) {
    let world = World::new(fixture).await;
    let second = world.define(&definition("second")).await;
    let other = World::new(fixture).await;
    let admin = fixture.account(Role::Admin).await;
    assert_eq!(world.list(&world.owner, None).await, [second, world.pipeline]);
    assert_eq!(world.list(&admin, None).await, [other.pipeline, second, world.pipeline]);
    assert_eq!(world.list(&admin, Some(other.project)).await, [other.pipeline]);
    assert_eq!(world.list(&world.owner, Some(other.project)).await, []);
    let page = world.pipelines.list(&world.owner, None, None, 1).await.unwrap();
    assert_eq!(page.iter().map(|pipeline| pipeline.id).collect::<Vec<_>>(), [second]);
    let page = world.pipelines.list(&world.owner, None, Some(second), 1).await.unwrap();
    assert_eq!(page.iter().map(|pipeline| pipeline.id).collect::<Vec<_>>(), [world.pipeline]);
    let blind = key_caller(Role::Admin, &[]);
    let refused = world.pipelines.list(&blind, None, None, 1).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
}

/// Each with its author, and with its definition on request.
pub async fn versions_are_listed_latest_first_with_their_authors<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let editor = fixture.account(Role::Member).await;
    fixture.join(world.project, &editor, ProjectRole::Editor).await;
    let change =
        world.pipelines.change(&editor, world.pipeline, ExpectedRevision::Any, to(definition("second")));
    change.await.unwrap();
    world.change(true, Some(&definition("third"))).await;
    let (all, has_more) = world.versions(None, 10).await;
    let authors: Vec<_> = all.iter().map(|version| (version.version, version.created_by)).collect();
    let (owner, editor) = (Some(world.owner.user), Some(editor.user));
    assert_eq!(authors, [(3, owner), (2, editor), (1, owner)]);
    assert!(!has_more && all.iter().all(|version| version.definition.is_none()));
    let (page, has_more) = world.versions(None, 2).await;
    assert_eq!((&page[..], has_more), (&all[..2], true));
    let (page, has_more) = world.versions(Some(2), 2).await;
    assert_eq!((&page[..], has_more), (&all[2..], false));
    let included = Definitions::Included;
    let page = world.pipelines.list_versions(&world.owner, world.pipeline, None, 2, included).await.unwrap();
    let definitions: Vec<_> = page.items.into_iter().filter_map(|version| version.definition).collect();
    assert_eq!(definitions, [definition("third"), definition("second")]);
}

/// The second is answered with the pipeline as it stands then.
pub async fn the_same_key_and_body_define_one_pipeline<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let first = world.define_once("k", definition("a")).await.unwrap();
    assert_eq!(world.define_once("k", definition("a")).await.unwrap(), first);
    let other = world.define_once("l", definition("a")).await.unwrap();
    assert_ne!(other.pipeline.id, first.pipeline.id);
    let id = first.pipeline.id;
    let changed = world.pipelines.change(&world.owner, id, ExpectedRevision::Any, to(definition("b"))).await;
    assert_eq!(world.define_once("k", definition("a")).await.unwrap(), changed.unwrap());
    // A key is its account's: another one's is another key.
    let editor = fixture.account(Role::Member).await;
    fixture.join(world.project, &editor, ProjectRole::Editor).await;
    let once = Some(KeyedBody::new("k".parse().unwrap(), &json!("another")));
    let define = DefinePipeline { once, ..define_in(world.project, definition("a")) };
    let theirs = world.pipelines.define(&editor, define).await.unwrap();
    assert_ne!(theirs.pipeline.id, id);
}

/// Both are answered with the same pipeline.
pub async fn of_two_definitions_with_one_key_at_once_one_is_created<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let define = || world.define_once("k", definition("a"));
    let (one, two) = tokio::join!(define(), define());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    assert_eq!(world.list(&world.owner, None).await, [one.pipeline.id, world.pipeline]);
}

/// The key belongs to the request that came with it first, and names what that request created for ever.
pub async fn a_key_defines_no_second_pipeline<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let refused = world.define_once("k", broken()).await;
    assert_eq!(invalid(refused).len(), 2, "a request that is refused uses no key");
    let first = world.define_once("k", definition("a")).await.unwrap().pipeline.id;
    let refused = world.define_once("k", definition("b")).await;
    assert_eq!(conflict(refused), Conflict::KeyReused);
    world.pipelines.delete(&world.owner, first, ExpectedRevision::Any).await.unwrap();
    let refused = world.define_once("k", definition("a")).await;
    assert_eq!(conflict(refused), Conflict::CreatedAndDeleted);
    assert_eq!(world.list(&world.owner, None).await, [world.pipeline]);
}

/// Those of others, and those that are disabled or say nothing of tools, are no tools.
pub async fn pipelines_that_say_so_are_tools_of_their_members<F: ControlFixture>(fixture: &F) {
    let world = World::new(fixture).await;
    let other = World::new(fixture).await;
    let mut as_tool = definition("first");
    as_tool["tool"] = json!({"name": "sum", "description": "Sums up"});
    as_tool["input"] = json!({"schema": {"type": "object", "required": ["n"]}});
    let pipeline = world.define(&as_tool).await;
    let tools = world.pipelines.list_tools(&world.owner).await.unwrap();
    assert_eq!(tools.len(), 1);
    assert_eq!((tools[0].pipeline, tools[0].offer.name.as_str()), (pipeline, "sum"));
    assert_eq!(tools[0].input_schema, json!({"type": "object", "required": ["n"]}));
    assert!(other.pipelines.list_tools(&other.owner).await.unwrap().is_empty());
    world.change(true, Some(&as_tool)).await;
    let both = world.pipelines.list_tools(&world.owner).await.unwrap();
    assert_eq!(both.iter().map(|tool| tool.pipeline).collect::<Vec<_>>(), [world.pipeline, pipeline]);
    world.change(false, None).await;
    assert_eq!(world.pipelines.list_tools(&world.owner).await.unwrap(), tools);
}

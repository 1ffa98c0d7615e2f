//! Agents: defined, changed in versions, found as they were when a run was accepted.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_auth::Role;
use gathering_domain::{AgentId, KeyedBody, ProjectId, RunKind};
use gathering_nodes::StoredAgents as _;
use serde_json::{Map, Value, json};

use super::{World, conflict};
use crate::testing::ControlFixture;
use crate::{
    Agent, AgentControl, AgentsOfRuns, Chat, Conflict, ControlError, DefineAgent, ExpectedRevision, Graphs,
    StartRun,
};

async fn agents_of<F: ControlFixture>(fixture: &F) -> (World, AgentControl) {
    let world = World::new(fixture).await;
    let graphs = Graphs::new(fixture.run_store(), gathering_dag_engine::NodeSpecs::builtin(), 16);
    (world, AgentControl::new(fixture.store(), graphs))
}

fn define(project: ProjectId, definition: Value) -> DefineAgent {
    DefineAgent { project: Some(project), definition, once: None }
}

fn fields(fields: Value) -> Map<String, Value> {
    fields.as_object().unwrap().clone()
}

async fn writer(world: &World, agents: &AgentControl) -> Agent {
    let definition = json!({"name": "Writer", "role": "You write.", "provider": "scripted"});
    agents.define(&world.owner, define(world.project, definition)).await.unwrap()
}

/// Each change makes a version, a repetition of one does not, and null takes a field away.
pub async fn a_change_of_an_agent_makes_a_version<F: ControlFixture>(fixture: &F) {
    let (world, agents) = agents_of(fixture).await;
    let first = writer(&world, &agents).await;
    assert_eq!((first.version, first.definition.name.as_str()), (1, "Writer"));
    let change = fields(json!({"instructions": "Be brief.", "role": null}));
    for _ in 0..2 {
        let changed = agents.change(&world.owner, first.id, &ExpectedRevision::Any, &change).await.unwrap();
        assert_eq!((changed.version, changed.definition.system_prompt().as_str()), (2, "Be brief."));
        assert_eq!(agents.load(&world.owner, first.id).await.unwrap(), changed);
    }
    let outdated = ExpectedRevision::OneOf(vec![first.revision()]);
    let refused = agents.change(&world.owner, first.id, &outdated, &change).await;
    assert!(matches!(refused, Err(ControlError::AgentChanged(id)) if id == first.id), "{refused:?}");
    let refused = agents.delete(&world.owner, first.id, outdated).await;
    assert!(matches!(refused, Err(ControlError::AgentChanged(_))), "{refused:?}");
    agents.delete(&world.owner, first.id, ExpectedRevision::OneOf(vec!["2".to_owned()])).await.unwrap();
    assert!(matches!(agents.load(&world.owner, first.id).await, Err(ControlError::NotFound)));
}

/// Of many changes at once each is made, on what the others left.
pub async fn changes_of_an_agent_at_once_are_all_made<F: ControlFixture>(fixture: &F) {
    let (world, agents) = agents_of(fixture).await;
    let id = writer(&world, &agents).await.id;
    let (name, role) = (fields(json!({"name": "Poet"})), fields(json!({"role": "You rhyme."})));
    let any = ExpectedRevision::Any;
    let (one, two) = tokio::join!(
        agents.change(&world.owner, id, &any, &name),
        agents.change(&world.owner, id, &any, &role)
    );
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    let both = agents.load(&world.owner, id).await.unwrap();
    assert_eq!((both.version, both.definition.name.as_str()), (3, "Poet"));
    assert_eq!(both.definition.role, "You rhyme.");
}

/// Nothing is stored, and every place is named.
pub async fn an_invalid_agent_is_refused_with_every_problem<F: ControlFixture>(fixture: &F) {
    let (world, agents) = agents_of(fixture).await;
    let bad = json!({"name": " ", "model": 1, "limits": {"max_steps": 0}, "colour": "red"});
    match agents.define(&world.owner, define(world.project, bad)).await {
        Err(ControlError::Invalid(problems)) => {
            let mut places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
            places.sort_unstable();
            assert_eq!(places, ["/colour", "/limits/max_steps", "/model", "/name", "/provider"]);
        }
        other => panic!("{other:?}"),
    }
    let id = writer(&world, &agents).await.id;
    let change = fields(json!({"temperature": 9}));
    let refused = agents.change(&world.owner, id, &ExpectedRevision::Any, &change).await;
    assert!(matches!(refused, Err(ControlError::Invalid(_))), "{refused:?}");
    assert_eq!(agents.load(&world.owner, id).await.unwrap().version, 1);
}

/// Members see the agents of their projects, and for others they are absent.
pub async fn agents_are_seen_by_members_only<F: ControlFixture>(fixture: &F) {
    let (world, agents) = agents_of(fixture).await;
    let first = writer(&world, &agents).await;
    let second = writer(&world, &agents).await;
    let ids = |agents: Vec<Agent>| agents.into_iter().map(|agent| agent.id).collect::<Vec<AgentId>>();
    let all = agents.list(&world.owner, None, None, 10).await.unwrap();
    assert_eq!(ids(all), [second.id, first.id]);
    let older = agents.list(&world.owner, Some(world.project), Some(second.id), 10).await.unwrap();
    assert_eq!(ids(older), [first.id]);
    let stranger = fixture.account(Role::Member).await;
    assert!(agents.list(&stranger, None, None, 10).await.unwrap().is_empty());
    assert!(matches!(agents.load(&stranger, first.id).await, Err(ControlError::NotFound)));
    let theirs = agents.change(&stranger, first.id, &ExpectedRevision::Any, &Map::new()).await;
    assert!(matches!(theirs, Err(ControlError::NotFound)), "{theirs:?}");
    let theirs = agents.delete(&stranger, first.id, ExpectedRevision::Any).await;
    assert!(matches!(theirs, Err(ControlError::NotFound)), "{theirs:?}");
}

/// The same key and body answer the same agent, and another body is refused.
pub async fn an_agent_is_created_once_per_key<F: ControlFixture>(fixture: &F) {
    let (world, agents) = agents_of(fixture).await;
    let with_key = |name: &str| {
        let definition = json!({"name": name, "provider": "scripted"});
        let once = Some(KeyedBody::new("key-1".parse().unwrap(), &definition));
        DefineAgent { once, ..define(world.project, definition) }
    };
    let first = agents.define(&world.owner, with_key("Writer")).await.unwrap();
    assert_eq!(agents.define(&world.owner, with_key("Writer")).await.unwrap(), first);
    assert_eq!(conflict(agents.define(&world.owner, with_key("Poet")).await), Conflict::KeyReused);
    agents.delete(&world.owner, first.id, ExpectedRevision::Any).await.unwrap();
    assert_eq!(conflict(agents.define(&world.owner, with_key("Writer")).await), Conflict::CreatedAndDeleted);
}

/// All nodes of a run have the agent as it was when the run was accepted; one of another project is not there.
pub async fn a_run_keeps_the_version_of_its_agent<F: ControlFixture>(fixture: &F) {
    let (world, agents) = agents_of(fixture).await;
    let of_runs = AgentsOfRuns::new(fixture.store());
    let start = async || {
        let start = StartRun::default();
        world.runs.start(&world.owner, world.pipeline, start).await.unwrap().id
    };
    let before = start().await;
    let id = writer(&world, &agents).await.id;
    let between = start().await;
    let change = fields(json!({"role": "You rhyme."}));
    agents.change(&world.owner, id, &ExpectedRevision::Any, &change).await.unwrap();
    let after = start().await;
    for (run, version, role) in
        [(before, 1, "You write."), (between, 1, "You write."), (after, 2, "You rhyme.")]
    {
        let found = of_runs.find_for_run(world.project, id, run).await.unwrap().unwrap();
        assert_eq!((found.version, found.definition.role.as_str()), (version, role));
    }
    let other = fixture.project(&world.owner).await;
    assert_eq!(of_runs.find_for_run(other, id, after).await.unwrap(), None);
    assert_eq!(of_runs.find_for_run(world.project, AgentId::new(), after).await.unwrap(), None);
}

/// The message is its input, as data, and all messages to an agent have one graph.
pub async fn a_message_to_an_agent_is_a_run_of_its_own_kind<F: ControlFixture>(fixture: &F) {
    let (world, agents) = agents_of(fixture).await;
    let id = writer(&world, &agents).await.id;
    let chat = |message: &str| Chat { message: message.to_owned(), timeout: None, once: None };
    let first = agents.chat(&world.owner, id, chat("Hello ${{ input }}")).await.unwrap();
    assert_eq!((first.kind, first.project), (RunKind::Agent, world.project));
    assert_eq!(first.input, json!({"message": "Hello ${{ input }}"}));
    assert_eq!(first.trigger, json!({"type": "agent", "user_id": world.owner.user, "agent_id": id}));
    let second = agents.chat(&world.owner, id, chat("And?")).await.unwrap();
    assert_eq!(first.graph, second.graph);
    let stranger = fixture.account(Role::Member).await;
    assert!(matches!(agents.chat(&stranger, id, chat("Hello")).await, Err(ControlError::NotFound)));
}

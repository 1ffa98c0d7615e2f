//! Pages of runs by their state: what is in `active_runs` and `unsuccessful_runs` is the same as what the runs say.

use gathering_dag_engine::testing::planned_result;
use gathering_dag_engine::{Checkpoint, NewRun, Release, RunEnd, RunStore};
use gathering_domain::{
    InstanceId, PipelineId, ProjectId, RunEvent, RunId, RunState, ScheduleId, UserId, WaitingFor,
};
use gathering_persistence::{RunFilter, Runs, WakeBus};

use crate::common::World;

async fn add_project(world: &World) -> ProjectId {
    let project = ProjectId::new();
    world.db.execute(&format!("INSERT INTO projects (id, name) VALUES ('{project}', 'p')")).await;
    project
}

/// A run of the project that has come to this state.
async fn run_in(world: &World, owner: InstanceId, project: ProjectId, state: RunState) -> RunId {
    let new = NewRun { project, ..world.new_run().await };
    let run = new.id;
    world.store.enqueue(new).await.unwrap();
    let ended = |event| {
        Release::End(RunEnd { result: planned_result(event), abandons_children: false, is_limited: false })
    };
    let release = match state {
        RunState::Queued => return run,
        RunState::Running => None,
        RunState::Waiting => Some(Release::Park { waiting_for: WaitingFor::Approval, until: None }),
        RunState::Succeeded => Some(ended(RunEvent::Succeeded)),
        RunState::Failed => Some(ended(RunEvent::Failed)),
        RunState::Cancelled => Some(ended(RunEvent::Cancelled)),
        RunState::TimedOut => Some(ended(RunEvent::TimedOut)),
    };
    let claim = world.store.claim_run(owner, run).await.unwrap().unwrap().claim;
    if let Some(release) = release {
        let checkpoint =
            Checkpoint { claim, first_seq: 1, records: vec![], release: Some(release), frees: vec![] };
        world.store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
    }
    run
}

#[tokio::test]
async fn a_page_by_state_is_full_and_has_what_the_filter_lets_through_alone() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let other = add_project(&world).await;
    let (ada, pipeline, schedule) = (UserId::new(), PipelineId::new(), ScheduleId::new());
    world
        .db
        .execute(&format!(
            "INSERT INTO users (id, email, name, password_hash, role)
                 VALUES ('{ada}', 'ada@example.org', 'Ada', 'x', 'member');
             INSERT INTO project_members (project_id, user_id, role) VALUES ('{}', '{ada}', 'viewer')",
            world.project
        ))
        .await;
    let runs = Runs::new(world.pool.clone(), WakeBus::new());
    for state in RunState::ALL {
        let mut own = Vec::new();
        for _ in 0..3 {
            own.push(run_in(&world, owner, world.project, state).await);
        }
        // Newer, and of another project: a page must not end with them.
        for _ in 0..3 {
            run_in(&world, owner, other, state).await;
        }
        own.reverse();
        let belong = format!(
            "UPDATE runs SET pipeline_id = '{pipeline}', schedule_id = '{schedule}' WHERE project_id = '{}'",
            world.project
        );
        world.db.execute(&belong).await;
        let of_state = RunFilter { state: Some(state), ..RunFilter::default() };
        let filters = [
            RunFilter { project: Some(world.project), ..of_state.clone() },
            RunFilter { visible_to: Some(ada), ..of_state.clone() },
            RunFilter { pipeline: Some(pipeline), ..of_state.clone() },
            RunFilter { schedule: Some(schedule), ..of_state.clone() },
        ];
        for filter in filters {
            let page = runs.list(&filter, 2).await.unwrap();
            assert_eq!(page.iter().map(|run| run.id).collect::<Vec<_>>(), own[..2], "{filter:?}");
            assert!(page.iter().all(|run| run.state == state), "{filter:?}");
            let next = runs.list(&RunFilter { before: Some(own[1]), ..filter.clone() }, 2).await.unwrap();
            assert_eq!(next.iter().map(|run| run.id).collect::<Vec<_>>(), own[2..], "after {filter:?}");
        }
    }
}

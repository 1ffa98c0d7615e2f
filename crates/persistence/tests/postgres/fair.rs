//! While more runs wait than claims take, the projects have their turns.

use std::collections::BTreeMap;

use gathering_dag_engine::{Checkpoint, ClaimScope, ClaimedRun, NewRun, Release, RunStore};
use gathering_domain::{InstanceId, ProjectId, RunId, WaitingFor};
use gathering_persistence::{PgRunStore, WakeBus};

use crate::common::{ACTIVATE, ANALYZE, OF_EMPTY_TABLES, World};

async fn add_project(world: &World) -> ProjectId {
    let project = ProjectId::new();
    world.db.execute(&format!("INSERT INTO projects (id, name) VALUES ('{project}', 'p')")).await;
    project
}

async fn accept(world: &World, project: ProjectId, priority: i32) -> RunId {
    let new = NewRun { project, priority, ..world.new_run().await };
    let id = new.id;
    world.store.enqueue(new).await.unwrap();
    id
}

async fn claim(world: &World, owner: InstanceId, limit: usize) -> Vec<ClaimedRun> {
    world.store.claim(owner, ClaimScope::Queue, limit).await.unwrap()
}

fn ids(claimed: &[ClaimedRun]) -> Vec<RunId> {
    claimed.iter().map(|run| run.claim.run).collect()
}

#[tokio::test]
async fn a_project_with_many_runs_does_not_starve_another() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (busy, quiet) = (add_project(&world).await, add_project(&world).await);
    for _ in 0..60 {
        accept(&world, busy, 5).await;
    }
    // The first claim has not seen yet that more wait.
    assert_eq!(claim(&world, owner, 8).await.len(), 8);
    let few = [accept(&world, quiet, 5).await, accept(&world, quiet, 5).await];
    let claimed = claim(&world, owner, 8).await;
    assert_eq!(claimed.len(), 8, "what a project leaves the others take");
    assert!(few.iter().all(|run| ids(&claimed).contains(run)), "the quiet project waits");
}

#[tokio::test]
async fn within_a_project_urgent_runs_come_first_and_woken_ones_are_not_forgotten() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let (busy, quiet) = (add_project(&world).await, add_project(&world).await);
    let woken = accept(&world, quiet, 5).await;
    let parked = claim(&world, owner, 1).await.remove(0);
    let release = Some(Release::Park { waiting_for: WaitingFor::Child, until: None });
    let checkpoint =
        Checkpoint { claim: parked.claim, first_seq: 1, records: vec![], release, frees: Vec::new() };
    world.store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
    for _ in 0..40 {
        accept(&world, busy, 5).await;
    }
    let urgent = accept(&world, busy, 9).await;
    // A store that does not know yet that the other project had no runs a moment ago.
    let store = PgRunStore::new(world.pool.clone(), WakeBus::new());
    assert_eq!(store.claim(owner, ClaimScope::Queue, 2).await.unwrap().len(), 2);
    world.db.execute(&format!("UPDATE active_runs SET available_at = now() WHERE run_id = '{woken}'")).await;
    let next = accept(&world, busy, 7).await;
    let claimed = ids(&store.claim(owner, ClaimScope::Queue, 2).await.unwrap());
    assert!(claimed.contains(&woken), "the run that was woken waits behind the other project");
    assert!(claimed.contains(&next), "of a project the most urgent run comes first, after {urgent}");
}

#[tokio::test]
async fn more_projects_than_a_claim_takes_are_served_in_rounds() {
    const N_PROJECTS: usize = 10;
    let world = World::new().await;
    let owner = world.begin_instance().await;
    for _ in 0..N_PROJECTS {
        let project = add_project(&world).await;
        for _ in 0..6 {
            accept(&world, project, 5).await;
        }
    }
    // By age: all of one project.
    claim(&world, owner, 4).await;
    let mut n_served: BTreeMap<ProjectId, usize> = BTreeMap::new();
    for _ in 0..3 {
        for run in claim(&world, owner, 4).await {
            *n_served.entry(run.project).or_default() += 1;
        }
    }
    assert_eq!(n_served.len(), N_PROJECTS, "one round reaches every project: {n_served:?}");
    let mut n_claimed = 16;
    loop {
        match claim(&world, owner, 4).await.len() {
            0 => break,
            n => n_claimed += n,
        }
    }
    assert_eq!(n_claimed, 6 * N_PROJECTS, "none is left");
}

#[tokio::test]
async fn a_claim_in_turn_reads_few_rows_of_a_long_queue() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let run = world.new_run().await;
    let (graph, project) = (run.graph, world.project);
    let fill = format!(
        "INSERT INTO projects (id, name) SELECT md5('p' || n)::uuid, 'p' FROM generate_series(1, 50) AS n;
         INSERT INTO runs (id, project_id, graph_digest, kind, input)
             SELECT gen_random_uuid(), '{project}', '\\x{graph}', 'pipeline', '{{}}' FROM generate_series(1, 20000);
         INSERT INTO runs (id, project_id, graph_digest, kind, input)
             SELECT md5('r' || n)::uuid, md5('p' || n % 50 + 1)::uuid, '\\x{graph}', 'pipeline', '{{}}'
             FROM generate_series(1, 5000) AS n;
         INSERT INTO active_runs (run_id, project_id, priority, available_at)
             SELECT md5('r' || n)::uuid, md5('p' || n % 50 + 1)::uuid, 5, now() + n % 2 * interval '1 day'
             FROM generate_series(1, 5000) AS n;
         {ACTIVATE};
         INSERT INTO runs (id, project_id, graph_digest, kind, input, state, ended_at)
             SELECT gen_random_uuid(), md5('p' || n % 50 + 1)::uuid, '\\x{graph}', 'pipeline', '{{}}', 'succeeded', now()
             FROM generate_series(1, 20000) AS n"
    );
    world.db.execute(&fill).await;
    for statistics in [OF_EMPTY_TABLES, ANALYZE] {
        world.db.execute(statistics).await;
        let n_rows = crate::plans::rows_read(&world.db, async |pool| {
            let store = PgRunStore::new(pool, WakeBus::new());
            for _ in 0..5 {
                assert_eq!(store.claim(owner, ClaimScope::Queue, 40).await.unwrap().len(), 40);
            }
        })
        .await;
        assert!(n_rows < 5 * 40 * 25, "five claims of 40 runs read {n_rows} rows after: {statistics}");
    }
}

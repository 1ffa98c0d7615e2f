//! Runs that begin with the successes of an earlier run.

use crate::common::World;
use gathering_dag_engine::{JournalAtClaim, JournalEvent, NewRun, Record, RunStore};
use gathering_domain::{Digest, RunId};
use gathering_persistence::{Acceptance, RunOrigin, Runs, WakeBus};
use serde_json::json;

fn records() -> Vec<Record> {
    let succeeded = |id: &str, output| {
        let node: gathering_domain::NodeId = id.parse().unwrap();
        [
            Record::of_node(node.clone(), 1, JournalEvent::Started),
            Record::of_node(node, 1, JournalEvent::Succeeded { output }),
        ]
    };
    [succeeded("a", json!("a\0b")), succeeded("b", json!("x".repeat(100_000)))].concat()
}

fn origin(rerun_of: RunId, request: &[u8]) -> RunOrigin {
    RunOrigin {
        rerun_of: Some(rerun_of),
        idempotency: Some(("again".into(), Digest::of(request))),
        ..RunOrigin::default()
    }
}

#[tokio::test]
async fn the_journal_of_a_rerun_exists_exactly_if_its_run_does() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let first = world.accept().await;
    let runs = Runs::new(world.pool.clone(), WakeBus::new());
    let origin = origin(first, b"from b");
    let (one, two) = (world.new_run().await, world.new_run().await);
    let records = records();
    let (a, b) =
        tokio::join!(runs.accept_rerun(&one, &origin, &records), runs.accept_rerun(&two, &origin, &records));
    let (accepted, other) = match (a.unwrap(), b.unwrap()) {
        (Acceptance::Accepted(new), Acceptance::AcceptedBefore(before)) if new.id == before => {
            (one.id, two.id)
        }
        (Acceptance::AcceptedBefore(before), Acceptance::Accepted(new)) if new.id == before => {
            (two.id, one.id)
        }
        answers => panic!("the same request is one run: {answers:?}"),
    };
    let journal = world.store.load_journal(accepted, 0, 100).await.unwrap();
    assert_eq!(journal.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(journal.iter().all(|entry| entry.epoch == 0 && entry.owner.is_none()), "{journal:?}");
    assert_eq!(journal.into_iter().map(|entry| entry.record).collect::<Vec<_>>(), records);
    assert_eq!(world.count("SELECT count(*) FROM blobs").await, 1, "what is large is elsewhere");
    assert_eq!(world.store.load_journal(other, 0, 100).await.unwrap(), []);
    let claimed = world.store.claim_run(owner, accepted).await.unwrap().unwrap();
    assert_eq!(claimed.journal, JournalAtClaim::Existing);
    assert!(!claimed.was_claimed_before());
    let n_entries = "SELECT count(*) FROM run_journal";
    assert_eq!(world.count(n_entries).await, 4, "a first claim adds nothing");
}

#[tokio::test]
async fn a_rerun_that_is_refused_leaves_nothing() {
    let world = World::new().await;
    let first = world.accept().await;
    let runs = Runs::new(world.pool.clone(), WakeBus::new());
    let nowhere = NewRun { graph: Digest::of(b"nowhere"), ..world.new_run().await };
    runs.accept_rerun(&nowhere, &origin(first, b"one"), &records()).await.unwrap_err();
    // A number that is taken undoes the run as well.
    let met = world.new_run().await;
    let taken = format!(
        "INSERT INTO run_journal (run_id, seq, kind, epoch) VALUES ('{}', 3, 'node_started', 1)",
        met.id
    );
    world.db.execute(&taken).await;
    runs.accept_rerun(&met, &origin(first, b"one"), &records()).await.unwrap_err();
    assert_eq!(world.count("SELECT count(*) FROM all_runs").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM run_journal").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM blobs").await, 0);
    let run = world.new_run().await;
    let accepted = runs.accept_rerun(&run, &origin(first, b"one"), &records()).await.unwrap();
    assert!(matches!(accepted, Acceptance::Accepted(row) if row.id == run.id));
    let other = runs.accept_rerun(&world.new_run().await, &origin(first, b"two"), &records()).await.unwrap();
    assert_eq!(other, Acceptance::OtherRequest);
}

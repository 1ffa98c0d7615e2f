//! Journals as readers follow them: page by page, and told when they grow.

use std::time::Duration;

use crate::common::World;
use gathering_dag_engine::{Checkpoint, JournalEntry, JournalEvent, NewRun, Record, RunStore};
use gathering_domain::{NodeId, RunId};
use gathering_persistence::{Acceptance, PgRunStore, RunOrigin, Runs, WakeBus};
use serde_json::json;

const LARGE: usize = 100_000;

fn record(output: serde_json::Value) -> Record {
    let node: NodeId = "a".parse().unwrap();
    Record::of_node(node, 1, JournalEvent::Succeeded { output })
}

/// A run whose journal begins with these.
async fn accept(world: &World, runs: &Runs, records: &[Record]) -> RunId {
    let new: NewRun = world.new_run().await;
    let accepted = runs.accept_rerun(&new, &RunOrigin::default(), records).await.unwrap();
    assert!(matches!(accepted, Acceptance::Accepted(run) if run.id == new.id));
    new.id
}

#[tokio::test]
async fn a_page_of_a_journal_is_bounded_in_bytes_and_pages_leave_nothing_out() {
    let world = World::new().await;
    let runs = Runs::new(world.pool.clone(), WakeBus::new());
    let large = |letter: &str| record(json!(letter.repeat(LARGE)));
    // The same content twice in a page; what is small comes along.
    let records = [large("x"), record(json!(1)), large("x"), large("y"), record(json!(2)), record(json!(3))];
    let run = accept(&world, &runs, &records).await;
    let (mut read, mut lengths) = (Vec::<JournalEntry>::new(), Vec::new());
    loop {
        let after = read.last().map_or(0, |entry| entry.seq);
        let page = runs.load_journal_page(run, after, 50, 2 * LARGE as i64 + 100).await.unwrap();
        lengths.push(page.entries.len());
        read.extend(page.entries);
        if !page.has_more {
            break;
        }
    }
    assert_eq!(lengths, [3, 3]);
    assert_eq!(read, world.store.load_journal(run, 0, 50).await.unwrap());
    let one = runs.load_journal_page(run, 0, 50, 1).await.unwrap();
    assert_eq!((one.entries.len(), one.has_more), (1, true), "one entry comes however large it is");
    let counted = runs.load_journal_page(run, 3, 2, i64::MAX).await.unwrap();
    assert_eq!((counted.entries.len(), counted.has_more), (2, true));
    let none = runs.load_journal_page(run, 6, 2, 1).await.unwrap();
    assert_eq!((none.entries.len(), none.has_more), (0, false));
}

#[tokio::test]
async fn a_follower_is_told_once_the_entries_of_this_process_can_be_read() {
    let world = World::new().await;
    let owner = world.begin_instance().await;
    let wakes = WakeBus::new();
    let store = PgRunStore::new(world.pool.clone(), wakes.clone());
    let run = world.accept().await;
    let claim = store.claim_run(owner, run).await.unwrap().unwrap().claim;
    let mut following = wakes.follow(run);
    let told = tokio::spawn(async move { following.appended().await });
    let checkpoint =
        Checkpoint { claim, first_seq: 1, records: vec![record(json!(1))], release: None, frees: Vec::new() };
    store.commit(&[checkpoint]).await.unwrap().remove(0).unwrap();
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("nobody is told").unwrap();
    assert_eq!(store.load_journal(run, 0, 10).await.unwrap().len(), 1);
}

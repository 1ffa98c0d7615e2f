//! The loop under virtual time: on time, once, and with a crash at every point.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_domain::Pointer;
use gathering_scheduler::testing::{MemorySchedules, Point, StoreFault};
use gathering_scheduler::{CatchUp, FireOutcome, Firing, Overlap, Timetable, Trigger};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn start() -> DateTime<Utc> {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn timetable(trigger: Value) -> Timetable {
    let trigger = Trigger::parse(&trigger, &Pointer::root()).unwrap();
    Timetable { overlap: Overlap::Allow, catch_up: CatchUp::All, ..Timetable::new(trigger) }
}

fn every(seconds: u32) -> Timetable {
    timetable(json!({ "type": "interval", "seconds": seconds }))
}

/// One process that fires.
struct Instance {
    task: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Instance {
    fn start(store: &MemorySchedules) -> Self {
        let stop = CancellationToken::new();
        let firing = Firing::new(Arc::new(store.clone()), store.changes());
        Self { task: tokio::spawn(firing.run(stop.clone())), stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    async fn kill(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_made_now_fires_at_its_time_and_the_loop_is_idle_in_between() {
    let store = MemorySchedules::new(start(), 10, |_, _| None);
    let instance = Instance::start(&store);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    store.add(1, timetable(json!({ "type": "once", "at": "2026-01-01T12:00:02Z" })));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(store.runs(1), ["2026-01-01T12:00:02Z".parse::<DateTime<Utc>>().unwrap()]);

    let before = store.n_points();
    store.add(2, every(3600));
    tokio::time::sleep(Duration::from_secs(3590)).await;
    let n_rounds = (store.n_points() - before) / 2;
    assert!(n_rounds <= 62, "{n_rounds} rounds in an hour without due times");
    assert!(store.runs(2).is_empty());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(store.runs(2).len(), 1);
    instance.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_delays_a_fire_and_loses_none() {
    let store = MemorySchedules::new(start(), 10, |number, _| (number % 3 != 0).then_some(StoreFault::Error));
    store.add(1, every(10));
    let instance = Instance::start(&store);
    tokio::time::sleep(Duration::from_secs(1205)).await;
    instance.stop().await;
    let due: Vec<_> =
        (1..=store.runs(1).len()).map(|n| start() + Duration::from_secs(10 * n as u64)).collect();
    assert_eq!(store.runs(1), due);
    assert!(due.len() >= 118, "{} fires", due.len());
}

#[tokio::test(start_paused = true)]
async fn i6_a_crash_at_every_point_leaves_no_due_time_fired_twice_or_lost() {
    const MINUTES: u64 = 5;
    let undisturbed = run_with_crash_at(None).await;
    assert!(undisturbed > 20, "{undisturbed} points");
    for point in 0..undisturbed {
        run_with_crash_at(Some(point)).await;
    }

    /// Two instances fire twelve schedules. The one that gets to the point dies there, and comes back later.
    async fn run_with_crash_at(crash: Option<u64>) -> u64 {
        let faults = move |number: u64, _: Point| (Some(number) == crash).then_some(StoreFault::Stall);
        let store = MemorySchedules::new(start(), 5, faults);
        for id in 0..12 {
            store.add(id, every(if id % 2 == 0 { 60 } else { 150 }));
        }
        let [one, other] = [Instance::start(&store), Instance::start(&store)];
        tokio::time::sleep(Duration::from_secs(MINUTES * 60 - 100)).await;
        // Whichever hangs at the point dies, and its locks end with it.
        one.kill().await;
        let one = Instance::start(&store);
        tokio::time::sleep(Duration::from_secs(45)).await;
        other.kill().await;
        let other = Instance::start(&store);
        tokio::time::sleep(Duration::from_secs(60)).await;
        one.kill().await;
        other.kill().await;
        let last = Instance::start(&store);
        tokio::time::sleep(Duration::from_secs(1)).await;
        last.kill().await;
        for id in 0..12 {
            let seconds = if id % 2 == 0 { 60 } else { 150 };
            let due = (1..=MINUTES * 60 / seconds).map(|n| start() + Duration::from_secs(seconds * n));
            let due: Vec<_> = due.collect();
            assert_eq!(store.runs(id), due, "schedule {id} with a crash at point {crash:?}");
            let ledger = store.ledger(id);
            assert_eq!(ledger.iter().map(|entry| entry.due.at).collect::<Vec<_>>(), due);
            assert!(
                ledger
                    .iter()
                    .all(|entry| matches!(entry.outcome, FireOutcome::Started | FireOutcome::CaughtUp))
            );
        }
        store.n_points()
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_instance_has_locked_is_not_asked_for_without_a_pause() {
    let store = MemorySchedules::new(start(), 10, |number, _| (number == 0).then_some(StoreFault::Stall));
    let stalled = Instance::start(&store);
    store.add(1, every(1));
    let other = Instance::start(&store);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let n_points = store.n_points();
    assert!((20..=200).contains(&n_points), "{n_points} points in ten seconds");
    stalled.kill().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(store.runs(1).len() >= 11, "the lock ends with its holder");
    other.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_queued_due_time_fires_as_soon_as_the_earlier_run_ends() {
    let store = MemorySchedules::new(start(), 10, |_, _| None);
    store.add(1, Timetable { overlap: Overlap::QueueOne, ..every(60) });
    let instance = Instance::start(&store);
    tokio::time::sleep(Duration::from_secs(190)).await;
    assert_eq!(store.runs(1).len(), 1, "the first run has not ended");
    store.end_runs(1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let due = [60, 120].map(|seconds| start() + Duration::from_secs(seconds));
    assert_eq!(store.runs(1), due);
    instance.stop().await;
}

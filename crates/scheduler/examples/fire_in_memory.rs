//! Fires schedules that are kept in memory, for a few seconds, and prints their ledgers.
//!
//! `cargo run -p gathering-scheduler --features testing --example fire_in_memory`

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use gathering_domain::Pointer;
use gathering_scheduler::testing::MemorySchedules;
use gathering_scheduler::{Firing, Overlap, Timetable, Trigger};
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemorySchedules::new(Utc::now(), 100, |_, _| None);
    let stop = CancellationToken::new();
    let firing = tokio::spawn(Firing::new(Arc::new(store.clone()), store.changes()).run(stop.clone()));

    let trigger = json!({ "type": "cron", "expression": "* * * * * *" });
    let trigger = Trigger::parse(&trigger, &Pointer::root())?;
    store.add(1, Timetable { overlap: Overlap::Allow, ..Timetable::new(trigger.clone()) });
    // The runs of this one never end.
    store.add(2, Timetable { overlap: Overlap::Skip, ..Timetable::new(trigger) });
    tokio::time::sleep(Duration::from_millis(3500)).await;
    stop.cancel();
    firing.await?;

    for id in [1, 2] {
        for entry in store.ledger(id) {
            let reason = entry.outcome.reason().map_or("", |reason| reason.as_str());
            say(&format!("schedule {id}  {}  {} {reason}", entry.due.at, entry.outcome.as_str()));
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn say(line: &str) {
    println!("{line}");
}

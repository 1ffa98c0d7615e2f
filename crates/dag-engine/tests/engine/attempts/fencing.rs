//! An owner that lost its claim appends nothing, however late it starts to drive.

use std::time::Duration;

use gathering_dag_engine::{DriveEnd, RunStore, Signals};
use gathering_domain::InstanceId;
use serde_json::json;

use super::bench::{Bench, Do};

#[tokio::test(start_paused = true)]
async fn i2_who_reads_the_journal_after_the_next_claim_drives_nothing() {
    let hangs = Do(|_| std::future::pending());
    let bench = Bench::new(|types, _| types.with("hang", hangs));
    let run = bench.accept(json!({"nodes": [{"id": "a", "type": "hang"}]})).await;
    let claim = async || {
        let instance = InstanceId::new();
        (instance, bench.store.claim_run(instance, run).await.unwrap().unwrap())
    };
    let lose = async |instance| {
        bench.store.kill(instance);
        bench.store.recover_dead_instances(20).await.unwrap();
    };
    let n_started = || bench.kinds(run).iter().filter(|kind| **kind == "node_started").count();
    // The first claim of a run begins it and reads no journal: this is about the second, which is slow to.
    lose(claim().await.0).await;
    let (slow, claimed_by_slow) = claim().await;
    lose(slow).await;
    let (_, claimed) = claim().await;
    let drives = bench.engine.drive(claimed, Signals::default());
    let comes_late = async {
        while n_started() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.engine.drive(claimed_by_slow, Signals::default()).await
    };
    let limited = tokio::time::timeout(Duration::from_secs(60), comes_late);
    let end = tokio::select! {
        end = drives => panic!("{end:?}"),
        end = limited => end,
    };
    assert_eq!(end.ok(), Some(DriveEnd::ClaimLost));
    assert_eq!(n_started(), 2, "the first claim's and the third's: {:?}", bench.kinds(run));
}

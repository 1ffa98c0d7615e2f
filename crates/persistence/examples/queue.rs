//! A run through the queue, by hand: accepted, claimed, checkpointed, ended. Uses `DATABASE_URL`; a schema of its own
//! can be named with `?options=-c%20search_path%3Dname`.
#![expect(clippy::print_stdout, reason = "this program prints to its user")]

use std::sync::Arc;

use gathering_control::{Operator, ProjectControl};
use gathering_dag_engine::{Checkpoint, JournalEvent, NewRun, Record, Release, RunEnd, RunResult, RunStore};
use gathering_domain::{Digest, NodeId, RunId, Secret};
use gathering_persistence::{
    ConnectOptions, InstanceInfo, Liveness, Migrator, PgControlStore, PgRunStore, Pool, PoolSettings, Runs,
    WakeBus,
};
use serde_json::json;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to a PostgreSQL database")?;
    let options = ConnectOptions::parse(&Secret::from(url))?;
    println!("{} migrations were pending", Migrator::new(options.clone()).run().await?);
    let pool = Pool::connect(options.clone(), PoolSettings::default()).await?;
    let wakes = WakeBus::new();
    let store = PgRunStore::new(pool.clone(), wakes.clone());

    let definition = json!({"nodes": [{"id": "start", "type": "trigger"}]});
    let graph = Digest::of_json(&definition);
    store.ensure_graph(graph, &definition).await?;
    let control = Arc::new(PgControlStore::new(pool.clone(), wakes.clone()));
    let project = ProjectControl::new(control).ensure_local(Operator, "/").await?.id;
    let id = RunId::new();
    let input = json!({"greeting": "hello"});
    let run = NewRun { id, project, graph, input, priority: 10, available_at: None, timeout: None };
    store.enqueue(run).await?;

    let info = InstanceInfo {
        hostname: "here".to_owned(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let liveness = Liveness::begin(&options, &info).await?;
    let claimed = store.claim_run(liveness.instance(), id).await?.ok_or("another instance was quicker")?;
    let node: NodeId = "start".parse()?;
    let output = claimed.input?;
    let checkpoint = Checkpoint {
        claim: claimed.claim,
        first_seq: 1,
        records: vec![
            Record::of_node(node.clone(), 1, JournalEvent::Started),
            Record::of_node(node, 1, JournalEvent::Succeeded { output: output.clone() }),
        ],
        release: Some(Release::End(RunEnd {
            result: RunResult::Succeeded(output),
            abandons_children: false,
            is_limited: false,
        })),
        frees: Vec::new(),
    };
    for answer in store.commit(&[checkpoint]).await? {
        answer?;
    }
    let ended = Runs::new(pool, wakes).find(id).await?.ok_or("the run is gone")?;
    println!("run {id} {}", ended.state);
    for entry in store.load_journal(id, 0, 100).await? {
        println!("{:>3} {}", entry.seq, entry.record.event.kind());
    }
    liveness.close().await?;
    Ok(())
}

//! The results that a rerun keeps.

use std::collections::HashMap;

use gathering_dag_engine::{
    EarlierRun, Graph, JournalEvent, NodeSpecs, Record, RerunFrom, RerunRefused, records_that_stand,
};
use gathering_domain::RunState;
use serde_json::json;

use super::bench::Bench;

#[tokio::test(start_paused = true)]
async fn a_run_that_failed_in_its_output_alone_keeps_every_node() {
    let definition = json!({
        "nodes": [{"id": "a", "type": "trigger"}, {"id": "b", "type": "parallel"}],
        "edges": [{"from": "a", "to": "b"}],
        "output": "input.missing",
    });
    let bench = Bench::new(|types, _| types);
    let failed = bench.run(definition.clone()).await;
    assert_eq!(failed.state, RunState::Failed);
    let graph = Graph::validate(&definition, &NodeSpecs::builtin()).unwrap();
    let journal = bench.store.journal(failed.new.id);
    let kept = |ended| {
        let earlier = EarlierRun { id: failed.new.id, journal: &journal, ended, decisions: &HashMap::new() };
        records_that_stand(&graph, earlier, &RerunFrom::Failed)
    };
    let is_success = |record: &&Record| matches!(record.event, JournalEvent::Succeeded { .. });
    let kept_nodes: Vec<_> = kept(failed.state).unwrap().iter().filter(is_success).cloned().collect();
    assert_eq!(kept_nodes.len(), 2, "{kept_nodes:?}");
    assert!(matches!(kept(RunState::Succeeded), Err(RerunRefused::NothingFailed)));
}

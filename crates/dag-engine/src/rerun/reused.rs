//! What a rerun takes over from the earlier run: ends of nodes that are kept, and what a node reuses that starts again,
//! which is its effects, and the runs whose child runs it takes up.

use gathering_domain::{NodeId, RunId};

use crate::journal::{EffectEnd, JournalEvent, Record, Reuse, ReusedEffect};
use crate::node_run::{NodeRun, NodeState};
use crate::values::size_of;

/// How many earlier runs of a node are remembered.
const MAX_EARLIER_RUNS: usize = 32;

/// How many bytes of results one entry holds at most, unless it holds only one. An agent may have recorded any number.
const MAX_ENTRY_BYTES: usize = 1024 * 1024;

/// About what an effect takes beside its result.
const EFFECT_BYTES: usize = 256;

/// The entries of a node that did not end well in the run `earlier`, and starts again; none if it never began.
pub(super) fn entries(node: &NodeId, run: &NodeRun, earlier: RunId) -> Vec<Record> {
    let from_runs = runs_of(run, earlier);
    if from_runs.is_empty() {
        return Vec::new();
    }
    let effects = run.effects.values().map(|effect| ReusedEffect {
        planned_by: effect.planned_by.unwrap_or(earlier),
        start: effect.start.clone(),
        end: effect.end.clone(),
    });
    let entry = |effects| {
        let reuse = Reuse { effects, from_runs: from_runs.clone() };
        Record::of_node(node.clone(), 0, JournalEvent::Reused(reuse))
    };
    portions(effects).into_iter().map(entry).collect()
}

/// The records of a node whose end is kept. They say from which run it comes. A failure keeps its effects as well: a later
/// rerun may repeat the node, and must not forget what may have taken place.
pub(super) fn keep(id: &NodeId, run: &NodeRun, earlier: RunId) -> Vec<Record> {
    let (mut records, end) = match (run.state, &run.output, &run.failure) {
        (NodeState::Succeeded, Some(output), _) => {
            let reuse = Reuse { from_runs: runs_of(run, earlier), effects: Vec::new() };
            let reused = Record::of_node(id.clone(), 0, JournalEvent::Reused(reuse));
            (vec![reused], JournalEvent::Succeeded { output: output.clone() })
        }
        (NodeState::Failed | NodeState::TimedOut, _, Some(failure)) => {
            (entries(id, run, earlier), JournalEvent::Failed(failure.clone()))
        }
        _ => return vec![Record::of_node(id.clone(), 0, JournalEvent::Skipped)],
    };
    records.push(Record::of_node(id.clone(), 1, JournalEvent::Started));
    records.push(Record::of_node(id.clone(), 1, end));
    records
}

/// The runs in which the node was begun, the latest first.
fn runs_of(run: &NodeRun, earlier: RunId) -> Vec<RunId> {
    let began = (run.attempt > 0).then_some(earlier);
    began.into_iter().chain(run.earlier_runs.iter().copied()).take(MAX_EARLIER_RUNS).collect()
}

/// How many effects that took place these records take over.
pub(super) fn n_done(records: &[Record]) -> usize {
    let reused = records.iter().filter_map(|record| match &record.event {
        JournalEvent::Reused(reuse) => Some(&reuse.effects),
        _ => None,
    });
    reused.flatten().filter(|effect| matches!(effect.end, EffectEnd::Done { .. })).count()
}

/// The effects in their order, in portions of a bounded size; at least one portion.
fn portions(effects: impl Iterator<Item = ReusedEffect>) -> Vec<Vec<ReusedEffect>> {
    let (mut portions, mut portion, mut n_bytes) = (Vec::new(), Vec::new(), 0);
    for effect in effects {
        let size_bytes = match &effect.end {
            EffectEnd::Done { result } => EFFECT_BYTES + size_of(result),
            EffectEnd::Failed { .. } | EffectEnd::Unknown => EFFECT_BYTES,
        };
        if n_bytes + size_bytes > MAX_ENTRY_BYTES && !portion.is_empty() {
            portions.push(std::mem::take(&mut portion));
            n_bytes = 0;
        }
        n_bytes += size_bytes;
        portion.push(effect);
    }
    portions.push(portion);
    portions
}

#[cfg(test)]
mod tests {
    use gathering_domain::EffectClass;
    use serde_json::{Value, json};

    use super::*;
    use crate::journal::EffectStart;

    fn done(keys: std::ops::Range<usize>, result: &Value) -> NodeRun {
        let mut run = NodeRun::default();
        let at = "2026-11-23T12:00:00Z".parse().unwrap();
        run.apply(&JournalEvent::Started, 1, at).unwrap();
        for key in keys {
            let key = format!("tool/{key:03}");
            let start = EffectStart::new(key.clone(), EffectClass::Unsafe, "ab");
            run.apply(&JournalEvent::EffectStarted(start), 1, at).unwrap();
            run.apply(&JournalEvent::EffectDone { key, result: result.clone() }, 1, at).unwrap();
        }
        run
    }

    #[test]
    fn large_effects_come_in_several_entries_that_add_up() {
        let (node, earlier) = ("clerk".parse().unwrap(), RunId::new());
        for (n_effects, size, n_entries) in
            [(0, 0, 1), (12, 10, 1), (12, 300 * 1024, 4), (3, 2 * MAX_ENTRY_BYTES, 3)]
        {
            let run = done(0..n_effects, &json!("x".repeat(size)));
            let records = entries(&node, &run, earlier);
            assert_eq!(records.len(), n_entries, "{n_effects} effects of {size} bytes");
            let mut again = NodeRun::default();
            for Record { event, .. } in &records {
                let stored = JournalEvent::from_stored(event.kind(), event.payload()).unwrap();
                let n_bytes = event.payload().unwrap_or_default().to_string().len();
                assert!(n_bytes < MAX_ENTRY_BYTES.max(size) + 4096, "{n_bytes}");
                again.apply(&stored, 0, "2026-11-23T12:00:00Z".parse().unwrap()).unwrap();
            }
            assert_eq!(again.effects.len(), n_effects);
            assert_eq!(again.earlier_runs, [earlier]);
        }
    }

    #[test]
    fn a_node_that_never_began_reuses_nothing() {
        assert_eq!(entries(&"clerk".parse().unwrap(), &NodeRun::default(), RunId::new()), []);
    }
}

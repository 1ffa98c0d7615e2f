//! What a person's decision makes of a node whose end was unknown, in the run that continues.

use gathering_domain::{FailureKind, NodeId, RunId};

use super::reused;
use crate::decisions::{DecidedOutcome, NodeDecision};
use crate::journal::{EffectEnd, JournalEvent, NodeFailure, Record};
use crate::node_run::{NodeRun, NodeState};

/// What becomes of a node that was decided about.
#[derive(Debug, PartialEq)]
pub(super) enum Applied {
    /// It does not start again: these records are all of it.
    Kept {
        /// Its first entries in the new journal.
        records: Vec<Record>,
        /// Whether it ends in another way than before, so that everything after it starts again.
        is_other_end: bool,
    },
    /// It starts again, and begins with these records.
    Repeated(Vec<Record>),
}

/// Applies a decision about a node to what its journal says of it. `earlier` is the run that it was made about.
///
/// Whatever was decided, what may have taken place counts as known from then on: it did not, unless the node succeeded.
pub(super) fn apply_decision(
    node: &NodeId,
    run: &NodeRun,
    decision: &NodeDecision,
    earlier: RunId,
) -> Applied {
    let NodeDecision { outcome, reason, decided_by, decided_at, .. } = decision.clone();
    let decided = JournalEvent::Decided { outcome, reason, decided_by, decided_at };
    let mut records = vec![Record::of_node(node.clone(), 0, decided)];
    let end = match decision.outcome {
        DecidedOutcome::Succeeded => {
            JournalEvent::Succeeded { output: decision.output.clone().unwrap_or_default() }
        }
        DecidedOutcome::Failed => {
            records.extend(known_effects(node, run, earlier));
            JournalEvent::Failed(failure(run, decision))
        }
        DecidedOutcome::Repeat => {
            records.extend(known_effects(node, run, earlier));
            return Applied::Repeated(records);
        }
    };
    records.push(Record::of_node(node.clone(), 1, JournalEvent::Started));
    records.push(Record::of_node(node.clone(), 1, end));
    let had_failed = matches!(run.state, NodeState::Failed | NodeState::TimedOut);
    Applied::Kept { records, is_other_end: decision.outcome == DecidedOutcome::Succeeded || !had_failed }
}

/// What the node reuses, where everything that may have taken place did not. So the same request keeps its idempotency
/// key, and another one gets a new key.
fn known_effects(node: &NodeId, run: &NodeRun, earlier: RunId) -> Vec<Record> {
    let mut known = run.clone();
    for effect in known.effects.values_mut() {
        if !matches!(effect.end, EffectEnd::Done { .. }) {
            effect.end = EffectEnd::Failed { may_have_taken_place: false };
        }
    }
    reused::entries(node, &known, earlier)
}

/// The failure as it was, with who decided that it is one.
fn failure(run: &NodeRun, decision: &NodeDecision) -> NodeFailure {
    let NodeDecision { reason, decided_by, .. } = decision;
    let had_failed = matches!(run.state, NodeState::Failed | NodeState::TimedOut);
    let before = run.failure.as_ref();
    let why = before.map_or("it ended in the middle", |failure| failure.message.as_str());
    NodeFailure {
        kind: before
            .filter(|_| had_failed)
            .map_or(FailureKind::EffectUnknown, |failure| failure.kind.clone()),
        message: format!("{why}; {decided_by} decided that it failed: {reason}"),
        retryable: false,
        details: before.and_then(|failure| failure.details.clone()),
        retry_after_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use gathering_domain::EffectClass;
    use serde_json::{Value, json};

    use super::*;
    use crate::journal::EffectStart;

    fn pay() -> NodeId {
        "pay".parse().unwrap()
    }

    fn run_of(records: &[Record]) -> NodeRun {
        let mut run = NodeRun::default();
        for Record { attempt, event, .. } in records {
            run.apply(event, *attempt, decision(DecidedOutcome::Repeat, None).decided_at).unwrap();
        }
        run
    }

    /// A node with a step that is done, and one that may have taken place.
    fn unknown(end: Option<JournalEvent>) -> NodeRun {
        let effect = |key: &str| EffectStart::new(key, EffectClass::Unsafe, "ab");
        let events = [
            JournalEvent::Started,
            JournalEvent::EffectStarted(effect("look")),
            JournalEvent::EffectDone { key: "look".to_owned(), result: json!(7) },
            JournalEvent::EffectStarted(effect("pay")),
        ];
        let events = events.into_iter().chain(end);
        run_of(&events.map(|event| Record::of_node(pay(), 1, event)).collect::<Vec<_>>())
    }

    fn broken() -> NodeFailure {
        let failure = NodeFailure::permanent(FailureKind::EffectUnknown, "nobody knows");
        NodeFailure { details: Some(Box::new(json!({"status": 500}))), ..failure }
    }

    fn decision(outcome: DecidedOutcome, output: Option<Value>) -> NodeDecision {
        NodeDecision {
            outcome,
            output,
            reason: "I asked the bank".to_owned(),
            decided_by: "ada@example.org".to_owned(),
            decided_at: "2026-11-23T12:00:00Z".parse().unwrap(),
        }
    }

    fn kinds(records: &[Record]) -> Vec<&'static str> {
        records.iter().map(|record| record.event.kind()).collect()
    }

    #[test]
    fn a_node_that_succeeded_is_kept_with_the_output_that_was_given() {
        for (given, expected) in [(Some(json!({"paid": 1})), json!({"paid": 1})), (None, Value::Null)] {
            let decision = decision(DecidedOutcome::Succeeded, given);
            let run = unknown(Some(JournalEvent::Failed(broken())));
            let applied = apply_decision(&pay(), &run, &decision, RunId::new());
            let Applied::Kept { records, is_other_end } = applied else { panic!("{applied:?}") };
            assert!(is_other_end, "what is after it has not seen this end");
            assert_eq!(kinds(&records), ["node_decided", "node_started", "node_succeeded"]);
            let kept = run_of(&records);
            assert_eq!((kept.state, kept.output), (NodeState::Succeeded, Some(expected)));
        }
    }

    #[test]
    fn a_node_that_failed_is_kept_with_its_failure_and_who_decided() {
        let decision = decision(DecidedOutcome::Failed, None);
        let run = unknown(Some(JournalEvent::Failed(broken())));
        let applied = apply_decision(&pay(), &run, &decision, RunId::new());
        let Applied::Kept { records, is_other_end } = applied else { panic!("{applied:?}") };
        assert!(!is_other_end, "it had failed before");
        assert_eq!(kinds(&records), ["node_decided", "work_reused", "node_started", "node_failed"]);
        let kept = run_of(&records);
        let failure = kept.failure.as_ref().unwrap();
        assert_eq!((kept.state, &failure.kind), (NodeState::Failed, &FailureKind::EffectUnknown));
        assert_eq!(failure.details, broken().details);
        let said = "nobody knows; ada@example.org decided that it failed: I asked the bank";
        assert_eq!(failure.message, said);
        assert!(!kept.effects.values().any(|effect| effect.end == EffectEnd::Unknown), "it is known now");
    }

    #[test]
    fn a_node_that_was_cancelled_in_the_middle_fails_once_that_is_decided() {
        let cancelled = NodeFailure::permanent(FailureKind::Cancelled, "cancelled with the run, on request");
        let run = unknown(Some(JournalEvent::Cancelled(cancelled)));
        assert!(run.has_unknown_end());
        let applied = apply_decision(&pay(), &run, &decision(DecidedOutcome::Failed, None), RunId::new());
        let Applied::Kept { records, is_other_end } = applied else { panic!("{applied:?}") };
        assert!(is_other_end, "its edges were not resolved before");
        let kept = run_of(&records);
        assert_eq!(kept.state, NodeState::Failed);
        assert_eq!(kept.failure.map(|failure| failure.kind), Some(FailureKind::EffectUnknown));
    }

    #[test]
    fn a_node_that_is_repeated_keeps_what_is_done_and_nothing_that_is_unknown() {
        let earlier = RunId::new();
        let run = unknown(None);
        let applied = apply_decision(&pay(), &run, &decision(DecidedOutcome::Repeat, None), earlier);
        let Applied::Repeated(records) = applied else { panic!("{applied:?}") };
        assert_eq!(kinds(&records), ["node_decided", "work_reused"]);
        let again = run_of(&records);
        assert_eq!((again.state, again.attempt), (NodeState::Pending, 0));
        assert_eq!(again.effects["look"].end, EffectEnd::Done { result: json!(7) });
        let pay = &again.effects["pay"];
        assert_eq!(pay.end, EffectEnd::Failed { may_have_taken_place: false });
        assert_eq!(pay.planned_by, Some(earlier), "the same request keeps its idempotency key");
    }

    #[test]
    fn the_end_of_a_node_is_unknown_where_an_effect_that_changes_something_is() {
        assert!(unknown(None).has_unknown_end());
        assert!(unknown(Some(JournalEvent::Failed(broken()))).has_unknown_end());
        assert!(!unknown(Some(JournalEvent::Succeeded { output: Value::Null })).has_unknown_end());
        assert!(!NodeRun::default().has_unknown_end());
        let start = EffectStart::new("look", EffectClass::Pure, "ab");
        let events = [JournalEvent::Started, JournalEvent::EffectStarted(start)];
        let looking = events.map(|event| Record::of_node(pay(), 1, event));
        assert!(!run_of(&looking).has_unknown_end(), "looking changes nothing");
        let interrupted = NodeFailure::permanent(FailureKind::Interrupted, "its instance died");
        let events = [JournalEvent::Started, JournalEvent::Failed(interrupted)];
        assert!(run_of(&events.map(|event| Record::of_node(pay(), 1, event))).has_unknown_end());
    }
}

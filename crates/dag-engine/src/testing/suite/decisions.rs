//! The promises of [`crate::Decisions`].

use gathering_domain::{RunEvent, RunId, WaitingFor};
use serde_json::{Value, json};

use super::accept;
use super::ports::{PortsFixture, claim_all, driven, end, ids, must_commit, node, park, told};
use crate::decisions::{DecidedOutcome, NodeDecision};
use crate::store::ClaimScope;

/// Every case that an implementation of [`crate::Decisions`] must pass, each on a fixture of its own.
///
/// # Panics
/// At the first promise that does not hold.
pub async fn decision_cases<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn PortsFixture>>,
{
    the_first_decision_is_final(&*make().await).await;
    a_decision_makes_a_parked_run_claimable(&*make().await).await;
    the_owner_of_a_driven_run_is_told_of_a_decision_and_does_not_park_it(&*make().await).await;
    a_queued_run_may_be_decided_about_and_keeps_its_place(&*make().await).await;
    i5_nothing_is_decided_about_a_run_that_ended(&*make().await).await;
    the_first_outcome_is_final_and_found_with_its_output(&*make().await).await;
    no_outcome_is_decided_before_the_run_has_ended(&*make().await).await;
}

async fn the_first_decision_is_final(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, _) = driven(fixture, owner).await;
    let (run, review) = (parent.run, node("review"));
    let find = async |id: &str| fixture.decisions().find_decision(run, &node(id)).await.unwrap();
    assert_eq!(find("review").await, None);
    let (yes, no) = tokio::join!(fixture.decide(run, &review, true), fixture.decide(run, &review, false));
    assert!(yes ^ no, "one of two is accepted");
    let stands = find("review").await.unwrap();
    assert_eq!(stands.approve, yes);
    assert!(!fixture.decide(run, &review, !yes).await);
    assert_eq!(find("review").await.unwrap(), stands, "it is unchanged");
    assert_eq!(find("other").await, None);
    assert!(fixture.decide(run, &node("other"), false).await, "each node has its own");
    assert!(!find("other").await.unwrap().approve);
}

async fn a_decision_makes_a_parked_run_claimable(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    must_commit(fixture, park(of.claim, WaitingFor::Approval)).await;
    assert_eq!(claim_all(fixture, owner).await, [], "it waits");
    assert!(fixture.decide(parent.run, &node("review"), false).await);
    let claimed = claim_all(fixture, owner).await;
    assert_eq!(ids(&claimed), [parent.run]);
    must_commit(fixture, park(claimed[0].claim, WaitingFor::Approval)).await;
    assert!(!fixture.decide(parent.run, &node("review"), true).await);
    assert_eq!(claim_all(fixture, owner).await, [], "a rejected decision wakes no instance");
}

async fn the_owner_of_a_driven_run_is_told_of_a_decision_and_does_not_park_it(fixture: &dyn PortsFixture) {
    let (owner, other) = (fixture.instance().await, fixture.instance().await);
    let (parent, of) = driven(fixture, owner).await;
    assert!(fixture.decide(parent.run, &node("review"), true).await);
    assert!(told(fixture, owner, parent.run).await.is_some_and(|told| !told.cancel_requested));
    must_commit(fixture, park(of.claim, WaitingFor::Approval)).await;
    assert_eq!(ids(&claim_all(fixture, other).await), [parent.run]);
}

async fn a_queued_run_may_be_decided_about_and_keeps_its_place(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (first, second) = (accept(fixture, 5).await, accept(fixture, 5).await);
    assert!(fixture.decide(first, &node("review"), true).await);
    let next = fixture.store().claim(owner, ClaimScope::Queue, 1).await.unwrap();
    assert_eq!(ids(&next), [first]);
    assert_eq!(told(fixture, owner, first).await, None, "its nodes are polled when it is claimed");
    assert_eq!(ids(&claim_all(fixture, owner).await), [second]);
}

async fn i5_nothing_is_decided_about_a_run_that_ended(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    must_commit(fixture, end(of.claim, RunEvent::Succeeded, None)).await;
    assert!(!fixture.decide(parent.run, &node("review"), true).await);
    assert!(!fixture.decide(RunId::new(), &node("review"), true).await);
    assert_eq!(fixture.decisions().find_decision(parent.run, &node("review")).await.unwrap(), None);
}

async fn the_first_outcome_is_final_and_found_with_its_output(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    let run = parent.run;
    must_commit(fixture, end(of.claim, RunEvent::Failed, None)).await;
    assert!(fixture.store().find_outcomes(run).await.unwrap().is_empty());
    let decide =
        async |id: &str, outcome, output| fixture.decide_outcome(run, &node(id), outcome, output).await;
    let output = Some(json!({"paid": [1, null]}));
    let (one, two) = tokio::join!(
        decide("pay", DecidedOutcome::Succeeded, output.clone()),
        decide("pay", DecidedOutcome::Repeat, None),
    );
    assert!(one ^ two, "one of two is accepted");
    assert!(!decide("pay", DecidedOutcome::Failed, None).await);
    assert!(decide("null", DecidedOutcome::Succeeded, Some(Value::Null)).await, "each node has its own");
    assert!(decide("other", DecidedOutcome::Failed, None).await);
    let found = fixture.store().find_outcomes(run).await.unwrap();
    assert_eq!(found.len(), 3);
    let first = if one { (DecidedOutcome::Succeeded, output) } else { (DecidedOutcome::Repeat, None) };
    let of = |id: &str| (found[&node(id)].outcome, found[&node(id)].output.clone());
    assert_eq!(of("pay"), first);
    assert_eq!(of("null"), (DecidedOutcome::Succeeded, Some(Value::Null)));
    assert_eq!(of("other"), (DecidedOutcome::Failed, None));
    let NodeDecision { reason, decided_by, .. } = &found[&node("pay")];
    assert_eq!((reason.as_str(), decided_by.as_str()), ("they said so", "ada@example.org"));
}

async fn no_outcome_is_decided_before_the_run_has_ended(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, _) = driven(fixture, owner).await;
    let repeat = DecidedOutcome::Repeat;
    assert!(!fixture.decide_outcome(parent.run, &node("pay"), repeat, None).await);
    assert!(!fixture.decide_outcome(RunId::new(), &node("pay"), repeat, None).await);
    assert!(fixture.store().find_outcomes(parent.run).await.unwrap().is_empty());
}

//! The promises of [`NodePermits`](crate::NodePermits).

use gathering_domain::{InstanceId, RunEvent, WaitingFor};

use super::accept;
use super::ports::{PortsFixture, claim_all, end, ids, must_commit, node, park};
use crate::permits::{NodePermit, PermitScope};
use crate::store::{Claim, Release, RunEnd, StoreError};

/// Every case that an implementation of [`NodePermits`](crate::NodePermits) must pass, each on a fixture of its own.
///
/// # Panics
/// At the first promise that does not hold.
pub async fn permit_cases<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn PortsFixture>>,
{
    as_many_nodes_get_a_permit_as_there_are_and_the_others_stand_in_line(&*make().await).await;
    a_permit_that_is_given_back_wakes_the_first_of_the_line(&*make().await).await;
    the_end_of_a_run_gives_back_all_that_it_has(&*make().await).await;
    a_permit_outlives_the_instance_that_asked_for_it(&*make().await).await;
    a_lost_claim_gets_no_permit(&*make().await).await;
    keys_nodes_and_scopes_have_permits_of_their_own(&*make().await).await;
    a_node_that_does_not_wait_has_a_free_permit_or_leaves_nothing_behind(&*make().await).await;
    a_node_that_does_not_wait_comes_after_those_that_do(&*make().await).await;
}

async fn claimed(fixture: &dyn PortsFixture, owner: InstanceId) -> Claim {
    let run = accept(fixture, 5).await;
    fixture.store().claim_run(owner, run).await.unwrap().unwrap().claim
}

/// The permit of the node `call`, of which there is one, for this claim.
async fn asked(fixture: &dyn PortsFixture, claims: &[Claim]) -> Vec<NodePermit> {
    let scope = PermitScope::Pipeline(fixture.pipeline().await);
    let of = |claim: &Claim| NodePermit {
        claim: *claim,
        node: node("call"),
        scope,
        key: "k".into(),
        limit: 1,
        waits: true,
    };
    claims.iter().map(of).collect()
}

async fn ask(fixture: &dyn PortsFixture, permit: &NodePermit) -> bool {
    fixture.permits().ask(permit).await.unwrap()
}

/// Parks a run whose node stands in line.
async fn wait(fixture: &dyn PortsFixture, claim: Claim) {
    must_commit(fixture, park(claim, WaitingFor::Concurrency)).await;
}

fn ending(claim: Claim) -> crate::store::Checkpoint {
    let mut checkpoint = end(claim, RunEvent::Succeeded, None);
    if let Some(Release::End(RunEnd { is_limited, .. })) = &mut checkpoint.release {
        *is_limited = true;
    }
    checkpoint
}

async fn as_many_nodes_get_a_permit_as_there_are_and_the_others_stand_in_line(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let claims =
        [claimed(fixture, owner).await, claimed(fixture, owner).await, claimed(fixture, owner).await];
    let permits: Vec<NodePermit> =
        asked(fixture, &claims).await.into_iter().map(|permit| NodePermit { limit: 2, ..permit }).collect();
    for expected in [[true, true, false], [true, true, false]] {
        for (permit, expected) in permits.iter().zip(expected) {
            assert_eq!(ask(fixture, permit).await, expected, "a repeated question has the same answer");
        }
    }
}

async fn a_permit_that_is_given_back_wakes_the_first_of_the_line(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let claims =
        [claimed(fixture, owner).await, claimed(fixture, owner).await, claimed(fixture, owner).await];
    let permits = asked(fixture, &claims).await;
    assert!(ask(fixture, &permits[0]).await);
    for place in [1, 2] {
        assert!(!ask(fixture, &permits[place]).await);
        wait(fixture, claims[place]).await;
    }
    assert_eq!(claim_all(fixture, owner).await, [], "they wait");
    let mut given_back = super::started(claims[0], 1);
    given_back.frees = vec![node("call")];
    must_commit(fixture, given_back).await;
    let woken = claim_all(fixture, owner).await;
    assert_eq!(ids(&woken), [claims[1].run], "the first of the line, and it alone");
    assert!(ask(fixture, &NodePermit { claim: woken[0].claim, ..permits[1].clone() }).await);
    assert!(!ask(fixture, &permits[0]).await, "a new question stands behind the others");
}

async fn the_end_of_a_run_gives_back_all_that_it_has(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let claims =
        [claimed(fixture, owner).await, claimed(fixture, owner).await, claimed(fixture, owner).await];
    let permits = asked(fixture, &claims).await;
    assert!(ask(fixture, &permits[0]).await);
    for place in [1, 2] {
        assert!(!ask(fixture, &permits[place]).await);
    }
    wait(fixture, claims[2]).await;
    must_commit(fixture, ending(claims[1])).await;
    assert_eq!(claim_all(fixture, owner).await, [], "one that only waited gives nothing back");
    must_commit(fixture, ending(claims[0])).await;
    assert_eq!(ids(&claim_all(fixture, owner).await), [claims[2].run]);
}

async fn a_permit_outlives_the_instance_that_asked_for_it(fixture: &dyn PortsFixture) {
    let (owner, heir) = (fixture.instance().await, fixture.instance().await);
    let claims = [claimed(fixture, owner).await, claimed(fixture, heir).await];
    let permits = asked(fixture, &claims).await;
    assert!(ask(fixture, &permits[0]).await);
    fixture.kill(owner).await;
    fixture.store().recover_dead_instances(20).await.unwrap();
    assert!(!ask(fixture, &permits[1]).await, "the run that has it only changes its owner");
    let again = claim_all(fixture, heir).await;
    assert_eq!(ids(&again), [claims[0].run]);
    assert!(ask(fixture, &NodePermit { claim: again[0].claim, ..permits[0].clone() }).await);
}

async fn a_lost_claim_gets_no_permit(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let claims = [claimed(fixture, owner).await, claimed(fixture, owner).await];
    let permits = asked(fixture, &claims).await;
    let late = NodePermit { claim: Claim { epoch: 7, ..claims[0] }, ..permits[0].clone() };
    let refused = fixture.permits().ask(&late).await;
    assert!(matches!(refused, Err(StoreError::ClaimLost { run }) if run == claims[0].run), "{refused:?}");
    must_commit(fixture, ending(claims[0])).await;
    let refused = fixture.permits().ask(&permits[0]).await;
    assert!(matches!(refused, Err(StoreError::ClaimLost { .. })), "the run has ended: {refused:?}");
    assert!(ask(fixture, &permits[1]).await, "and holds nothing");
}

async fn keys_nodes_and_scopes_have_permits_of_their_own(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let claims = [claimed(fixture, owner).await, claimed(fixture, owner).await];
    let permits = asked(fixture, &claims).await;
    let other = &permits[1];
    assert!(ask(fixture, &permits[0]).await);
    let scope = PermitScope::Graph(gathering_domain::Digest::of(b"graph"));
    for (name, permit) in [
        ("b", NodePermit { key: "other".into(), ..other.clone() }),
        ("c", NodePermit { scope, ..other.clone() }),
    ] {
        // A node has one permit in a run, so each question is of another node; the first one as well.
        let first =
            NodePermit { node: node(name), claim: claims[0], scope: other.scope, ..permits[0].clone() };
        assert!(ask(fixture, &first).await, "another node");
        assert!(ask(fixture, &NodePermit { node: node(name), ..permit }).await, "another key or scope");
    }
    assert!(!ask(fixture, other).await);
}

/// The same questions of nodes that do not wait.
async fn asked_at_once(fixture: &dyn PortsFixture, claims: &[Claim]) -> Vec<NodePermit> {
    asked(fixture, claims).await.into_iter().map(|permit| NodePermit { waits: false, ..permit }).collect()
}

async fn a_node_that_does_not_wait_has_a_free_permit_or_leaves_nothing_behind(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let claims =
        [claimed(fixture, owner).await, claimed(fixture, owner).await, claimed(fixture, owner).await];
    let permits = asked_at_once(fixture, &claims).await;
    for (place, expected) in [(0, true), (1, false), (0, true), (1, false)] {
        assert_eq!(ask(fixture, &permits[place]).await, expected, "a repeated question has the same answer");
    }
    let lost = NodePermit { claim: Claim { epoch: 7, ..claims[1] }, ..permits[1].clone() };
    let refused = fixture.permits().ask(&lost).await;
    assert!(matches!(refused, Err(StoreError::ClaimLost { .. })), "{refused:?}");
    wait(fixture, claims[1]).await;
    must_commit(fixture, ending(claims[0])).await;
    assert_eq!(claim_all(fixture, owner).await, [], "it stands in no line");
    assert!(ask(fixture, &permits[2]).await, "nor has it taken the permit that was given back");
}

async fn a_node_that_does_not_wait_comes_after_those_that_do(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let claims =
        [claimed(fixture, owner).await, claimed(fixture, owner).await, claimed(fixture, owner).await];
    let permits = asked(fixture, &claims).await;
    assert!(ask(fixture, &permits[0]).await);
    assert!(!ask(fixture, &permits[1]).await);
    wait(fixture, claims[1]).await;
    must_commit(fixture, ending(claims[0])).await;
    let at_once = NodePermit { waits: false, ..permits[2].clone() };
    assert!(!ask(fixture, &at_once).await, "the permit is for the first of the line");
    assert_eq!(ids(&claim_all(fixture, owner).await), [claims[1].run]);
}

//! The promises of [`crate::ChildRuns`].

use std::time::Duration;

use chrono::TimeDelta;
use gathering_domain::{Digest, InstanceId, RunEvent, RunId, RunState, WaitingFor};
use serde_json::{Value, json};

use super::ports::{
    PortsFixture, claim_all, claim_child, driven, end, ids, must_commit, new_children, node, park, start,
    told,
};
use crate::children::{ChildKind, ChildState, ChildSummary, MAX_DEPTH, Parent, StartChildrenError};
use crate::store::{ClaimScope, StoreError};

/// Every case that an implementation of [`crate::ChildRuns`] must pass, each on a fixture of its own.
///
/// # Panics
/// At the first promise that does not hold.
pub async fn child_run_cases<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn PortsFixture>>,
{
    a_child_is_started_once_whatever_is_repeated(&*make().await).await;
    a_child_that_ended_is_not_started_again(&*make().await).await;
    a_child_inherits_what_binds_its_parent(&*make().await).await;
    nothing_is_started_in_the_name_of_a_run_that_is_not_driven(&*make().await).await;
    nothing_is_started_too_deep_or_without_its_graph(&*make().await).await;
    the_end_of_a_child_makes_its_parked_parent_claimable(&*make().await).await;
    the_owner_of_a_driven_parent_is_told_and_does_not_park_it(&*make().await).await;
    no_end_of_a_child_is_missed_by_a_parent_that_is_just_parked(&*make().await).await;
    the_end_of_a_child_that_kills_its_owners_is_told_as_well(&*make().await).await;
    i4_the_children_of_a_parent_that_ended_are_asked_to_end(&*make().await).await;
    i4_the_children_of_a_parent_that_kills_its_owners_are_asked_to_end(&*make().await).await;
    cancelled_children_end_at_once_or_are_asked_to(&*make().await).await;
    a_summary_counts_what_was_started_and_what_is_left(&*make().await).await;
    a_summary_names_the_first_that_failed_before_any_that_was_cancelled(&*make().await).await;
    outputs_come_by_item_from_those_that_succeeded(&*make().await).await;
    a_child_is_found_by_its_item_whatever_others_there_are(&*make().await).await;
    a_claim_of_a_tree_takes_the_awaited_descendants_of_its_root(&*make().await).await;
    i4_a_cancelled_descendant_is_claimed_in_its_tree(&*make().await).await;
    super::taken_up::all(&make).await;
}

async fn summarize(fixture: &dyn PortsFixture, parent: &Parent) -> ChildSummary {
    fixture.children().summarize(parent).await.unwrap()
}

/// How many were started and are left.
async fn counts(fixture: &dyn PortsFixture, parent: &Parent) -> (u32, u32) {
    let summary = summarize(fixture, parent).await;
    (summary.n_started, summary.n_unfinished)
}

async fn end_child(
    fixture: &dyn PortsFixture,
    owner: InstanceId,
    parent: &Parent,
    item: u32,
    event: RunEvent,
    output: Option<Value>,
) {
    let claim = claim_child(fixture, owner, parent, item).await.claim;
    must_commit(fixture, end(claim, event, output)).await;
}

async fn a_child_is_started_once_whatever_is_repeated(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    let (children, other) = (fixture.children(), fixture.children());
    let (one, two) = tokio::join!(
        children.start(&parent, ChildKind::Item, new_children(&of, 0..4), &[]),
        other.start(&parent, ChildKind::Item, new_children(&of, 0..4), &[]),
    );
    one.unwrap();
    two.unwrap();
    children.start(&parent, ChildKind::Item, new_children(&of, 2..6), &[]).await.unwrap();
    assert_eq!(counts(fixture, &parent).await, (6, 6));
    let next_round = Parent { round: 1, ..parent.clone() };
    assert_eq!(summarize(fixture, &next_round).await, ChildSummary::default());
    children.start(&next_round, ChildKind::Item, new_children(&of, 0..1), &[]).await.unwrap();
    assert_eq!((counts(fixture, &parent).await, counts(fixture, &next_round).await), ((6, 6), (1, 1)));
    let mut expected: Vec<RunId> = (0..6).map(|item| parent.child(item)).collect();
    expected.push(next_round.child(0));
    expected.sort_unstable();
    assert_eq!(ids(&claim_all(fixture, owner).await), expected, "each was started once");
}

async fn a_child_that_ended_is_not_started_again(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..1).await;
    end_child(fixture, owner, &parent, 0, RunEvent::Succeeded, Some(json!("first"))).await;
    start(fixture, &parent, &of, 0..1).await;
    assert_eq!(counts(fixture, &parent).await, (1, 0));
    assert_eq!(claim_all(fixture, owner).await, []);
    assert_eq!(fixture.children().load_outputs(&parent, 0, 9).await.unwrap(), [(0, json!("first"))]);
}

async fn a_child_inherits_what_binds_its_parent(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    let mut children = new_children(&of, 0..1);
    let sooner = of.created_at + TimeDelta::hours(2);
    children[0].deadline_at = Some(sooner);
    fixture.children().start(&parent, ChildKind::Item, children, &[]).await.unwrap();
    let child = claim_child(fixture, owner, &parent, 0).await;
    assert_eq!((child.project, child.graph, child.is_item()), (of.project, of.graph, true));
    assert_eq!((child.input, child.deadline_at), (Ok(json!({ "n": 0 })), Some(sooner)));
    let below = Parent { run: parent.child(0), ..parent.clone() };
    let mut children = new_children(&of, 0..1);
    children[0].deadline_at = Some(sooner + TimeDelta::hours(1));
    fixture.children().start(&below, ChildKind::Awaited, children, &[]).await.unwrap();
    let grandchild = claim_child(fixture, owner, &below, 0).await;
    assert_eq!(
        (grandchild.deadline_at, grandchild.is_item()),
        (Some(sooner), false),
        "the parent's is earlier"
    );
    let detached = Parent { node: node("detached"), ..below };
    let mut children = new_children(&of, 0..2);
    children[1].deadline_at = Some(sooner + TimeDelta::hours(1));
    fixture.children().start(&detached, ChildKind::Detached, children, &[]).await.unwrap();
    assert_eq!(summarize(fixture, &detached).await, ChildSummary::default(), "no run waits for it");
    let [first, second] = [0, 1].map(|item| claim_child(fixture, owner, &detached, item));
    let (first, second) = (first.await, second.await);
    assert!(!first.is_item() && !second.is_item());
    assert_eq!(
        (first.deadline_at, second.deadline_at),
        (None, Some(sooner + TimeDelta::hours(1))),
        "the parent's deadline does not bind a detached run"
    );
}

async fn nothing_is_started_in_the_name_of_a_run_that_is_not_driven(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    must_commit(fixture, end(of.claim, RunEvent::Succeeded, None)).await;
    let refused = fixture.children().start(&parent, ChildKind::Awaited, new_children(&of, 0..2), &[]).await;
    assert!(matches!(refused, Err(StartChildrenError::ParentEnded)), "{refused:?}");
    let nowhere = Parent { run: RunId::new(), ..parent.clone() };
    let refused = fixture.children().start(&nowhere, ChildKind::Awaited, new_children(&of, 0..1), &[]).await;
    assert!(matches!(refused, Err(StartChildrenError::ParentEnded)), "{refused:?}");
    assert_eq!(summarize(fixture, &parent).await, ChildSummary::default());
    assert_eq!(claim_all(fixture, owner).await, []);
}

async fn nothing_is_started_too_deep_or_without_its_graph(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    let mut strange = new_children(&of, 0..2);
    strange[1].graph = Digest::of(b"nowhere");
    let refused = fixture.children().start(&parent, ChildKind::Awaited, strange, &[]).await;
    assert!(matches!(refused, Err(StartChildrenError::Store(StoreError::Missing { .. }))), "{refused:?}");
    assert_eq!(summarize(fixture, &parent).await, ChildSummary::default(), "all or none");
    let mut above = parent;
    for depth in 0..MAX_DEPTH {
        // Detached runs count as well, or they could start each other for ever.
        let kind = if depth % 3 == 1 { ChildKind::Detached } else { ChildKind::Awaited };
        fixture.children().start(&above, kind, new_children(&of, 0..1), &[]).await.unwrap();
        claim_child(fixture, owner, &above, 0).await;
        above = Parent { run: above.child(0), ..above };
    }
    let refused = fixture.children().start(&above, ChildKind::Awaited, new_children(&of, 0..1), &[]).await;
    assert!(matches!(refused, Err(StartChildrenError::TooDeep)), "{refused:?}");
    assert_eq!(summarize(fixture, &above).await, ChildSummary::default());
}

async fn the_end_of_a_child_makes_its_parked_parent_claimable(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..4).await;
    must_commit(fixture, park(of.claim, WaitingFor::Child)).await;
    let ends = [RunEvent::Succeeded, RunEvent::Failed, RunEvent::Cancelled, RunEvent::TimedOut];
    let mut children = claim_all(fixture, owner).await;
    assert_eq!(children.len(), ends.len(), "the parent waits");
    for event in ends {
        let child = children.pop().unwrap().claim;
        must_commit(fixture, end(child, event, None)).await;
        let wait = fixture.store().next_available_in(ClaimScope::Queue).await.unwrap();
        assert_eq!(wait, Some(Duration::ZERO), "after {event:?}");
        let claimed = claim_all(fixture, owner).await;
        assert_eq!(ids(&claimed), [parent.run], "after {event:?}");
        must_commit(fixture, park(claimed[0].claim, WaitingFor::Child)).await;
        assert_eq!(claim_all(fixture, owner).await, [], "it was woken once");
    }
}

async fn the_owner_of_a_driven_parent_is_told_and_does_not_park_it(fixture: &dyn PortsFixture) {
    let (owner, other) = (fixture.instance().await, fixture.instance().await);
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..1).await;
    assert_eq!(told(fixture, owner, parent.run).await, None);
    end_child(fixture, other, &parent, 0, RunEvent::Succeeded, None).await;
    let told_owner = told(fixture, owner, parent.run).await.unwrap();
    assert!(!told_owner.cancel_requested);
    assert_eq!(told(fixture, other, parent.run).await, None, "it is not theirs");
    must_commit(fixture, park(of.claim, WaitingFor::Child)).await;
    assert_eq!(ids(&claim_all(fixture, other).await), [parent.run]);
}

async fn no_end_of_a_child_is_missed_by_a_parent_that_is_just_parked(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    for child_first in [true, false] {
        let (parent, of) = driven(fixture, owner).await;
        start(fixture, &parent, &of, 0..1).await;
        let child = claim_child(fixture, owner, &parent, 0).await.claim;
        let mut together =
            vec![park(of.claim, WaitingFor::Child), end(child, RunEvent::Succeeded, Some(json!(1)))];
        if child_first {
            together.reverse();
        }
        for written in fixture.store().commit(&together).await.unwrap() {
            written.unwrap();
        }
        assert_eq!(ids(&claim_all(fixture, owner).await), [parent.run], "the child first: {child_first}");
    }
}

async fn the_end_of_a_child_that_kills_its_owners_is_told_as_well(fixture: &dyn PortsFixture) {
    let (owner, victim) = (fixture.instance().await, fixture.instance().await);
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..1).await;
    claim_child(fixture, victim, &parent, 0).await;
    fixture.kill(victim).await;
    fixture.store().recover_dead_instances(0).await.unwrap();
    assert!(told(fixture, owner, parent.run).await.is_some());
    let unsuccessful = summarize(fixture, &parent).await.unsuccessful.unwrap();
    assert_eq!(unsuccessful.state, RunState::Failed);
    assert_eq!(unsuccessful.error.unwrap().kind.as_str(), "poisonous");
}

/// A parent with a child that ended, one that is driven, one that waits and one that was never claimed.
async fn with_children_in_every_state(
    fixture: &dyn PortsFixture,
    owner: InstanceId,
    driver: InstanceId,
) -> (Parent, crate::store::ClaimedRun) {
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..4).await;
    end_child(fixture, driver, &parent, 0, RunEvent::Succeeded, None).await;
    claim_child(fixture, driver, &parent, 1).await;
    let waiting = claim_child(fixture, driver, &parent, 2).await.claim;
    must_commit(fixture, park(waiting, WaitingFor::Approval)).await;
    (parent, of)
}

async fn assert_asked_to_end(
    fixture: &dyn PortsFixture,
    driver: InstanceId,
    parent: &Parent,
    how_it_ended: &str,
) {
    let told = told(fixture, driver, parent.child(1)).await.unwrap();
    let reason = Some(format!("run {} {how_it_ended}", parent.run));
    assert_eq!((told.cancel_requested, &told.cancel_reason), (true, &reason));
    let mut claimed = claim_all(fixture, driver).await;
    claimed.retain(|claimed| claimed.claim.run != parent.run);
    let mut expected = vec![parent.child(2), parent.child(3)];
    expected.sort_unstable();
    assert_eq!(ids(&claimed), expected, "their next claim ends them");
    assert!(claimed.iter().all(|claimed| claimed.cancel_requested && claimed.cancel_reason == reason));
    let reopened = fixture.store().claim_run(driver, parent.child(0)).await.unwrap();
    assert_eq!(reopened, None, "I5: one that ended stays so");
}

async fn i4_the_children_of_a_parent_that_ended_are_asked_to_end(fixture: &dyn PortsFixture) {
    let (owner, driver) = (fixture.instance().await, fixture.instance().await);
    let (parent, of) = with_children_in_every_state(fixture, owner, driver).await;
    must_commit(fixture, end(of.claim, RunEvent::Cancelled, None)).await;
    assert_asked_to_end(fixture, driver, &parent, "was cancelled").await;
}

async fn i4_the_children_of_a_parent_that_kills_its_owners_are_asked_to_end(fixture: &dyn PortsFixture) {
    let (victim, driver) = (fixture.instance().await, fixture.instance().await);
    let (parent, _) = with_children_in_every_state(fixture, victim, driver).await;
    fixture.kill(victim).await;
    fixture.store().recover_dead_instances(0).await.unwrap();
    assert_eq!(fixture.store().claim_run(driver, parent.run).await.unwrap(), None, "it has ended");
    assert_asked_to_end(fixture, driver, &parent, "failed").await;
}

async fn cancelled_children_end_at_once_or_are_asked_to(fixture: &dyn PortsFixture) {
    let (owner, driver) = (fixture.instance().await, fixture.instance().await);
    let (parent, of) = with_children_in_every_state(fixture, owner, driver).await;
    // The ends before this were reported.
    must_commit(fixture, park(of.claim, WaitingFor::Child)).await;
    let of = fixture.store().claim_run(owner, parent.run).await.unwrap().unwrap();
    let other = Parent { node: node("other"), ..parent.clone() };
    start(fixture, &other, &of, 0..1).await;
    for _ in 0..2 {
        fixture.children().cancel(&parent).await.unwrap();
    }
    assert_eq!(told(fixture, owner, parent.run).await, None, "the parent itself cancelled them");
    assert_eq!(counts(fixture, &parent).await, (4, 2), "one that was never claimed ends at once");
    let driven = told(fixture, driver, parent.child(1)).await.unwrap();
    let reason = Some(format!("node `each` of run {} no longer waits for it", parent.run));
    assert_eq!((driven.cancel_requested, driven.cancel_reason), (true, reason.clone()));
    let claimed = claim_all(fixture, driver).await;
    assert!(
        claimed
            .iter()
            .all(|claimed| claimed.cancel_reason == reason.clone().filter(|_| claimed.cancel_requested))
    );
    let cancelled: Vec<(RunId, bool)> =
        claimed.iter().map(|claimed| (claimed.claim.run, claimed.cancel_requested)).collect();
    let mut expected = vec![(parent.child(2), true), (other.child(0), false)];
    expected.sort_unstable();
    assert_eq!(cancelled, expected, "another node's goes on");
    must_commit(fixture, end(of.claim, RunEvent::Failed, None)).await;
    let again = told(fixture, driver, parent.child(1)).await.unwrap();
    assert_eq!(again.cancel_reason, reason, "the first reason stands");
}

async fn a_summary_counts_what_was_started_and_what_is_left(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..3).await;
    let waiting = claim_child(fixture, owner, &parent, 0).await.claim;
    must_commit(fixture, park(waiting, WaitingFor::Approval)).await;
    claim_child(fixture, owner, &parent, 1).await;
    assert_eq!(counts(fixture, &parent).await, (3, 3), "queued, driven and waiting are all left");
    end_child(fixture, owner, &parent, 2, RunEvent::Succeeded, None).await;
    start(fixture, &parent, &of, 3..5).await;
    assert_eq!(counts(fixture, &parent).await, (5, 4));
    end_child(fixture, owner, &parent, 4, RunEvent::TimedOut, None).await;
    let summary = summarize(fixture, &parent).await;
    assert_eq!((summary.n_started, summary.n_unfinished), (5, 3));
    let unsuccessful = summary.unsuccessful.unwrap();
    assert_eq!((unsuccessful.run, unsuccessful.item), (parent.child(4), 4));
    assert_eq!(
        (unsuccessful.state, unsuccessful.error.unwrap().kind.as_str()),
        (RunState::TimedOut, "planned")
    );
}

async fn a_summary_names_the_first_that_failed_before_any_that_was_cancelled(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..6).await;
    let named = async || summarize(fixture, &parent).await.unsuccessful.unwrap().item;
    // A node that found a failed child cancels the others, before its own failure is recorded.
    end_child(fixture, owner, &parent, 2, RunEvent::Cancelled, None).await;
    assert_eq!(named().await, 2, "only a cancelled one so far");
    end_child(fixture, owner, &parent, 1, RunEvent::Cancelled, None).await;
    assert_eq!(named().await, 1);
    end_child(fixture, owner, &parent, 5, RunEvent::TimedOut, None).await;
    assert_eq!(named().await, 5, "a failure comes before a cancellation");
    end_child(fixture, owner, &parent, 4, RunEvent::Failed, None).await;
    assert_eq!(named().await, 4, "of those that failed, the first");
    let listed = fixture.children().list_unsuccessful(&parent, 3).await.unwrap();
    assert_eq!(listed.iter().map(|child| child.item).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(summarize(fixture, &parent).await.n_unsuccessful, 4);
    fixture.children().cancel(&parent).await.unwrap();
    assert_eq!((named().await, counts(fixture, &parent).await), (4, (6, 0)));
}

async fn outputs_come_by_item_from_those_that_succeeded(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..4).await;
    for (item, output) in [(3, Some(json!("a\0b"))), (0, None), (2, Some(json!([2])))] {
        end_child(fixture, owner, &parent, item, RunEvent::Succeeded, output).await;
    }
    end_child(fixture, owner, &parent, 1, RunEvent::Failed, None).await;
    let children = fixture.children();
    let outputs = children.load_outputs(&parent, 0, 10).await.unwrap();
    assert_eq!(outputs, [(0, Value::Null), (2, json!([2])), (3, json!("a\0b"))]);
    assert_eq!(children.load_outputs(&parent, 1, 1).await.unwrap(), [(2, json!([2]))]);
    let next_round = Parent { round: 1, ..parent };
    assert_eq!(children.load_outputs(&next_round, 0, 10).await.unwrap(), []);
}

async fn a_child_is_found_by_its_item_whatever_others_there_are(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    for item in [70, 3, 10_001, 5] {
        start(fixture, &parent, &of, item..item + 1).await;
    }
    end_child(fixture, owner, &parent, 3, RunEvent::Succeeded, Some(json!([3]))).await;
    end_child(fixture, owner, &parent, 70, RunEvent::Failed, None).await;
    end_child(fixture, owner, &parent, 5, RunEvent::Succeeded, None).await;
    let children = fixture.children();
    let find = async |item| children.find(&parent, item).await.unwrap();
    assert_eq!(find(3).await, Some(ChildState::Succeeded(json!([3]))));
    assert_eq!(find(5).await, Some(ChildState::Succeeded(Value::Null)));
    assert_eq!(find(10_001).await, Some(ChildState::Active));
    assert_eq!(find(4).await, None);
    let failed = summarize(fixture, &parent).await.unsuccessful.unwrap();
    assert_eq!((failed.run, failed.item, failed.state), (parent.child(70), 70, RunState::Failed));
    assert_eq!(find(70).await, Some(ChildState::Unsuccessful(failed)));
    let next_round = Parent { round: 1, ..parent.clone() };
    assert_eq!(children.find(&next_round, 3).await.unwrap(), None);
}

/// The runs that a claim of the tree of `root` takes, sorted.
async fn claim_tree(fixture: &dyn PortsFixture, owner: InstanceId, root: RunId, limit: usize) -> Vec<RunId> {
    let claimed = fixture.store().claim(owner, ClaimScope::Tree(root), limit).await.unwrap();
    let mut claimed = ids(&claimed);
    claimed.sort_unstable();
    claimed
}

async fn a_claim_of_a_tree_takes_the_awaited_descendants_of_its_root(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    let (stranger, of_stranger) = driven(fixture, owner).await;
    start(fixture, &stranger, &of_stranger, 0..1).await;
    start(fixture, &parent, &of, 0..3).await;
    let detached = Parent { node: node("detached"), ..parent.clone() };
    fixture.children().start(&detached, ChildKind::Detached, new_children(&of, 0..1), &[]).await.unwrap();
    let tree = ClaimScope::Tree(parent.run);
    assert_eq!(fixture.store().next_available_in(tree).await.unwrap(), Some(Duration::ZERO));
    let mut claimed = claim_tree(fixture, owner, parent.run, 1).await;
    assert_eq!(claimed.len(), 1, "no more than its limit");
    claimed.extend(claim_tree(fixture, owner, parent.run, 10).await);
    claimed.sort_unstable();
    let mut expected: Vec<RunId> = (0..3).map(|item| parent.child(item)).collect();
    expected.sort_unstable();
    assert_eq!(claimed, expected);
    assert_eq!(fixture.store().next_available_in(tree).await.unwrap(), None);
    let below = Parent { run: parent.child(0), ..parent.clone() };
    start(fixture, &below, &of, 0..1).await;
    assert_eq!(claim_tree(fixture, owner, parent.run, 10).await, [below.child(0)], "a child of a child");
    let left = ids(&claim_all(fixture, owner).await);
    let mut strangers = vec![stranger.child(0), detached.child(0)];
    strangers.sort_unstable();
    assert_eq!(left, strangers, "runs outside the tree are left");
}

async fn i4_a_cancelled_descendant_is_claimed_in_its_tree(fixture: &dyn PortsFixture) {
    let (owner, driver) = (fixture.instance().await, fixture.instance().await);
    let (parent, of) = driven(fixture, owner).await;
    let (stranger, of_stranger) = driven(fixture, owner).await;
    for (parent, of) in [(&parent, &of), (&stranger, &of_stranger)] {
        start(fixture, parent, of, 0..1).await;
        let claim = claim_child(fixture, driver, parent, 0).await.claim;
        must_commit(fixture, park(claim, WaitingFor::Approval)).await;
        fixture.children().cancel(parent).await.unwrap();
    }
    let ending = fixture.store().claim_ending(owner, ClaimScope::Tree(parent.run), 10).await.unwrap();
    assert_eq!(ids(&ending), [parent.child(0)]);
    assert!(ending[0].cancel_requested);
}

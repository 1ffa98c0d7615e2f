//! The promises of [`crate::ChildRuns::start`] about children that take up the work of earlier ones.

use gathering_domain::{InstanceId, RunEvent, RunId};
use serde_json::json;

use super::ports::{PortsFixture, claim_child, driven, end, must_commit, new_children, start};
use crate::children::{ChildKind, Parent, StartChildrenError};
use crate::store::{ClaimedRun, StoreError};

pub(super) async fn all<F, Fut>(make: &F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn PortsFixture>>,
{
    a_child_of_the_next_round_takes_up_the_one_before(&*make().await).await;
    a_child_of_another_run_takes_up_the_one_that_succeeded_or_the_latest(&*make().await).await;
    a_child_waits_for_the_one_that_it_takes_up(&*make().await).await;
    what_is_the_same_is_taken_up_rather_than_what_differs(&*make().await).await;
    nothing_is_taken_up_that_was_never_claimed(&*make().await).await;
}

/// Ends children of `parent` that are started and not claimed, in this way.
async fn end_all(
    fixture: &dyn PortsFixture,
    owner: InstanceId,
    parent: &Parent,
    items: std::ops::Range<u32>,
    event: RunEvent,
) {
    for item in items {
        let claim = claim_child(fixture, owner, parent, item).await.claim;
        let output = (event == RunEvent::Succeeded).then(|| json!(item));
        must_commit(fixture, end(claim, event, output)).await;
    }
}

/// Starts the first children of `parent`, claims them, and answers whose work each takes up.
async fn taken_up(
    fixture: &dyn PortsFixture,
    owner: InstanceId,
    parent: &Parent,
    of: &ClaimedRun,
    earlier: &[RunId],
    n_children: u32,
) -> Vec<Option<RunId>> {
    let children = new_children(of, 0..n_children);
    fixture.children().start(parent, ChildKind::Item, children, earlier).await.unwrap();
    let mut taken_up = Vec::new();
    for item in 0..n_children {
        let claimed = claim_child(fixture, owner, parent, item).await;
        assert!(
            claimed.takes_up.is_none() || claimed.started_with_claim().is_empty(),
            "it decides what starts"
        );
        taken_up.push(claimed.takes_up);
    }
    taken_up
}

async fn a_child_of_the_next_round_takes_up_the_one_before(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..2).await;
    end_all(fixture, owner, &parent, 0..1, RunEvent::Succeeded).await;
    end_all(fixture, owner, &parent, 1..2, RunEvent::Failed).await;
    let next = Parent { round: 1, ..parent.clone() };
    let expected = [Some(parent.child(0)), Some(parent.child(1)), None];
    assert_eq!(taken_up(fixture, owner, &next, &of, &[], 3).await, expected);
}

async fn a_child_of_another_run_takes_up_the_one_that_succeeded_or_the_latest(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (first, of) = driven(fixture, owner).await;
    start(fixture, &first, &of, 0..2).await;
    end_all(fixture, owner, &first, 0..1, RunEvent::Succeeded).await;
    end_all(fixture, owner, &first, 1..2, RunEvent::Failed).await;
    let (second, _) = driven(fixture, owner).await;
    start(fixture, &second, &of, 0..2).await;
    end_all(fixture, owner, &second, 0..2, RunEvent::Failed).await;
    let (third, _) = driven(fixture, owner).await;
    let expected = [Some(first.child(0)), Some(second.child(1))];
    assert_eq!(taken_up(fixture, owner, &third, &of, &[second.run, first.run], 2).await, expected);
}

async fn a_child_waits_for_the_one_that_it_takes_up(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..2).await;
    let claim = claim_child(fixture, owner, &parent, 1).await.claim;
    let next = Parent { round: 1, ..parent.clone() };
    let start = async || fixture.children().start(&next, ChildKind::Item, new_children(&of, 0..2), &[]).await;
    let refused = start().await;
    assert!(matches!(refused, Err(StartChildrenError::EarlierActive)), "{refused:?}");
    let summary = fixture.children().summarize(&next).await.unwrap();
    assert_eq!(summary.n_started, 0, "all or none");
    must_commit(fixture, end(claim, RunEvent::Failed, None)).await;
    start().await.unwrap();
    start().await.unwrap();
    let claimed = claim_child(fixture, owner, &next, 1).await;
    assert_eq!(claimed.takes_up, Some(parent.child(1)));
}

async fn what_is_the_same_is_taken_up_rather_than_what_differs(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (first, of) = driven(fixture, owner).await;
    start(fixture, &first, &of, 0..2).await;
    end_all(fixture, owner, &first, 0..2, RunEvent::Failed).await;
    let (second, _) = driven(fixture, owner).await;
    let mut others = new_children(&of, 0..3);
    others.iter_mut().for_each(|child| child.input = json!({ "n": "another" }));
    fixture.children().start(&second, ChildKind::Item, others, &[]).await.unwrap();
    end_all(fixture, owner, &second, 0..3, RunEvent::Succeeded).await;
    let (third, _) = driven(fixture, owner).await;
    let expected = [Some(first.child(0)), Some(first.child(1)), Some(second.child(2))];
    assert_eq!(taken_up(fixture, owner, &third, &of, &[second.run, first.run], 3).await, expected);
    let source = fixture.store().load_source(second.child(2)).await.unwrap();
    assert_eq!((source.graph, source.input), (of.graph, json!({ "n": "another" })));
    let missing = fixture.store().load_source(RunId::new()).await;
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "{missing:?}");
}

async fn nothing_is_taken_up_that_was_never_claimed(fixture: &dyn PortsFixture) {
    let owner = fixture.instance().await;
    let (parent, of) = driven(fixture, owner).await;
    start(fixture, &parent, &of, 0..3).await;
    end_all(fixture, owner, &parent, 0..2, RunEvent::Succeeded).await;
    let next = Parent { round: 1, ..parent.clone() };
    let expected = [Some(parent.child(0)), Some(parent.child(1)), None];
    assert_eq!(taken_up(fixture, owner, &next, &of, &[], 3).await, expected, "one that never began");
    // A detached child is in nobody's list, and takes up nothing.
    let detached = Parent { round: 2, ..parent.clone() };
    let children = new_children(&of, 1..2);
    fixture.children().start(&detached, ChildKind::Detached, children, &[]).await.unwrap();
    assert_eq!(claim_child(fixture, owner, &detached, 1).await.takes_up, None);
}

//! The feed of events: what its listeners get, under virtual time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests too")]

use std::sync::Arc;
use std::time::Duration;

use gathering_auth::{Caller, ProjectRole, Role};
use gathering_control::testing::{ControlFixture, MemoryControl};
use gathering_control::{
    ControlError, EventControl, EventFeed, EventFilter, FeedSettings, FollowEvents, Followed, FollowedEvents,
    PostEvent, PostEvents,
};
use gathering_domain::{Pointer, ProjectId};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A feed of a store in memory, and who posts.
struct Stand {
    store: MemoryControl,
    events: EventControl,
    feed: EventFeed,
    wake: watch::Sender<u64>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    owner: Caller,
    project: ProjectId,
}

impl Stand {
    async fn new() -> Self {
        let store = MemoryControl::new();
        let (wake, stop) = (watch::Sender::new(0), CancellationToken::new());
        let (feed, service) =
            EventFeed::new(store.store(), [wake.subscribe(), wake.subscribe()], FeedSettings::default());
        let running = tokio::spawn(service.run(stop.clone()));
        let owner = store.account(Role::Member).await;
        let project = store.project(&owner).await;
        let events = EventControl::new(Arc::new(store.clone()));
        Self { store, events, feed, wake, stop, running, owner, project }
    }

    async fn post(&self, project: ProjectId, event_type: &str, numbers: std::ops::Range<i64>) {
        for number in numbers {
            let event = PostEvent {
                event_type: event_type.to_owned(),
                data: json!({"n": number}),
                ..PostEvent::default()
            };
            let events = vec![(Pointer::root(), event)];
            self.events.post(&self.owner, PostEvents { project: Some(project), events }).await.unwrap();
        }
        self.wake.send_modify(|count| *count += 1);
    }

    async fn follow(&self, caller: &Caller, request: FollowEvents) -> FollowedEvents {
        self.feed.follow(caller, request).await.unwrap().unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// The next `n_events`, by place.
async fn take(followed: &mut FollowedEvents, n_events: usize) -> Vec<i64> {
    let mut seqs = Vec::new();
    while seqs.len() < n_events {
        let next = tokio::time::timeout(Duration::from_secs(600), followed.next()).await;
        let Some(Followed::Events(events)) = next.unwrap().unwrap() else { panic!("after {seqs:?}") };
        seqs.extend(events.iter().map(|event| event.event().seq));
    }
    seqs
}

async fn is_quiet(followed: &mut FollowedEvents) -> bool {
    tokio::time::timeout(Duration::from_secs(5), followed.next()).await.is_err()
}

fn after(after: i64) -> FollowEvents {
    FollowEvents { after: Some(after), ..FollowEvents::default() }
}

#[tokio::test(start_paused = true)]
async fn a_listener_gets_each_event_once_from_wherever_it_begins() {
    let stand = Stand::new().await;
    stand.post(stand.project, "a.b", 0..900).await;
    let mut from_now = stand.follow(&stand.owner, FollowEvents::default()).await;
    assert!(is_quiet(&mut from_now).await, "what was before is not new");
    let mut listeners = Vec::new();
    for from in [0, 1, 500, 899, 900] {
        listeners.push((from, stand.follow(&stand.owner, after(from)).await));
    }
    stand.post(stand.project, "a.b", 0..300).await;
    for (from, listener) in &mut listeners {
        let from = *from;
        let n_events = usize::try_from(1200 - from).unwrap();
        assert!(take(listener, n_events).await.into_iter().eq(from + 1..=1200), "from {from}");
    }
    assert!(take(&mut from_now, 300).await.into_iter().eq(901..=1200));
    let mut again = stand.follow(&stand.owner, after(1190)).await;
    stand.post(stand.project, "a.b", 0..1).await;
    assert!(take(&mut again, 11).await.into_iter().eq(1191..=1201));
    stand.end().await;
}

/// Also the first one, for whom the feed only begins to read the log.
#[tokio::test(start_paused = true)]
async fn a_listener_gets_what_is_posted_as_soon_as_it_follows() {
    let stand = Stand::new().await;
    stand.post(stand.project, "a.b", 0..3).await;
    let mut first = stand.follow(&stand.owner, FollowEvents::default()).await;
    stand.post(stand.project, "a.b", 3..4).await;
    assert_eq!(take(&mut first, 1).await, [4]);
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_cannot_begin_says_so() {
    let store = MemoryControl::new();
    let owner = store.account(Role::Member).await;
    let wakes = || watch::Sender::new(0).subscribe();
    // Nobody runs the service.
    let (feed, _service) = EventFeed::new(store.store(), [wakes(), wakes()], FeedSettings::default());
    let refused = feed.follow(&owner, FollowEvents::default()).await.map(|_| ());
    assert!(matches!(refused, Err(ControlError::TimedOut(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_stalls_costs_nobody_anything_and_misses_nothing() {
    let stand = Stand::new().await;
    let mut stalled = stand.follow(&stand.owner, after(0)).await;
    let mut quick = stand.follow(&stand.owner, after(0)).await;
    stand.post(stand.project, "a.b", 0..10).await;
    for listener in [&mut stalled, &mut quick] {
        assert!(take(listener, 10).await.into_iter().eq(1..=10));
    }
    for round in 0..10 {
        stand.post(stand.project, "a.b", 0..500).await;
        let first = 11 + round * 500;
        assert!(take(&mut quick, 500).await.into_iter().eq(first..first + 500), "round {round}");
    }
    assert!(take(&mut stalled, 5000).await.into_iter().eq(11..=5010), "more than is kept for it");
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_gets_what_fits_its_filter() {
    let stand = Stand::new().await;
    let other = stand.store.project(&stand.owner).await;
    let filter = EventFilter::read(Some("order.*"), Some("event.data.n > 7")).unwrap();
    let request = FollowEvents { project: Some(stand.project), filter, after: Some(0) };
    let mut followed = stand.follow(&stand.owner, request).await;
    for project in [other, stand.project] {
        stand.post(project, "order.paid", 0..10).await;
        stand.post(project, "bill.paid", 0..10).await;
    }
    assert_eq!(take(&mut followed, 2).await, [29, 30]);
    assert!(is_quiet(&mut followed).await);
    stand.post(stand.project, "order.sent", 8..9).await;
    assert_eq!(take(&mut followed, 1).await, [41]);
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_sees_the_projects_that_it_is_a_member_of_as_long_as_it_is() {
    let stand = Stand::new().await;
    let (member, admin) = (stand.store.account(Role::Member).await, stand.store.account(Role::Admin).await);
    let stranger = stand.store.account(Role::Member).await;
    let hidden =
        stand.feed.follow(&stranger, FollowEvents { project: Some(stand.project), ..after(0) }).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)));
    stand.store.join(stand.project, &member, ProjectRole::Viewer).await;
    let of_project = FollowEvents { project: Some(stand.project), ..after(0) };
    let mut named = stand.follow(&member, of_project).await;
    let mut all = stand.follow(&member, after(0)).await;
    let mut everything = stand.follow(&admin, after(0)).await;
    let mut nothing = stand.follow(&stranger, after(0)).await;
    stand.post(stand.project, "a.b", 0..3).await;
    for listener in [&mut named, &mut all, &mut everything] {
        assert_eq!(take(listener, 3).await, [1, 2, 3]);
    }
    assert!(named.check().await.is_ok());
    let projects = gathering_control::ProjectControl::new(stand.store.store());
    projects.remove_member(&stand.owner, stand.project, member.user).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stand.post(stand.project, "a.b", 3..6).await;
    assert_eq!(take(&mut everything, 3).await, [4, 5, 6]);
    assert!(matches!(named.next().await, Err(ControlError::NotFound)));
    assert!(matches!(named.check().await, Err(ControlError::NotFound)));
    assert!(is_quiet(&mut all).await && is_quiet(&mut nothing).await);
    // What is kept for those who come back is not for former members either.
    let mut back = stand.follow(&member, after(3)).await;
    assert!(is_quiet(&mut back).await);
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_is_read_again_for_the_first_one_after_a_long_time() {
    let stand = Stand::new().await;
    let mut first = stand.follow(&stand.owner, after(0)).await;
    stand.post(stand.project, "a.b", 0..3).await;
    assert_eq!(take(&mut first, 3).await, [1, 2, 3]);
    drop(first);
    tokio::time::sleep(Duration::from_secs(600)).await;
    stand.post(stand.project, "a.b", 0..3).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let mut back = stand.follow(&stand.owner, after(3)).await;
    stand.post(stand.project, "a.b", 0..3).await;
    assert_eq!(take(&mut back, 6).await, [4, 5, 6, 7, 8, 9]);
    stand.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_wake_up_the_log_is_read_all_the_same_and_a_stop_ends_the_listeners() {
    let stand = Stand::new().await;
    let mut followed = stand.follow(&stand.owner, FollowEvents::default()).await;
    assert!(is_quiet(&mut followed).await);
    let silent = PostEvent { event_type: "a.b".to_owned(), ..PostEvent::default() };
    let posting = PostEvents { project: Some(stand.project), events: vec![(Pointer::root(), silent)] };
    stand.events.post(&stand.owner, posting).await.unwrap();
    assert_eq!(take(&mut followed, 1).await, [1]);
    stand.end().await;
    assert_eq!(followed.next().await.unwrap(), None);
}

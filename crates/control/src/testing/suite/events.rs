//! Events: who posts and reads them, and how often one is posted.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_auth::{Caller, ProjectRole, Role, Scope};
use gathering_domain::{Pointer, ProjectId};
use serde_json::json;

use crate::testing::{ControlFixture, with_scopes};
use crate::{
    ControlError, EventControl, EventFilter, EventPage, EventSeq, EventsOf, LoggedEvent, PostEvent,
    PostEvents, PostedEvent, cloud_event_of,
};

/// An event of this type and key.
fn event(event_type: &str, key: Option<&str>) -> PostEvent {
    let key = key.map(str::to_owned);
    PostEvent {
        event_type: event_type.to_owned(),
        key,
        data: json!({"n": 1, "nul": "a\0b"}),
        ..PostEvent::default()
    }
}

fn posting(project: Option<ProjectId>, events: Vec<PostEvent>) -> PostEvents {
    let place = |number: usize| Pointer::root().join("events").join(number.to_string());
    let events = events.into_iter().enumerate().map(|(number, event)| (place(number), event)).collect();
    PostEvents { project, events }
}

async fn post(
    events: &EventControl,
    caller: &Caller,
    project: ProjectId,
    posted: Vec<PostEvent>,
) -> Vec<PostedEvent> {
    events.post(caller, posting(Some(project), posted)).await.unwrap()
}

/// What can be read after a place; waits until everything can.
async fn read<F: ControlFixture>(fixture: &F, of: EventsOf, after: EventSeq) -> Vec<LoggedEvent> {
    loop {
        let EventPage { events, is_held_back, .. } =
            fixture.store().list_events(&of, after, 1000).await.unwrap();
        if !is_held_back {
            return events;
        }
        tokio::task::yield_now().await;
    }
}

/// The page of a caller, when it is not held back by what others in the same database do.
async fn list(
    events: &EventControl,
    caller: &Caller,
    filter: &EventFilter,
    after: EventSeq,
    limit: usize,
) -> EventPage {
    loop {
        let page = events.list(caller, None, filter, after, limit).await.unwrap();
        if !page.is_held_back {
            return page;
        }
        tokio::task::yield_now().await;
    }
}

fn types(events: &[LoggedEvent]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.as_str()).collect()
}

/// In the order in which they were posted, with everything that was posted.
pub async fn posted_events_are_in_the_log_of_their_project<F: ControlFixture>(fixture: &F) {
    let events = EventControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let project = fixture.project(&owner).await;
    let full = PostEvent { subject: Some("order 7".to_owned()), ..event("order.paid", Some("7")) };
    let posted = post(&events, &owner, project, vec![full, event("order.sent", None)]).await;
    assert!(posted.iter().all(|posted| !posted.is_repeated));
    assert!(posted[0].event.seq < posted[1].event.seq);
    let read = read(fixture, EventsOf::Project(project), 0).await;
    assert_eq!(read, posted.iter().map(|posted| posted.event.clone()).collect::<Vec<_>>());
    let first = &read[0];
    assert_eq!((first.project, first.event_type.as_str()), (Some(project), "order.paid"));
    assert_eq!((first.key.as_deref(), first.subject.as_deref()), (Some("7"), Some("order 7")));
    assert_eq!(
        (first.data.clone(), first.name()),
        (json!({"n": 1, "nul": "a\0b"}), first.id.unwrap().to_string())
    );
    let default = events.post(&owner, posting(None, vec![event("order.paid", Some("7"))])).await.unwrap();
    assert_ne!(default[0].event.project, Some(project), "the default project; its keys are its own");
    assert!(!default[0].is_repeated);
    assert_eq!(events.post(&owner, posting(Some(project), vec![])).await.unwrap(), []);
}

/// A key is of a project and a type; the `id` of a CloudEvent of a project and a source.
pub async fn an_event_with_a_key_is_posted_once<F: ControlFixture>(fixture: &F) {
    let events = EventControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let (project, other) = (fixture.project(&owner).await, fixture.project(&owner).await);
    let first = post(&events, &owner, project, vec![event("order.paid", Some("7"))]).await.remove(0);
    let changed = PostEvent { data: json!("other"), ..event("order.paid", Some("7")) };
    let again = post(&events, &owner, project, vec![changed]).await.remove(0);
    assert_eq!(again, PostedEvent { is_repeated: true, ..first.clone() });
    let batch = vec![
        event("order.paid", Some("8")),
        event("order.paid", Some("7")),
        event("order.paid", Some("8")),
        event("order.sent", Some("7")),
        event("order.paid", None),
        event("order.paid", None),
    ];
    let posted = post(&events, &owner, project, batch).await;
    let repeated: Vec<bool> = posted.iter().map(|posted| posted.is_repeated).collect();
    assert_eq!(repeated, [false, true, true, false, false, false]);
    assert_eq!((&posted[1].event, &posted[2].event), (&first.event, &posted[0].event));
    assert!(!post(&events, &owner, other, vec![event("order.paid", Some("7"))]).await[0].is_repeated);

    let of_source = |source: &str, event_type: &str| PostEvent {
        source: Some(source.to_owned()),
        ..event(event_type, Some("7"))
    };
    let posted = post(
        &events,
        &owner,
        project,
        vec![
            of_source("/shop", "order.paid"),
            of_source("/shop", "order.sent"),
            of_source("/depot", "order.paid"),
        ],
    )
    .await;
    let repeated: Vec<bool> = posted.iter().map(|posted| posted.is_repeated).collect();
    assert_eq!(repeated, [false, true, false], "the source and the id name a CloudEvent");
    assert_eq!(cloud_event_of(&posted[2].event)["id"], "7");
}

/// An editor posts; every member reads.
pub async fn members_read_events_and_those_who_run_things_post_them<F: ControlFixture>(fixture: &F) {
    let events = EventControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let project = fixture.project(&owner).await;
    let (viewer, editor) = (fixture.account(Role::Member).await, fixture.account(Role::Member).await);
    let stranger = fixture.account(Role::Member).await;
    fixture.join(project, &viewer, ProjectRole::Viewer).await;
    fixture.join(project, &editor, ProjectRole::Editor).await;
    let posted = |caller| {
        let (events, one) = (events.clone(), posting(Some(project), vec![event("order.paid", None)]));
        async move { events.post(caller, one).await }
    };
    assert!(posted(&editor).await.is_ok());
    assert!(matches!(posted(&viewer).await, Err(ControlError::Forbidden)));
    assert!(matches!(posted(&stranger).await, Err(ControlError::NotFound)));
    let reader = with_scopes(&owner, &[Scope::Read]);
    assert!(matches!(posted(&reader).await, Err(ControlError::Forbidden)));

    let admin = fixture.account(Role::Admin).await;
    let all = EventFilter::default();
    for (caller, n_seen) in [(&viewer, 1), (&owner, 1), (&admin, 1), (&stranger, 0)] {
        let page = list(&events, caller, &all, 0, 10).await;
        assert_eq!(page.events.len(), n_seen, "{:?}", caller.role);
    }
    assert_eq!(events.list(&viewer, Some(project), &all, 0, 10).await.unwrap().events.len(), 1);
    let hidden = events.list(&stranger, Some(project), &all, 0, 10).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
    let refused = events.list(&with_scopes(&owner, &[]), None, &all, 0, 10).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    let audiences = fixture.store().list_audiences(&[project, ProjectId::new()]).await.unwrap();
    assert_eq!(audiences.len(), 1);
    let members = [owner.user, viewer.user, editor.user].into_iter().collect();
    assert_eq!(audiences[&project].members, members);
}

/// Nothing is posted of a batch with a problem.
pub async fn a_batch_is_posted_whole_or_not_at_all<F: ControlFixture>(fixture: &F) {
    let events = EventControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let project = fixture.project(&owner).await;
    let batch =
        posting(Some(project), vec![event("order.paid", None), event("run.started", None), event("x", None)]);
    let Err(ControlError::Invalid(problems)) = events.post(&owner, batch).await else { panic!("accepted") };
    let places: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(places, ["/events/1/type", "/events/2/type"]);
    assert_eq!(read(fixture, EventsOf::Project(project), 0).await, []);
}

/// A page tells up to where it is complete.
pub async fn a_reader_goes_on_where_a_page_ended<F: ControlFixture>(fixture: &F) {
    let events = EventControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let (project, other) = (fixture.project(&owner).await, fixture.project(&owner).await);
    for number in 0..6 {
        let (of, name) = if number % 2 == 0 { (project, "a.even") } else { (other, "a.odd") };
        post(&events, &owner, of, vec![event(name, None)]).await;
    }
    let all = read(fixture, EventsOf::Member(owner.user), 0).await;
    assert_eq!(types(&all), ["a.even", "a.odd"].repeat(3));
    assert_eq!(read(fixture, EventsOf::Member(owner.user), all[3].seq).await, all[4..]);
    let last = fixture.store().last_event().await.unwrap();
    assert_eq!(last, all[5].seq);
    let page = fixture.store().list_events(&EventsOf::Project(other), 0, 2).await.unwrap();
    assert_eq!((types(&page.events), page.until), (vec!["a.odd"; 2], all[3].seq));
    let page = fixture.store().list_events(&EventsOf::Project(other), page.until, 2).await.unwrap();
    assert_eq!((types(&page.events), page.until), (vec!["a.odd"], last));
    let odd = EventFilter::read(Some("a.odd"), Some("event.seq > 0 && event.data.n == 1")).unwrap();
    let page = list(&events, &owner, &odd, 0, 2).await;
    assert_eq!((types(&page.events), page.until), (vec!["a.odd"; 2], all[3].seq));
    let page = list(&events, &owner, &odd, page.until, 2).await;
    assert_eq!((types(&page.events), page.until), (vec!["a.odd"], last));
}

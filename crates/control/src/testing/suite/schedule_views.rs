//! What schedules show beside themselves: an agenda, events, the version that they start.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use chrono::{TimeDelta, Utc};
use gathering_auth::Role;
use serde_json::json;

use super::definition;
use super::schedules::{Plan, every_second, hourly};
use crate::testing::ControlFixture;
use crate::{AgendaRange, ControlError, EventsOf, Schedule, SubmittedSchedule, right};

/// One answer for a calendar: what was due, and what will be.
pub async fn the_agenda_has_the_schedules_that_somebody_sees<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(every_second())).await.unwrap();
    let paused = plan.define(plan.submitted(hourly())).await.unwrap();
    plan.schedules.pause(&plan.world.owner, paused.id).await.unwrap();
    plan.fire_until(schedule.id, |fires| fires.len() >= 2).await;
    let stranger = fixture.account(Role::Member).await;
    let range = AgendaRange {
        project: Some(plan.world.project),
        from: schedule.created_at,
        to: Utc::now() + TimeDelta::seconds(30),
    };
    let fires = plan.schedules.list_all_fires(&plan.world.owner, range, 1).await.unwrap();
    assert_eq!((fires.items.len(), fires.is_cut), (1, true));
    assert_eq!((fires.items[0].schedule, &*fires.items[0].name), (schedule.id, "numbers"));
    let all = plan.schedules.list_all_fires(&plan.world.owner, range, 100).await.unwrap();
    assert!(!all.is_cut && all.items.len() >= 2 && all.items[0] == fires.items[0], "{all:?}");
    let coming = plan.schedules.list_upcoming(&plan.world.owner, range, 5).await.unwrap();
    assert!(coming.items.iter().all(|due| due.schedule == schedule.id), "a paused one is not due");
    assert!(coming.items.is_sorted_by(|one, next| one.due_at < next.due_at), "{coming:?}");
    assert_eq!((coming.items.len(), coming.is_cut), (5, true));
    assert!(plan.schedules.list_all_fires(&stranger, range, 5).await.unwrap().items.is_empty());
    assert!(plan.schedules.list_upcoming(&stranger, range, 5).await.unwrap().items.is_empty());
    for to in [range.from, range.from + TimeDelta::days(101)] {
        let refused = plan.schedules.list_upcoming(&plan.world.owner, AgendaRange { to, ..range }, 5).await;
        assert!(matches!(refused, Err(ControlError::Invalid(_))), "{refused:?}");
    }
}

/// Those who watch a project learn what happened to its schedules.
pub async fn schedules_tell_in_the_log_what_happened_to_them<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let owner = &plan.world.owner;
    let schedule = plan.define(plan.submitted(hourly())).await.unwrap().id;
    plan.schedules.pause(owner, schedule).await.unwrap();
    plan.schedules.pause(owner, schedule).await.unwrap();
    plan.schedules.resume(owner, schedule).await.unwrap();
    let renamed = |schedule: &Schedule| SubmittedSchedule {
        name: "another".to_owned(),
        enabled: false,
        ..SubmittedSchedule::of(schedule)
    };
    plan.schedules.change(owner, schedule, renamed).await.unwrap();
    let enabled =
        |schedule: &Schedule| SubmittedSchedule { enabled: true, ..SubmittedSchedule::of(schedule) };
    plan.schedules.change(owner, schedule, enabled).await.unwrap();
    plan.schedules.delete(owner, schedule).await.unwrap();
    let of = EventsOf::Project(plan.world.project);
    let events = loop {
        let page = fixture.store().list_events(&of, 0, 100).await.unwrap();
        if !page.is_held_back {
            break page.events;
        }
        tokio::task::yield_now().await;
    };
    let told: Vec<_> = events.iter().map(|event| event.event_type.trim_start_matches("schedule.")).collect();
    let expected = ["created", "paused", "resumed", "paused", "changed", "resumed", "changed", "deleted"];
    assert_eq!(told, expected);
    assert!(events.iter().all(|event| event.subject == Some(schedule.to_string())), "{events:?}");
    assert_eq!(events[1].data, json!({ "name": "numbers", "reason": "request", "failures_in_a_row": 0 }));
    assert_eq!(events[7].data, json!({ "name": "another" }));
}

/// Also where a later version has the same definition again.
pub async fn a_schedule_of_a_version_starts_that_version<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let mut submitted = plan.submitted(hourly());
    submitted.action["version"] = json!(1);
    let schedule = plan.define(submitted).await.unwrap().id;
    for latest in ["second", "first"] {
        plan.world.change(true, Some(&definition(latest))).await;
        let run = plan.schedules.trigger(&plan.world.owner, schedule).await.unwrap();
        let run = plan.world.runs.find::<right::Read>(&plan.world.owner, run).await.unwrap();
        assert_eq!(run.pipeline, Some((plan.world.pipeline, 1)), "beside {latest}");
    }
}

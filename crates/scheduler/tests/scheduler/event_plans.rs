//! What becomes of each event that a schedule fires for.

use chrono::{DateTime, Utc};
use gathering_domain::Pointer;
use gathering_scheduler::{
    CatchUp, Days, Due, Overlap, Plan, Progress, Timetable, Trigger, plan, plan_events,
};
use serde_json::{Map, json};

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-01-01T{text}Z").parse().unwrap()
}

fn on_orders() -> Timetable {
    let trigger = json!({ "type": "event", "event_type": "order.*", "when": "event.data.total > 10" });
    Timetable::new(Trigger::parse(&trigger, &Pointer::root()).unwrap())
}

fn event(seq: i64, time: &str) -> Due {
    Due { at: at(time), event: Some(seq) }
}

fn since(time: &str) -> Progress {
    Progress { seed: 7, passed: at(time), n_fires: 0, n_open: 0, queued: None }
}

/// The entries as `3 started`, `4 skipped overlap`.
fn words(plan: &Plan) -> Vec<String> {
    let words = |entry: &gathering_scheduler::DueEntry| {
        let reason = entry.outcome.reason().map(|reason| format!(" {reason}")).unwrap_or_default();
        format!("{} {}{reason}", entry.due.event.unwrap(), entry.outcome.as_str())
    };
    plan.entries.iter().map(words).collect()
}

#[test]
fn every_event_fires_also_two_of_one_moment_and_late_ones() {
    let events = [event(3, "08:00:00"), event(4, "11:59:30"), event(6, "11:59:30")];
    let plan = plan_events(&on_orders(), &since("07:00:00"), &events, at("12:00:00"));
    assert_eq!(words(&plan), ["3 caught_up", "4 started", "6 started"]);
    assert_eq!((plan.n_fires, plan.next), (3, None));
}

#[test]
fn the_policies_hold_for_events() {
    let late = [event(3, "08:00:00"), event(4, "11:59:30")];
    let skips = Timetable { catch_up: CatchUp::Skip, ..on_orders() };
    assert_eq!(
        words(&plan_events(&skips, &since("07:00:00"), &late, at("12:00:00"))),
        ["3 skipped missed", "4 started"]
    );
    let queues = Timetable { overlap: Overlap::QueueOne, ..on_orders() };
    let three = [event(1, "12:00:00"), event(2, "12:00:00"), event(3, "12:00:01")];
    let first = plan_events(&queues, &since("07:00:00"), &three, at("12:00:01"));
    assert_eq!(words(&first), ["1 started", "2 queued", "3 skipped overlap"]);
    let ended = Progress { queued: first.queued, n_fires: 1, ..since("07:00:00") };
    assert_eq!(words(&plan(&queues, &ended, at("12:00:02"))), ["2 started"], "when the first run has ended");
}

#[test]
fn an_event_out_of_bounds_is_not_due() {
    let bounded = Timetable {
        start_at: Some(at("10:00:00")),
        end_at: Some(at("11:00:00")),
        max_fires: Some(2),
        ..on_orders()
    };
    let events = [
        event(1, "09:59:59"),
        event(2, "10:00:00"),
        event(3, "11:00:01"),
        event(4, "11:00:00"),
        event(5, "11:00:00"),
    ];
    let plan = plan_events(&bounded, &since("07:00:00"), &events, at("11:00:30"));
    assert_eq!(words(&plan), ["2 caught_up", "4 started"], "the second is the last one");
}

#[test]
fn an_event_of_an_excepted_day_is_skipped() {
    let mut fields = Map::new();
    fields.insert("except".to_owned(), json!(["2026-01-01"]));
    let excepted = Timetable { days: Days::parse(&fields, &Pointer::root()).unwrap(), ..on_orders() };
    let plan = plan_events(&excepted, &since("07:00:00"), &[event(1, "12:00:00")], at("12:00:00"));
    assert_eq!(words(&plan), ["1 skipped excluded"]);
}

#[test]
fn an_event_trigger_says_what_it_waits_for() {
    let timetable = on_orders();
    assert_eq!(timetable.trigger.describe(), "On each event order.* when event.data.total > 10");
    assert_eq!(timetable.trigger.next_after(at("12:00:00")), None);
    let back = Trigger::parse(&timetable.trigger.to_json(), &Pointer::root()).unwrap();
    assert_eq!(back, timetable.trigger);
    let wrong = json!({ "type": "event", "when": 1, "timezone": "UTC" });
    let problems = Trigger::parse(&wrong, &Pointer::root().join("trigger")).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "/trigger/timezone: is not a field of this trigger: it has type, event_type, when",
            "/trigger/when: must be a string",
            "/trigger/event_type: is missing",
        ]
    );
}

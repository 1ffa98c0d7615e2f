//! Recurrence rules: the examples of RFC 5545, the clocks, and what is refused.

use chrono::{DateTime, Utc};
use gathering_domain::Pointer;
use gathering_scheduler::Trigger;
use serde_json::{Value, json};

fn rule(rule: &str, start: &str, timezone: &str) -> Value {
    json!({ "type": "rrule", "rule": rule, "start": start, "timezone": timezone })
}

/// The first times in UTC after this one.
fn next(trigger: &Value, after: &str, n: usize) -> Vec<String> {
    let trigger = Trigger::parse(trigger, &Pointer::root()).unwrap();
    let times = trigger.next_n(after.parse::<DateTime<Utc>>().unwrap(), n);
    times.iter().map(|at| at.format("%Y-%m-%dT%H:%MZ").to_string()).collect()
}

fn problems(trigger: &Value) -> Vec<String> {
    Trigger::parse(trigger, &Pointer::root()).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn every_second_tuesday_stays_at_its_time_across_a_change_of_the_clocks() {
    let trigger = rule("FREQ=WEEKLY;INTERVAL=2;BYDAY=TU", "2026-10-13T09:00:00", "Europe/Berlin");
    assert_eq!(
        next(&trigger, "2026-10-01T00:00:00Z", 3),
        ["2026-10-13T07:00Z", "2026-10-27T08:00Z", "2026-11-10T08:00Z"]
    );
    // Years later it is still the same week of two.
    assert_eq!(next(&trigger, "2036-01-01T00:00:00Z", 2), ["2036-01-08T08:00Z", "2036-01-22T08:00Z"]);
}

#[test]
fn rules_of_days_months_and_years_are_followed() {
    for (text, start, after, expected) in [
        ("FREQ=DAILY;INTERVAL=10", "2026-01-01T06:00:00", "2026-06-01T00:00:00Z", "2026-06-10T06:00Z"),
        ("FREQ=MONTHLY;BYDAY=-2MO", "2026-01-19T06:00:00", "2026-06-01T00:00:00Z", "2026-06-22T06:00Z"),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", "2026-01-31T06:00:00", "2026-02-01T00:00:00Z", "2026-02-28T06:00Z"),
        ("FREQ=MONTHLY", "2026-01-31T06:00:00", "2026-02-01T00:00:00Z", "2026-03-31T06:00Z"),
        (
            "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
            "2026-02-13T06:00:00",
            "2026-03-14T00:00:00Z",
            "2026-11-13T06:00Z",
        ),
        (
            "FREQ=YEARLY;BYMONTH=1;BYDAY=SU;INTERVAL=2",
            "2026-01-04T06:00:00",
            "2030-12-01T00:00:00Z",
            "2032-01-04T06:00Z",
        ),
        ("FREQ=YEARLY", "2024-02-29T06:00:00", "2025-01-01T00:00:00Z", "2028-02-29T06:00Z"),
        (
            "RRULE:FREQ=WEEKLY;BYDAY=MO,WE,FR;BYHOUR=6,18",
            "2026-01-02T06:00:00",
            "2026-01-05T07:00:00Z",
            "2026-01-05T18:00Z",
        ),
        (
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
            "2026-01-30T06:00:00",
            "2026-05-01T00:00:00Z",
            "2026-05-29T06:00Z",
        ),
    ] {
        assert_eq!(next(&rule(text, start, "UTC"), after, 1), [expected], "{text}");
    }
}

#[test]
fn a_rule_ends_with_its_count_and_its_until() {
    let counted = rule("FREQ=DAILY;COUNT=3", "2026-01-01T06:00:00", "UTC");
    assert_eq!(next(&counted, "2026-01-02T00:00:00Z", 9), ["2026-01-02T06:00Z", "2026-01-03T06:00Z"]);
    // Long after its end it is still counted from its start.
    let counted = rule("FREQ=DAILY;COUNT=20", "2026-01-01T06:00:00", "UTC");
    assert_eq!(next(&counted, "2026-03-01T00:00:00Z", 9), Vec::<String>::new());
    for until in ["20260103", "20260103T070000", "20260103T060000Z"] {
        let limited = rule(&format!("FREQ=DAILY;UNTIL={until}"), "2026-01-01T07:00:00", "Europe/Berlin");
        let expected = ["2026-01-01T06:00Z", "2026-01-02T06:00Z", "2026-01-03T06:00Z"];
        assert_eq!(next(&limited, "2025-01-01T00:00:00Z", 9), expected, "{until}");
    }
}

#[test]
fn a_skipped_time_is_due_later_and_a_repeated_one_once() {
    let daily = rule("FREQ=DAILY", "2026-01-01T02:30:00", "Europe/Berlin");
    assert_eq!(
        next(&daily, "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T01:30Z", "2026-03-29T01:30Z", "2026-03-30T00:30Z"]
    );
    assert_eq!(next(&daily, "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
    // At 02:00 the clocks of Lord Howe Island go to 02:30. So 02:20 is due at 02:50, after 02:40.
    let half = rule("FREQ=DAILY;BYHOUR=2;BYMINUTE=20,40", "2026-01-01T02:20:00", "Australia/Lord_Howe");
    assert_eq!(
        next(&half, "2026-10-03T12:00:00Z", 3),
        ["2026-10-03T15:40Z", "2026-10-03T15:50Z", "2026-10-04T15:20Z"]
    );
    // What is due at the same moment is due once.
    let two = rule("FREQ=DAILY;BYHOUR=2,3;BYMINUTE=10,30", "2026-01-01T02:10:00", "Europe/Berlin");
    assert_eq!(
        next(&two, "2026-03-29T00:00:00Z", 3),
        ["2026-03-29T01:10Z", "2026-03-29T01:30Z", "2026-03-30T00:10Z"]
    );
}

#[test]
fn wrong_rules_are_refused_with_the_reason() {
    for (text, start, place, reason) in [
        (
            "FREQ=WEEKLY;BYDAY=TU",
            "2026-01-01T09:00:00",
            "/rule",
            "does not match `start`: its first time is 2026-01-06T09:00:00",
        ),
        (
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "2026-02-28T09:00:00",
            "/rule",
            "matches no date that ever occurs",
        ),
        (
            "FREQ=MONTHLY;BYMONTH=4;BYMONTHDAY=31",
            "2026-04-30T09:00:00",
            "/rule",
            "matches no date that ever occurs",
        ),
        (
            "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
            "2026-02-28T09:00:00",
            "/rule",
            "matches no date that ever occurs",
        ),
        ("FREQ=SECONDLY", "2026-01-01T09:00:00", "/rule", "must be DAILY, WEEKLY, MONTHLY or YEARLY"),
        ("FREQ=DAILY;COUNT=1000000", "2026-01-01T09:00:00", "/rule", "may have a COUNT of at most 10000"),
        ("every tuesday", "2026-01-01T09:00:00", "/rule", "is not a rule of RFC 5545"),
        ("FREQ=DAILY;UNTIL=tomorrow", "2026-01-01T09:00:00", "/rule", "has an invalid UNTIL"),
        ("FREQ=DAILY", "tomorrow", "/start", "must be a time on the clocks"),
        ("DTSTART:20260101T090000Z", "2026-01-01T09:00:00", "/rule", "must be one rule"),
    ] {
        let found = problems(&rule(text, start, "UTC"));
        assert!(found.len() == 1 && found[0].starts_with(&format!("{place}: {reason}")), "{text}: {found:?}");
    }
    assert_eq!(problems(&json!({ "type": "rrule" })), ["/start: is missing", "/rule: is missing"]);
}

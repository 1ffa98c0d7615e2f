//! Parsing triggers: what is accepted, and the messages for what is not.

use chrono::{DateTime, Utc};
use gathering_domain::Pointer;
use gathering_scheduler::Trigger;
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(trigger: Value) -> Trigger {
    Trigger::parse(&trigger, &Pointer::root()).unwrap()
}

fn problems(trigger: Value) -> Vec<String> {
    let at = Pointer::root().join("trigger");
    Trigger::parse(&trigger, &at).unwrap_err().iter().map(ToString::to_string).collect()
}

fn cron(expression: &str) -> Trigger {
    parse(json!({ "type": "cron", "expression": expression }))
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn five_or_six_fields_and_aliases_are_accepted() {
    let after = at("2026-01-01T00:00:00Z"); // a Thursday
    for (expression, next) in [
        ("*/5 * * * *", "2026-01-01T00:05:00Z"),
        ("*/5 * * * * *", "2026-01-01T00:00:05Z"),
        ("0 9 * * MON-FRI", "2026-01-01T09:00:00Z"),
        ("0 9 * * sun", "2026-01-04T09:00:00Z"),
        ("0 0 L * *", "2026-01-31T00:00:00Z"),
        ("0 0 * * FRI#2", "2026-01-09T00:00:00Z"),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ("0 0 29 2 +MON", "2044-02-29T00:00:00Z"),
        ("0 0 13 * FRI", "2026-01-02T00:00:00Z"),
        ("@hourly", "2026-01-01T01:00:00Z"),
        ("@daily", "2026-01-02T00:00:00Z"),
        ("@midnight", "2026-01-02T00:00:00Z"),
        ("@weekly", "2026-01-04T00:00:00Z"),
        ("@monthly", "2026-02-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
    ] {
        assert_eq!(cron(expression).next_after(after), Some(at(next)), "{expression}");
    }
}

#[test]
fn expressions_that_match_no_date_are_rejected() {
    for expression in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 2 +MON", "0 0 31W 2 *"] {
        assert_eq!(
            problems(json!({ "type": "cron", "expression": expression })),
            ["/trigger/expression: matches no date that ever occurs: write L for the last day of a month"]
        );
    }
}

#[test]
fn a_trigger_is_rejected_with_every_problem_and_its_location() {
    assert_eq!(
        problems(
            json!({ "type": "cron", "expression": "* * *", "timezone": "Berlin", "dst": "maybe", "cron": 1 })
        ),
        [
            "/trigger/cron: is not a field of this trigger: it has type, expression, timezone, dst",
            "/trigger/timezone: is not an IANA time zone: did you mean Europe/Berlin?",
            "/trigger/dst: must be one of skip, shift, both",
            "/trigger/expression: has 3 fields, but must have 5 (minute, hour, day of month, month, day of week), 6 with \
             seconds in front, or 7 with a year at the end, too",
        ]
    );
    let interval = "/trigger/seconds: must be a whole number from 1 to 315360000";
    for seconds in [json!(0), json!(-5), json!(1.5), json!("60"), json!(315_360_001), json!(1e300)] {
        assert_eq!(problems(json!({ "type": "interval", "seconds": seconds })), [interval]);
    }
    assert_eq!(
        problems(json!({ "type": "once", "at": "tomorrow" })),
        ["/trigger/at: must be an RFC 3339 time, such as 2030-01-31T12:00:00Z"]
    );
    assert_eq!(
        problems(json!({ "type": "moon" })),
        ["/trigger/type: must be one of cron, interval, rrule, once, event"]
    );
    assert_eq!(problems(json!({})), ["/trigger/type: is missing"]);
    assert_eq!(problems(json!("@daily")), ["/trigger: must be an object with a `type`"]);
    assert_eq!(problems(json!({ "type": "cron" })), ["/trigger/expression: is missing"]);
    for expression in ["61 * * * *", "@reboot", "0 0 0 1 1 * 1850", "a b c d e", "", "*/0 * * * *"] {
        let found = problems(json!({ "type": "cron", "expression": expression }));
        assert!(found.len() == 1 && found[0].starts_with("/trigger/expression: "), "{expression}: {found:?}");
    }
}

#[test]
fn a_trigger_survives_a_round_trip() {
    for (written, whole) in [
        (
            json!({ "type": "cron", "expression": " @Daily ", "timezone": "Europe/Berlin" }),
            json!({ "type": "cron", "expression": "@Daily", "timezone": "Europe/Berlin", "dst": "shift" }),
        ),
        (
            json!({ "type": "cron", "expression": "*/10 * * * *" }),
            json!({ "type": "cron", "expression": "*/10 * * * *", "timezone": "UTC", "dst": "both" }),
        ),
        (json!({ "type": "interval", "seconds": 90 }), json!({ "type": "interval", "seconds": 90 })),
        (json!({ "type": "interval", "seconds": 60.0 }), json!({ "type": "interval", "seconds": 60 })),
        (
            json!({ "type": "once", "at": "2030-01-31T12:00:00+02:00" }),
            json!({ "type": "once", "at": "2030-01-31T10:00:00Z" }),
        ),
    ] {
        let trigger = parse(written);
        assert_eq!(trigger.to_json(), whole);
        assert_eq!(parse(whole), trigger);
    }
}

#[test]
fn triggers_are_described_in_english() {
    let cases = [
        (json!({ "type": "interval", "seconds": 1 }), "Every second"),
        (json!({ "type": "interval", "seconds": 7200 }), "Every 2 hours"),
        (json!({ "type": "interval", "seconds": 90 }), "Every 90 seconds"),
        (json!({ "type": "once", "at": "2030-01-31T12:00:00Z" }), "Once, at 2030-01-31T12:00:00Z"),
        (
            json!({ "type": "cron", "expression": "30 9 * * MON-FRI", "timezone": "Europe/Berlin" }),
            "At 09:30, on Monday, Tuesday, Wednesday, Thursday, and Friday (Europe/Berlin)",
        ),
        (json!({ "type": "cron", "expression": "*/20 * * * *" }), "Every 20 minutes (UTC)"),
        (json!({ "type": "cron", "expression": "0 0 1 JAN *" }), "At 00:00, on day 1, in January (UTC)"),
    ];
    for (trigger, words) in cases {
        assert_eq!(parse(trigger).describe(), words);
    }
}

#[test]
fn an_interval_keeps_its_rhythm_and_once_fires_once() {
    let interval = parse(json!({ "type": "interval", "seconds": 90 }));
    let due = interval.next_n(at("2026-01-01T00:00:00.75Z"), 3);
    assert_eq!(due, [at("2026-01-01T00:01:30Z"), at("2026-01-01T00:03:00Z"), at("2026-01-01T00:04:30Z")]);
    let once = parse(json!({ "type": "once", "at": "2030-01-31T12:00:00Z" }));
    assert_eq!(once.next_n(at("2026-01-01T00:00:00Z"), 3), [at("2030-01-31T12:00:00Z")]);
    assert_eq!(once.next_after(at("2030-01-31T12:00:00Z")), None);
}

#[test]
fn the_ends_of_time_do_not_panic() {
    for after in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        for trigger in
            [cron("* * * * * *"), cron("@yearly"), parse(json!({ "type": "interval", "seconds": 90 }))]
        {
            let _ = trigger.next_after(after);
        }
    }
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(text in "[-0-9*/,?LW#+@a-zA-Z ]{0,30}") {
        let _ = Trigger::parse(&json!({ "type": "cron", "expression": text }), &Pointer::root());
    }
}

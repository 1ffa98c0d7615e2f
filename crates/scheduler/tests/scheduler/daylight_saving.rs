//! The effect of clock changes on due times: by hand for known nights, and against an oracle for random ones.

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use gathering_scheduler::{Cron, Dst, Occurrence};
use proptest::prelude::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The local times, with their offsets, at which it fires from `from` until `to`.
fn fires(expression: &str, timezone: Tz, dst: Option<Dst>, from: &str, to: &str) -> Vec<String> {
    let cron = Cron::parse(expression, timezone, dst).unwrap();
    let first = cron.next_after(at(from) - Duration::seconds(1));
    std::iter::successors(first, |previous| cron.next_after(*previous))
        .take_while(|due| *due < at(to))
        .map(|due| due.with_timezone(&timezone).format("%d %H:%M%:z").to_string())
        .collect()
}

const POLICIES: [Dst; 3] = [Dst::Skip, Dst::Shift, Dst::Both];

#[test]
fn a_skipped_time_follows_the_policy() {
    // 02:00 becomes 03:00, 02:00 becomes 03:00, 02:00 becomes 02:30.
    for (zone, expression, from, to, skipped, shifted) in [
        (
            Tz::Europe__Berlin,
            "30 2 * * *",
            "2026-03-28T00:00:00Z",
            "2026-03-31T00:00:00Z",
            vec!["28 02:30+01:00", "30 02:30+02:00"],
            vec!["28 02:30+01:00", "29 03:30+02:00", "30 02:30+02:00"],
        ),
        (
            Tz::America__New_York,
            "30 2 * * *",
            "2026-03-07T05:00:00Z",
            "2026-03-10T04:00:00Z",
            vec!["07 02:30-05:00", "09 02:30-04:00"],
            vec!["07 02:30-05:00", "08 03:30-04:00", "09 02:30-04:00"],
        ),
        (
            Tz::Australia__Lord_Howe,
            "15 2 * * *",
            "2026-10-02T13:30:00Z",
            "2026-10-05T13:00:00Z",
            vec!["03 02:15+10:30", "05 02:15+11:00"],
            vec!["03 02:15+10:30", "04 02:45+11:00", "05 02:15+11:00"],
        ),
    ] {
        assert_eq!(fires(expression, zone, Some(Dst::Skip), from, to), skipped, "{zone}");
        assert_eq!(fires(expression, zone, Some(Dst::Shift), from, to), shifted, "{zone}");
        assert_eq!(fires(expression, zone, Some(Dst::Both), from, to), shifted, "{zone}");
    }
}

#[test]
fn a_repeated_time_follows_the_policy() {
    for (zone, expression, from, to, once, twice) in [
        (
            Tz::Europe__Berlin,
            "30 2 * * *",
            "2026-10-24T12:00:00Z",
            "2026-10-25T12:00:00Z",
            vec!["25 02:30+02:00"],
            vec!["25 02:30+02:00", "25 02:30+01:00"],
        ),
        (
            Tz::America__New_York,
            "0 1 * * *",
            "2026-10-31T12:00:00Z",
            "2026-11-01T12:00:00Z",
            vec!["01 01:00-04:00"],
            vec!["01 01:00-04:00", "01 01:00-05:00"],
        ),
        (
            Tz::Australia__Lord_Howe,
            "45 1 * * *",
            "2026-04-04T00:00:00Z",
            "2026-04-05T00:00:00Z",
            vec!["05 01:45+11:00"],
            vec!["05 01:45+11:00", "05 01:45+10:30"],
        ),
    ] {
        assert_eq!(fires(expression, zone, Some(Dst::Skip), from, to), once, "{zone}");
        assert_eq!(fires(expression, zone, Some(Dst::Shift), from, to), once, "{zone}");
        assert_eq!(fires(expression, zone, Some(Dst::Both), from, to), twice, "{zone}");
    }
}

#[test]
fn the_first_moment_after_a_change_fires_once() {
    for dst in POLICIES {
        let spring =
            fires("0 3 * * *", Tz::Europe__Berlin, Some(dst), "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
        assert_eq!(spring, ["29 03:00+02:00"]);
        let autumn =
            fires("0 3 * * *", Tz::Europe__Berlin, Some(dst), "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
        assert_eq!(autumn, ["25 03:00+01:00"]);
    }
}

#[test]
fn by_default_an_hourly_rhythm_is_kept_and_a_daily_time_fires_once_a_day() {
    for (from, to) in
        [("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"), ("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z")]
    {
        assert_eq!(fires("*/20 * * * *", Tz::Europe__Berlin, None, from, to).len(), 24 * 3);
        assert_eq!(fires("30 2 * * *", Tz::Europe__Berlin, None, from, to).len(), 1);
    }
}

#[test]
fn a_skipped_day_follows_the_policy() {
    // Samoa went from 29 to 31 December 2011.
    let days = |dst| {
        fires("0 12 * * *", Tz::Pacific__Apia, Some(dst), "2011-12-29T12:00:00Z", "2012-01-01T12:00:00Z")
    };
    assert_eq!(days(Dst::Skip), ["29 12:00-10:00", "31 12:00+14:00", "01 12:00+14:00"]);
    assert_eq!(days(Dst::Shift), ["29 12:00-10:00", "31 12:00+14:00", "01 12:00+14:00"], "30 falls on 31");
}

#[test]
fn skip_reports_the_skipped_time() {
    let cron = Cron::parse("30 2 * * *", Tz::Europe__Berlin, Some(Dst::Skip)).unwrap();
    let left_out = cron.next_occurrence(at("2026-03-28T12:00:00Z")).unwrap();
    assert_eq!(left_out, Occurrence::LeftOut(at("2026-03-29T01:30:00Z")));
    let next = cron.next_occurrence(left_out.at()).unwrap();
    assert_eq!(next, Occurrence::Due(at("2026-03-30T00:30:00Z")));
    let hourly = Cron::parse("30 * * * *", Tz::Europe__Berlin, Some(Dst::Skip)).unwrap();
    let next = hourly.next_occurrence(at("2026-03-29T01:00:00Z")).unwrap();
    assert_eq!(next, Occurrence::Due(at("2026-03-29T01:30:00Z")), "it coincides with a regular time");
}

/// Every moment within two days around `middle` at which it should fire. Examines each wall-clock minute in turn.
fn oracle(
    minutes: &[u32],
    hours: &[u32],
    zone: Tz,
    dst: Dst,
    middle: DateTime<Utc>,
) -> BTreeSet<DateTime<Utc>> {
    use chrono::Timelike;
    let resolve = |wall: NaiveDateTime| zone.from_local_datetime(&wall);
    let from = middle.with_timezone(&zone).naive_local().with_second(0).unwrap() - Duration::days(1);
    let mut due = BTreeSet::new();
    for minute in 0..2 * 24 * 60 {
        let wall = from + Duration::minutes(minute);
        if !minutes.contains(&wall.minute()) || !hours.contains(&wall.hour()) {
            continue;
        }
        match resolve(wall) {
            LocalResult::Single(at) => {
                due.insert(at.to_utc());
            }
            LocalResult::Ambiguous(first, second) => {
                due.insert(first.to_utc());
                if dst == Dst::Both {
                    due.insert(second.to_utc());
                }
            }
            LocalResult::None if dst == Dst::Skip => {}
            LocalResult::None => {
                // What unchanged clocks show: count on from a time before the gap.
                let before = resolve(wall - Duration::hours(3)).unwrap();
                due.insert((before + Duration::hours(3)).to_utc());
            }
        }
    }
    due
}

/// A zone and a moment of 2018, when all of these but Kolkata changed their clocks; half of them within hours of it.
fn zones_and_moments() -> impl Strategy<Value = (Tz, DateTime<Utc>)> {
    let zones = [
        Tz::Europe__Berlin,
        Tz::America__New_York,
        Tz::Australia__Lord_Howe,
        Tz::America__Sao_Paulo,
        Tz::Africa__Casablanca,
        Tz::Asia__Kolkata,
    ];
    let offset =
        |zone: Tz, at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
    let start = at("2018-01-01T00:00:00Z");
    let mut near = Vec::new();
    for zone in zones {
        let hours = (0..365 * 24).map(|hour| start + Duration::hours(hour));
        let is_near = |hour: &DateTime<Utc>| {
            offset(zone, *hour - Duration::hours(5)) != offset(zone, *hour + Duration::hours(5))
        };
        near.extend(hours.filter(is_near).map(|hour| (zone, hour)));
    }
    let near = (prop::sample::select(near), 0_i64..3600)
        .prop_map(|((zone, hour), second)| (zone, hour + Duration::seconds(second)));
    let anywhere = (prop::sample::select(zones.to_vec()), 0_i64..365 * 24 * 3600)
        .prop_map(move |(zone, second)| (zone, start + Duration::seconds(second)));
    prop_oneof![near, anywhere]
}

fn policies() -> impl Strategy<Value = Dst> {
    prop::sample::select(POLICIES.to_vec())
}

fn list(numbers: &BTreeSet<u32>) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_fires_exactly_when_the_oracle_says(
        (zone, middle) in zones_and_moments(),
        dst in policies(),
        minutes in prop::collection::btree_set(0_u32..60, 1..5),
        hours in prop::collection::btree_set(0_u32..6, 1..5),
    ) {
        let expression = format!("{} {} * * *", list(&minutes), list(&hours));
        let cron = Cron::parse(&expression, zone, Some(dst)).unwrap();
        let (minutes, hours): (Vec<u32>, Vec<u32>) = (minutes.into_iter().collect(), hours.into_iter().collect());
        // Starts in the middle, so that it must know what was in effect before. The ends of the oracle are left out.
        let expected: Vec<DateTime<Utc>> = oracle(&minutes, &hours, zone, dst, middle)
            .into_iter()
            .filter(|due| *due > middle && *due < middle + Duration::hours(20))
            .collect();
        let found: Vec<DateTime<Utc>> = std::iter::successors(cron.next_after(middle), |due| cron.next_after(*due))
            .take_while(|due| *due < middle + Duration::hours(20))
            .collect();
        prop_assert_eq!(found, expected, "{} in {} ({}) after {}", expression, zone, dst, middle);
    }

    #[test]
    fn the_next_time_is_later_and_monotonic(
        (zone, one) in zones_and_moments(),
        dst in policies(),
        later in 0_i64..200_000,
        expression in prop::sample::select(vec![
            "* * * * * *", "*/7 * * * * *", "*/10 * * * *", "30 2 * * *", "0,30 0-3 * * *", "0 0 * * *", "@hourly",
            "0 0 L * *", "15 1 * * SUN", "0 12 29 2 *",
        ]),
    ) {
        let cron = Cron::parse(expression, zone, Some(dst)).unwrap();
        let other = one + Duration::milliseconds(later * 37);
        let (after_one, after_other) = (cron.next_after(one).unwrap(), cron.next_after(other).unwrap());
        prop_assert!(after_one > one && after_other > other);
        prop_assert!(after_one <= after_other);
        // Nothing lies between: a search from any moment before it gives the same answer.
        if other < after_one {
            prop_assert_eq!(after_one, after_other);
        }
    }
}

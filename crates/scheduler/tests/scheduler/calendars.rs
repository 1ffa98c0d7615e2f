//! Days of iCalendar files: as real programs write them, and as somebody writes them who means harm.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Datelike, Days as ChronoDays, NaiveDate, NaiveDateTime, Utc};
use gathering_scheduler::{MAX_CALENDAR_BYTES, Zone, ZoneData, days_of_calendar};
use proptest::prelude::*;

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn zone(name: &str) -> Zone {
    ZoneData::current().zone(name).unwrap()
}

fn today() -> NaiveDate {
    day("2026-11-30")
}

/// A file with these lines between those of the calendar.
fn calendar(lines: &str) -> String {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let all = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//example//holidays//EN"].into_iter().chain(lines);
    all.chain(["END:VCALENDAR"]).map(|line| format!("{line}\r\n")).collect()
}

/// A file with one event.
fn event(lines: &str) -> String {
    calendar(&format!("BEGIN:VEVENT\nUID:1@example.org\n{lines}\nEND:VEVENT"))
}

fn days_in(text: &str, zone_name: &str) -> Vec<String> {
    let days = days_of_calendar(text.as_bytes(), &zone(zone_name), today()).unwrap();
    days.iter().map(ToString::to_string).collect()
}

/// Its days until the end of 2027, in Berlin.
fn days(text: &str) -> Vec<String> {
    days_in(text, "Europe/Berlin").into_iter().filter(|day| day.as_str() < "2028").collect()
}

fn error(text: &str) -> String {
    days_of_calendar(text.as_bytes(), &zone("Europe/Berlin"), today()).unwrap_err().to_string()
}

#[test]
fn events_of_whole_days_touch_each_of_their_days() {
    let cases: [(&str, &[&str]); 7] = [
        ("DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261226\nSUMMARY:Christmas", &["2026-12-25"]),
        // The end is no more a part of it.
        (
            "DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261227",
            &["2026-12-24", "2026-12-25", "2026-12-26"],
        ),
        ("DTSTART;VALUE=DATE:20261225", &["2026-12-25"]),
        // Some programs say neither that it is a day, nor the end as they should.
        ("DTSTART:20261225\nDTEND:20261225", &["2026-12-25"]),
        ("DTSTART;VALUE=DATE:20261231\nDURATION:P2D", &["2026-12-31", "2027-01-01"]),
        ("dtstart;value=date:20261225\nStatus:Tentative\nTRANSP:TRANSPARENT", &["2026-12-25"]),
        ("DTSTART;VALUE=DATE:20261225\nSTATUS:CANCELLED", &[]),
    ];
    for (lines, expected) in cases {
        assert_eq!(days(&event(lines)), expected, "{lines}");
    }
}

#[test]
fn events_with_times_touch_the_days_on_the_clocks_of_the_schedule() {
    let cases: [(&str, &str, &[&str]); 9] = [
        ("DTSTART:20261225T080000\nDTEND:20261225T170000", "Europe/Berlin", &["2026-12-25"]),
        // Eleven in the evening in New York is the next morning in Berlin.
        (
            "DTSTART;TZID=America/New_York:20261224T230000\nDTEND;TZID=America/New_York:20261225T010000",
            "Europe/Berlin",
            &["2026-12-25"],
        ),
        (
            "DTSTART;TZID=America/New_York:20261224T230000\nDTEND;TZID=America/New_York:20261225T010000",
            "America/New_York",
            &["2026-12-24", "2026-12-25"],
        ),
        // An event that ends at midnight is not on the day that begins.
        ("DTSTART:20261225T000000\nDTEND:20261226T000000", "Europe/Berlin", &["2026-12-25"]),
        ("DTSTART:20261225T230000Z\nDTEND:20261226T003000Z", "UTC", &["2026-12-25", "2026-12-26"]),
        ("DTSTART:20261225T230000Z", "Europe/Berlin", &["2026-12-26"]),
        ("DTSTART:20261225T230000\nDURATION:PT2H", "Asia/Tokyo", &["2026-12-25", "2026-12-26"]),
        (
            "DTSTART;TZID=\"Europe/Berlin\":20261225T230000\nDURATION:P1DT30M",
            "Europe/Berlin",
            &["2026-12-25", "2026-12-26"],
        ),
        ("DTSTART;TZID=/citadel.org/20210210_1/Europe/Berlin:20261225T100000", "UTC", &["2026-12-25"]),
    ];
    for (lines, zone, expected) in cases {
        assert_eq!(days_in(&event(lines), zone), expected, "{lines} in {zone}");
    }
}

#[test]
fn events_repeat_by_their_rules() {
    let cases: [(&str, &[&str]); 11] = [
        // A file begins last year, whenever its events began.
        ("DTSTART;VALUE=DATE:20051003\nRRULE:FREQ=YEARLY", &["2025-10-03", "2026-10-03", "2027-10-03"]),
        (
            "DTSTART;VALUE=DATE:20201126\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;UNTIL=20261126",
            &["2025-11-27", "2026-11-26"],
        ),
        ("DTSTART;VALUE=DATE:20260831\nRRULE:FREQ=YEARLY;COUNT=2", &["2026-08-31", "2027-08-31"]),
        // Those before last year count.
        ("DTSTART;VALUE=DATE:20220603\nRRULE:FREQ=YEARLY;COUNT=5", &["2025-06-03", "2026-06-03"]),
        // The start is the first time, though the rule does not name it.
        (
            "DTSTART;VALUE=DATE:20261201\nRRULE:FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=25;COUNT=2",
            &["2026-12-01", "2026-12-25"],
        ),
        (
            "DTSTART;VALUE=DATE:20261214\nRRULE:FREQ=WEEKLY;COUNT=4\nEXDATE;VALUE=DATE:20261221,20270104",
            &["2026-12-14", "2026-12-28"],
        ),
        (
            "DTSTART;VALUE=DATE:20261214\nRDATE;VALUE=DATE:20261216,20261218\nEXDATE:20261214",
            &["2026-12-16", "2026-12-18"],
        ),
        (
            "DTSTART;TZID=Europe/Berlin:20261214T090000\nDURATION:PT1H\nRRULE:FREQ=DAILY;UNTIL=20261216T080000Z",
            &["2026-12-14", "2026-12-15", "2026-12-16"],
        ),
        // An exception in another zone than the event's, and one that names a day.
        (
            "DTSTART;TZID=Europe/Berlin:20261214T090000\nRRULE:FREQ=DAILY;COUNT=4\nEXDATE:20261215T080000Z\nEXDATE;VALUE=DATE:20261216",
            &["2026-12-14", "2026-12-17"],
        ),
        // The clocks change in between: nine in the morning stays nine.
        (
            "DTSTART;TZID=America/New_York:20261031T233000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=2",
            &["2026-11-01", "2026-11-08"],
        ),
        ("DTSTART;VALUE=DATE:20240229\nRRULE:FREQ=YEARLY;UNTIL=20271231", &[]),
    ];
    for (lines, expected) in cases {
        assert_eq!(days(&event(lines)), expected, "{lines}");
    }
    let endless = days_in(&event("DTSTART;VALUE=DATE:19700101\nRRULE:FREQ=DAILY"), "UTC");
    assert_eq!((endless[0].as_str(), endless[endless.len() - 1].as_str()), ("2025-01-01", "2036-12-31"));
    assert_eq!(endless.len(), 12 * 365 + 3, "and no schedule may list so many more");
}

#[test]
fn a_single_time_of_a_repeating_event_is_moved_or_cancelled() {
    let master = "BEGIN:VEVENT\nUID:a\nDTSTART;VALUE=DATE:20261201\nRRULE:FREQ=WEEKLY;COUNT=3\nEND:VEVENT";
    let other = |lines: &str| calendar(&format!("BEGIN:VEVENT\nUID:a\n{lines}\nEND:VEVENT\n{master}"));
    let moved = other("RECURRENCE-ID;VALUE=DATE:20261208\nDTSTART;VALUE=DATE:20261210");
    assert_eq!(days(&moved), ["2026-12-01", "2026-12-10", "2026-12-15"]);
    let cancelled = other("RECURRENCE-ID;VALUE=DATE:20261208\nDTSTART;VALUE=DATE:20261208\nSTATUS:CANCELLED");
    assert_eq!(days(&cancelled), ["2026-12-01", "2026-12-15"]);
    let of_another = calendar(&format!(
        "BEGIN:VEVENT\nUID:b\nRECURRENCE-ID;VALUE=DATE:20261208\nDTSTART;VALUE=DATE:20261209\nEND:VEVENT\n{master}"
    ));
    assert_eq!(days(&of_another), ["2026-12-01", "2026-12-08", "2026-12-09", "2026-12-15"]);
}

#[test]
fn files_are_read_as_programs_write_them() {
    let plain = calendar(
        "X-WR-CALNAME:Feiertage in Deutschland
         BEGIN:VTIMEZONE
         TZID:Europe/Berlin
         BEGIN:STANDARD
         DTSTART:19701025T030000
         RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU
         TZOFFSETFROM:+0200
         TZOFFSETTO:+0100
         END:STANDARD
         END:VTIMEZONE
         BEGIN:VTODO
         DTSTART;VALUE=DATE:20261111
         END:VTODO
         BEGIN:VEVENT
         DTSTAMP:20260101T000000Z
         DTSTART;VALUE=DATE:20261225
         SUMMARY;LANGUAGE=de:Erster Weihnachtstag: frei\\, für alle
         ATTENDEE;CN=\"Ada; Grace: both\":mailto:ada@example.org
         BEGIN:VALARM
         TRIGGER:-PT15M
         DURATION:P9D
         ACTION:DISPLAY
         END:VALARM
         DTEND;VALUE=DATE:20261227
         END:VEVENT",
    );
    let expected = ["2026-12-25", "2026-12-26"];
    assert_eq!(days(&plain), expected);
    assert_eq!(days(&plain.replace("\r\n", "\n")), expected, "the line ends of Unix");
    assert_eq!(days(&format!("\u{feff}{plain}")), expected, "a byte order mark");
    assert_eq!(days(&format!("{plain}\r\n\r\n{}", event("DTSTART:20261231"))).len(), 3, "two calendars");
    let folded = plain.replace("VALUE=DATE:202612", "VALUE=DA\r\n TE:20\r\n\t2612");
    assert_eq!(days(&folded), expected, "folded lines");
    let latin = plain.replace('ü', "?").into_bytes();
    let latin: Vec<u8> = latin.into_iter().map(|byte| if byte == b'?' { 0xfc } else { byte }).collect();
    let found = days_of_calendar(&latin, &zone("Europe/Berlin"), today()).unwrap();
    assert_eq!(found.len(), 2, "the name of an event in another encoding");
    assert_eq!(days(&calendar("")), [""; 0], "nobody has to have holidays");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let no_calendar = "line 1: is not iCalendar, which begins with BEGIN:VCALENDAR";
    assert_eq!(error(""), no_calendar);
    assert_eq!(error("2026-12-25\n2026-12-26\n"), no_calendar);
    assert_eq!(error("BEGIN:VCARD\nEND:VCARD"), no_calendar);
    let cases = [
        (
            "DTSTART;VALUE=DATE:20261325",
            "line 6: DTSTART must have a day that exists, such as 20261225, or a time, such as 20261225T080000",
        ),
        ("SUMMARY:no start", "line 4: VEVENT has no DTSTART"),
        (
            "DTSTART:20261225T0800",
            "line 6: DTSTART must have a day that exists, such as 20261225, or a time, such as 20261225T080000",
        ),
        (
            "DTSTART:+2026122",
            "line 6: DTSTART must have a day that exists, such as 20261225, or a time, such as 20261225T080000",
        ),
        (
            "DTSTART:é20261225",
            "line 6: DTSTART must have a day that exists, such as 20261225, or a time, such as 20261225T080000",
        ),
        (
            "DTSTART;TZID=W. Europe Standard Time:20261225T080000",
            "line 6: the TZID `W. Europe Standard Time` is not an IANA time zone",
        ),
        ("DTSTART:20261225\nDTEND:20261224", "line 7: DTEND is before DTSTART"),
        (
            "DTSTART:20261225T100000\nDTEND:20261225",
            "line 7: DTEND must be a day if DTSTART is one, else a time",
        ),
        ("DTSTART:20261225\nDURATION:-P1D", "line 7: DURATION must be such as P1D, P2W or PT1H30M"),
        ("DTSTART:20261225\nDURATION:P1Y", "line 7: DURATION must be such as P1D, P2W or PT1H30M"),
        ("DTSTART:20261225\nRRULE:FREQ=HOURLY", "line 7: RRULE must not name more than 24 times of a day"),
        (
            "DTSTART:20261225\nRRULE:FREQ=DAILY;COUNT=99999999",
            "line 7: RRULE must have a COUNT of 1 to 10000: use UNTIL",
        ),
        (
            "DTSTART:20261225\nRRULE:FREQ=DAILY;UNTIL=soon",
            "line 7: RRULE has an invalid UNTIL: write 20301231, 20301231T235959 or 20301231T225959Z",
        ),
        (
            "DTSTART:20261225\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "line 7: RRULE matches no day that ever exists",
        ),
        ("DTSTART:18991225\nRRULE:FREQ=YEARLY", "line 7: RRULE must not begin before 1900"),
        ("DTSTART:20261225\nEXRULE:FREQ=YEARLY", "line 7: EXRULE is not understood: write EXDATE"),
        (
            "DTSTART:20261225\nRDATE;VALUE=PERIOD:20261226T000000Z/PT1H",
            "line 7: RDATE must have a day that exists, such as 20261225, or a time, such as 20261225T080000",
        ),
        (
            "DTSTART:20261225\nRECURRENCE-ID;RANGE=THISANDFUTURE:20261225",
            "line 7: RECURRENCE-ID with a RANGE is not understood",
        ),
        (
            "DTSTART:20261225\nGarbage",
            "line 7: is neither a property, such as DTSTART:20261225, nor a part of the line before",
        ),
        ("DTSTART:20261225\nEND:VTODO", "line 7: ends another component than VEVENT, which begins in line 4"),
    ];
    for (lines, expected) in cases {
        assert_eq!(error(&event(lines)), expected, "{lines}");
    }
    let rule = error(&event("DTSTART:20261225\nRRULE:FREQ=SOMETIMES"));
    assert!(rule.starts_with("line 7: RRULE is not a rule of RFC 5545"), "{rule}");
    let cut = event("DTSTART:20261225");
    let (cut, _) = cut.split_once("END:VEVENT").unwrap();
    assert_eq!(error(cut), "line 4: VEVENT has no END");
}

/// However it is written, an answer comes soon, without much memory, and without a panic.
#[test]
fn a_hostile_file_is_refused_soon() {
    let times = |lines: &str, n: usize| {
        let event = format!("BEGIN:VEVENT\nUID:1\n{lines}\nEND:VEVENT\n");
        calendar(&event.repeat(n))
    };
    let cases = [
        ("too large", " ".repeat(MAX_CALENDAR_BYTES + 1)),
        ("nested", "BEGIN:VCALENDAR\n".repeat(60_000)),
        ("many events", times("DTSTART:20261225", 10_001)),
        ("long events", times("DTSTART:00010101\nDTEND:99991231", 10_000)),
        ("long durations", times("DTSTART:20261225\nDURATION:P99999D", 10_000)),
        ("daily for ever", times("DTSTART:19000101\nRRULE:FREQ=DAILY", 10_000)),
        ("a long count", times("DTSTART:19000101\nRRULE:FREQ=DAILY;COUNT=10000", 10_000)),
        (
            "many times",
            times(
                "DTSTART:20250101T000000\nRRULE:FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
                2_000,
            ),
        ),
        ("never", times("DTSTART:20250101\nRRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;UNTIL=20260101", 5_000)),
        (
            "many replacements",
            times("DTSTART:20261225", 4_000).replace("END:VCALENDAR", "").trim_end().to_owned()
                + "\n"
                + &"BEGIN:VEVENT\nUID:1\nDTSTART:20261225\nRECURRENCE-ID:20261225\nEND:VEVENT\n"
                    .repeat(4_000)
                + "END:VCALENDAR",
        ),
        ("many rules", times("DTSTART:20250101\nRRULE:FREQ=YEARLY", 501)),
    ];
    for (what, text) in cases {
        let begun = Instant::now();
        let found = days_of_calendar(text.as_bytes(), &zone("Europe/Berlin"), today());
        let took = begun.elapsed();
        assert!(found.is_err(), "{what}");
        assert!(took < Duration::from_secs(20), "{what} took {took:?}");
    }
    let hardly_ever = times("DTSTART:20250101\nRRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=WE", 500);
    let begun = Instant::now();
    assert_eq!(days_in(&hardly_ever, "UTC"), ["2025-01-01"]);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// A part of a rule, and often one that makes no sense.
fn rule_part() -> impl Strategy<Value = String> {
    let number = prop_oneof![-400_i64..400, Just(i64::from(u16::MAX)), Just(i64::MAX), Just(i64::MIN)];
    let numbers = prop::collection::vec(number, 1..4);
    let named = prop::sample::select(vec![
        "INTERVAL",
        "COUNT",
        "BYMONTH",
        "BYMONTHDAY",
        "BYYEARDAY",
        "BYWEEKNO",
        "BYSETPOS",
        "BYHOUR",
        "BYMINUTE",
        "UNTIL",
    ]);
    let weekdays = "(-?[0-9]{0,2}(MO|TU|SU)),(-?[1-5]?(WE|FR))".prop_map(|days| format!("BYDAY={days}"));
    let other = prop::sample::select(vec![
        "WKST=SU",
        "FREQ=DAILY",
        "UNTIL=99991231T235959Z",
        "BYEASTER=1",
        "X=1",
        "=",
    ]);
    prop_oneof![
        (named, numbers).prop_map(|(name, numbers)| {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            format!("{name}={}", numbers.join(","))
        }),
        weekdays,
        other.prop_map(str::to_owned),
    ]
}

proptest! {
    /// Rules at the ends of time, in all zones.
    #[test]
    fn whatever_a_rule_says_nothing_panics(
        start in prop::sample::select(vec!["00000101", "19000229", "20240229", "20261231", "99991231", "99991231T235959Z", "20261025T023000", "20111230T120000"]),
        length in prop::sample::select(vec!["DTEND:99991231", "DTEND:99991231T235959", "DURATION:P7000000D", "DURATION:PT99999999H", "DURATION:P0D", "X:1"]),
        tzid in prop::sample::select(vec!["", ";TZID=Pacific/Kiritimati", ";TZID=Pacific/Apia", ";TZID=Europe/Berlin"]),
        seen in prop::sample::select(vec!["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"]),
        freq in prop::sample::select(vec!["YEARLY", "MONTHLY", "WEEKLY", "DAILY"]),
        parts in prop::collection::vec(rule_part(), 0..4),
    ) {
        let rule = std::iter::once(format!("FREQ={freq}")).chain(parts).collect::<Vec<_>>().join(";");
        let text = event(&format!("DTSTART{tzid}:{start}\n{length}\nRRULE:{rule}\nEXDATE:{start}"));
        let _ = days_of_calendar(text.as_bytes(), &zone(seen), today());
    }

    #[test]
    fn whatever_the_file_says_nothing_panics(lines in prop::collection::vec("(BEGIN|END|DTSTART|DTEND|DURATION|RRULE|RDATE|EXDATE|UID| )[:;](VEVENT|VCALENDAR|[A-Z0-9=;:,+-]{0,20})", 0..20)) {
        let text = calendar(&format!("BEGIN:VEVENT\n{}\nEND:VEVENT", lines.join("\n")));
        let _ = days_of_calendar(text.as_bytes(), &zone("Europe/Berlin"), today());
    }

    /// Every minute of an event is on one of its days, and every day has such a minute.
    #[test]
    fn an_event_touches_the_days_of_its_minutes(
        start in 0_i64..3 * 366 * 24 * 60, minutes in 1_i64..6000,
        own in prop::sample::select(vec!["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "Australia/Lord_Howe"]),
        seen in prop::sample::select(vec!["UTC", "Europe/Berlin", "Pacific/Pago_Pago", "America/St_Johns"]),
    ) {
        let first: DateTime<Utc> = "2025-06-01T00:00:00Z".parse().unwrap();
        let begins = first + chrono::Duration::minutes(start);
        let (own, seen) = (zone(own), zone(seen));
        let on_own = |at: DateTime<Utc>| own.local(at).naive_local().format("%Y%m%dT%H%M%S").to_string();
        let wall = on_own(begins);
        // Of a time that the clocks repeat, a file means the first.
        prop_assume!((1..=180).all(|minutes| on_own(begins - chrono::Duration::minutes(minutes)) != wall));
        let text = event(&format!("DTSTART;TZID={}:{wall}\nDURATION:PT{minutes}M", own.name()));
        let expected: BTreeSet<NaiveDate> =
            (0..minutes).map(|minute| seen.local(begins + chrono::Duration::minutes(minute)).date_naive()).collect();
        prop_assert_eq!(days_of_calendar(text.as_bytes(), &seen, today()).unwrap(), expected);
    }

    /// A rule against a walk over all days.
    #[test]
    fn a_rule_names_the_days_that_a_walk_finds(
        offset in 0_u64..2000, n_days in 1_u64..5, interval in 1_i64..5, until in 0_u64..3000,
        weekdays in prop::sample::subsequence(vec!["MO", "TU", "WE", "TH", "FR", "SA", "SU"], 1..=7),
    ) {
        let start = day("2021-01-01") + ChronoDays::new(offset);
        let last = start + ChronoDays::new(until);
        let text = event(&format!(
            "DTSTART;VALUE=DATE:{}\nDURATION:P{n_days}D\nRRULE:FREQ=DAILY;INTERVAL={interval};BYDAY={};UNTIL={}",
            start.format("%Y%m%d"), weekdays.join(","), last.format("%Y%m%d")
        ));
        let names = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];
        let is_begin = |day: NaiveDate| {
            let weekday = names[day.weekday().num_days_from_monday() as usize];
            day == start || ((day - start).num_days() % interval == 0 && weekdays.contains(&weekday))
        };
        let begins = start.iter_days().take_while(|day| *day <= last).filter(|day| is_begin(*day));
        let touched = begins.flat_map(|begin| begin.iter_days().take(n_days as usize));
        let expected: BTreeSet<NaiveDate> =
            touched.filter(|touched| *touched >= day("2025-01-01")).collect();
        prop_assert_eq!(days_of_calendar(text.as_bytes(), &zone("Europe/Berlin"), today()).unwrap(), expected);
    }
}

#[test]
fn a_time_that_the_clocks_repeat_is_the_first() {
    let wall = NaiveDateTime::parse_from_str("20261025T023000", "%Y%m%dT%H%M%S").unwrap();
    let text = event(&format!("DTSTART;TZID=Europe/Berlin:{}", wall.format("%Y%m%dT%H%M%S")));
    assert_eq!(days_in(&text, "UTC"), ["2026-10-25"]);
}

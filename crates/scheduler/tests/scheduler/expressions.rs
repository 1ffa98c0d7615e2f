//! Cron expressions as they are written: what is refused and what to write instead, spelling and description.

use chrono::{DateTime, Utc};
use gathering_scheduler::{Cron, Zone};
use proptest::prelude::*;

fn parse(expression: &str) -> Result<Cron, String> {
    Cron::parse(expression, Zone::UTC, None)
}

fn refusal(expression: &str) -> String {
    match parse(expression) {
        Ok(cron) => format!("accepted as {cron}"),
        Err(message) => message,
    }
}

fn next(expression: &str) -> DateTime<Utc> {
    parse(expression).unwrap().next_after("2026-01-01T00:00:00Z".parse().unwrap()).unwrap()
}

/// What follows "write", and the begin of the message.
#[test]
fn a_refusal_says_what_to_write_instead() {
    for (expression, problem, instead) in [
        ("0 0 * * FRI-MON", "day of week `FRI-MON` ends before it begins", "FRI-SUN,MON"),
        ("0 0 * * sat-tue", "day of week `sat-tue` ends before it begins", "SAT-SUN,MON-TUE"),
        ("0 0 * * 5-1", "day of week `5-1` ends before it begins", "5-7,1"),
        ("0 0 * * 5-0", "day of week `5-0` ends before it begins", "5-7"),
        ("0 0 * * 7-1", "day of week `7-1` ends before it begins", "0-1"),
        ("0 0 * * FRI-TUE/2", "day of week `FRI-TUE/2` ends before it begins", "FRI,SUN,TUE"),
        ("0 0 * * 7-1/1", "day of week `7-1/1` ends before it begins", "0,1"),
        ("0 22-2 * * *", "hour `22-2` ends before it begins", "22-23,0-2"),
        ("0 22-2/2 * * *", "hour `22-2/2` ends before it begins", "22,0,2"),
        ("0 23-0 * * *", "hour `23-0` ends before it begins", "23,0"),
        ("0 0 25-5 * *", "day of month `25-5` ends before it begins", "25-31,1-5"),
        ("0 0 30-4/2 * *", "day of month `30-4/2` ends before it begins", "30,1,3"),
        ("0 0 1 NOV-FEB *", "month `NOV-FEB` ends before it begins", "NOV-DEC,JAN-FEB"),
        ("0 0 1 11-2/2 *", "month `11-2/2` ends before it begins", "11,1"),
        ("0 0 * * monday", "day of week `monday` has a name with more than three letters", "MON"),
        ("0 0 * * MON,TUES", "day of week `TUES` has a name with more than three letters", "TUE"),
        ("0 0 1 Sept *", "month `Sept` has a name with more than three letters", "SEP"),
        ("0 0 1 january-march *", "month `january-march` has a name with more than three letters", "JAN"),
        ("5/15 * * * *", "minute `5/15` has a step without a range", "5-59/15"),
        ("0 0 */5 MAR/3 *", "month `MAR/3` has a step without a range", "MAR-DEC/3"),
        ("0 0 * * MON/2", "day of week `MON/2` has a step without a range", "MON-SUN/2"),
        ("0 0 * * 0/2", "day of week `0/2` has a step without a range", "0-6/2"),
        ("/15 * * * *", "minute `/15` has no range", "*/15"),
        ("*/0 * * * *", "minute `*/0` has the step 0", "1 or more"),
        ("1-5/60 * * * *", "minute `1-5/60` matches only 1", "1"),
        ("0 0 1 */12 *", "month `*/12` matches only 1", "1"),
        ("0 0 * * */7", "day of week `*/7` matches only 0", "0"),
        ("0 0 * * MON-FRI/5", "day of week `MON-FRI/5` matches only MON", "MON"),
        ("*,5 * * * *", "minute `*` stands for every value", "it alone"),
        ("? 0 * * *", "minute `?` is only for the day of month and the day of week", "*"),
        ("0 0 WL * *", "day of month `WL` is not a day", "LW for the last weekday of the month"),
        (
            "0 0 L-2 * *",
            "day of month `L-2` counts from the last day, which is not supported",
            "a day, or L for the last one",
        ),
        ("0 0 L,LW * *", "day of month `L,LW` has both L and LW", "two schedules"),
        ("0 0 * * L", "day of week `L` must name a day", "FRIL for the last Friday of the month"),
        ("0 0 * * MON-FRI#2", "day of week `MON-FRI#2` counts several days", "each one, such as MON#2,TUE#2"),
        (
            "0 0 * * SUN-SUN",
            "day of week `SUN-SUN` begins and ends with the same day",
            "SUN, or * for every day",
        ),
        (
            "@weekdays",
            "has an unknown alias",
            "one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, \
          @hourly, or five fields",
        ),
        ("@daily MON", "has fields after @daily", "@daily alone"),
        ("FOO=1 0 0 * * *", "has `FOO=`", "only the fields of the expression"),
        (
            "TZ=Europe/Berlin 0 0 * * *",
            "has `TZ=`",
            "the time zone into the trigger's field timezone, as \"timezone\": \"Europe/Berlin\"",
        ),
        (
            "CRON_TZ=Asia/Tokyo @daily",
            "has `CRON_TZ=`",
            "the time zone into the trigger's field timezone, as \"timezone\": \"Asia/Tokyo\"",
        ),
    ] {
        assert_eq!(refusal(expression), format!("{problem}: write {instead}"), "{expression}");
    }
}

#[test]
fn steps_that_lead_nowhere_are_refused_with_the_interval_that_was_meant() {
    for (expression, problem) in [
        (
            "*/90 * * * *",
            "minute `*/90` matches only 0: write 0, or a trigger of type interval with 5400 seconds",
        ),
        (
            "0 */36 * * *",
            "hour `*/36` matches only 0: write 0, or a trigger of type interval with 129600 seconds",
        ),
        (
            "*/60 * * * * *",
            "second `*/60` matches only 0: write 0, or a trigger of type interval with 60 seconds",
        ),
        ("0 0 */50000 * *", "day of month `*/50000` matches only 1: write 1"),
        ("*/99999999 * * * *", "minute `*/99999999` has a step that is too large"),
    ] {
        assert_eq!(refusal(expression), problem);
    }
}

#[test]
fn names_stand_only_in_their_field() {
    let order = "fields are in the order minute, hour, day of month, month, day of week";
    for (expression, problem) in [
        ("0 0 * MON *", "month `MON` has the name of a day of week"),
        ("0 0 MON * *", "day of month `MON` has the name of a day of week"),
        ("FEB * * * *", "minute `FEB` has the name of a month"),
        ("0 TUE * * *", "hour `TUE` has the name of a day of week"),
        ("0 0 * * JAN", "day of week `JAN` has the name of a month"),
    ] {
        assert_eq!(refusal(expression), format!("{problem}: {order}"));
    }
}

#[test]
fn empty_items_are_refused_in_every_field() {
    for list in ["1,", ",1", "1,,2"] {
        for field in 0..6 {
            let mut fields = ["0", "0", "0", "1", "1", "1"];
            fields[field] = list;
            let message = refusal(&fields.join(" "));
            assert!(message.ends_with("has an empty item: name a value, or leave out a comma"), "{message}");
        }
    }
    assert!(refusal("0 0 13 * +").contains("has an empty item"));
}

#[test]
fn other_numbers_of_fields_are_refused_and_so_is_a_year_in_the_wrong_place() {
    let fields = "must have 5 (minute, hour, day of month, month, day of week), 6 with seconds in front, or 7 with a year at \
                  the end, too";
    for (expression, problem) in [
        ("", format!("has 0 fields, but {fields}")),
        ("* * * *", format!("has 4 fields, but {fields}")),
        ("0 0 9 * * 1 2030 *", format!("has 8 fields, but {fields}")),
        ("0 0 9 * * 1 30", "year `30` must be from 1970 to 2199".to_owned()),
        (
            "0 0 1 1 * 2030-2032",
            "has the year `2030-2032` in its last field, but six fields are second, minute, hour, day of month, month, day \
             of week: write a second in front, such as 0, so that the year is the seventh"
                .to_owned(),
        ),
        (
            "@every 5m",
            "has `@every`, which is not a time of day: use a trigger of type interval, such as \
             {\"type\": \"interval\", \"seconds\": 300}"
                .to_owned(),
        ),
        (
            "@REBOOT",
            "has `@reboot`, which names no time: start the run through the API when the machine starts".to_owned(),
        ),
    ] {
        assert_eq!(refusal(expression), problem);
    }
}

#[test]
fn other_text_is_refused_with_its_field() {
    let minute = "must be a number from 0 to 59, a range such as 1-5, a step such as */2, or a list of them";
    for text in ["**", "1-2-3", "-5", "5-", "*-5", "H", "1~5", "+5", "1#2", "L", "15W", "½", "１"] {
        assert_eq!(refusal(&format!("{text} * * * *")), format!("minute `{text}` {minute}"));
    }
    for (expression, problem) in [
        ("60 * * * *", "minute `60` must be from 0 to 59"),
        ("0 24 * * *", "hour `24` must be from 0 to 23"),
        ("0 0 0 * *", "day of month `0` must be from 1 to 31"),
        ("0 0 1 13 *", "month `13` must be from 1 to 12"),
        ("0 0 * * 8", "day of week `8` must be from 0 to 7"),
        ("99999999999 * * * *", "minute `99999999999` must be from 0 to 59"),
        ("*/x * * * *", "minute `*/x` must have one whole number after the /"),
        ("*/5/5 * * * *", "minute `*/5/5` must have one whole number after the /"),
        (
            "0 0 32W * *",
            "day of month `32W` must have one day before the W, such as 15W for the weekday nearest to \
          the 15th",
        ),
        (
            "0 0 * * FRI#6",
            "day of week `FRI#6` must have a number from 1 to 5 after the #, or be FRIL for the last one",
        ),
        (
            "0 0 * * MONTUE",
            "day of week `MONTUE` must be a number from 0 to 7 or a name such as MON, a range such as \
          1-5, a step such as */2, or a list of them",
        ),
    ] {
        assert_eq!(refusal(expression), problem);
    }
}

#[test]
fn the_canonical_spelling_means_the_same() {
    for (expression, canonical) in [
        (" 0\t9  * * mon-Fri ", "0 9 * * MON-FRI"),
        ("00 007 ? jan,MAR ?", "0 7 * JAN,MAR *"),
        ("*/05 0-30/010 * * * *", "*/5 0-30/10 * * * *"),
        ("0 0 l,15w * *", "0 0 L,15W * *"),
        ("0 0 lw * *", "0 0 LW * *"),
        ("0 0 * * fri#2,5#l,tuel", "0 0 * * FRI#2,5L,TUEL"),
        ("0 0 13 * +fri", "0 0 13 * +FRI"),
        ("0 0 * * sat-sun", "0 0 * * SAT-SUN"),
        ("0 0 * * 0-7", "0 0 * * 0-7"),
        ("5-5 * * * *", "5 * * * *"),
        ("@MIDNIGHT", "@midnight"),
        (" @Daily ", "@daily"),
    ] {
        let cron = parse(expression).unwrap();
        assert_eq!(cron.to_string(), canonical);
        assert_eq!(cron.expression(), expression.trim());
        assert_eq!(next(canonical), next(expression));
        assert_eq!(parse(canonical).unwrap().to_string(), canonical);
    }
}

#[test]
fn two_restricted_day_fields_are_pointed_out() {
    assert_eq!(
        parse("0 0 13 * fri").unwrap().ambiguity().unwrap(),
        "fires on each day that matches day of month 13 or day of week FRI: write +FRI for the days that match both"
    );
    for expression in ["0 0 1-31 * MON", "0 0 */2 * MON", "0 0 L * 1-5", "0 0 0 13 * FRI#2"] {
        assert!(parse(expression).unwrap().ambiguity().is_some(), "{expression}");
    }
    for expression in ["0 0 13 * *", "0 0 * * FRI", "0 0 13 * ?", "0 0 13 * +FRI", "0 * * * * *", "@weekly"] {
        assert_eq!(parse(expression).unwrap().ambiguity(), None, "{expression}");
    }
}

#[test]
fn descriptions_say_when_it_fires() {
    for (expression, words) in [
        ("0 0 L * *", "At 00:00, on the last day of the month (UTC)"),
        ("0 0 LW * *", "At 00:00, on the last weekday of the month (UTC)"),
        ("*/20 * * * *", "Every 20 minutes (UTC)"),
        ("*/25 * * * *", "At minute 0, 25, and 50 past every hour (UTC)"),
        ("0-30/10 * * * *", "At minute 0, 10, 20, and 30 past every hour (UTC)"),
        ("0 0 13 * FRI", "At 00:00, on day 13 or Friday (UTC)"),
        ("0 0 13 * +FRI", "At 00:00, on day 13 (if it is also Friday) (UTC)"),
        ("@MIDNIGHT", "At 00:00 (UTC)"),
    ] {
        assert_eq!(parse(expression).unwrap().describe(), words, "{expression}");
    }
}

/// A field of items that are often valid.
fn field(items: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(items), 1..3).prop_map(|items| items.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_accepted_fires_and_keeps_its_meaning_in_canonical_spelling(
        minute in field(&["*", "0", "*/7", "5-50/9", "59", "", "05"]),
        hour in field(&["*", "0", "*/5", "22-23", "3-9/2"]),
        day in field(&["*", "?", "1", "31", "L", "LW", "15W", "31W", "29-30", "*/2"]),
        month in field(&["*", "2", "feb", "JAN-MAR", "4,6", "*/5", "MON"]),
        weekday in field(&["*", "?", "mon", "0", "7", "SAT-SUN", "5L", "FRI#5", "5-7", "*/3", "L"]),
        plus in prop::sample::select(vec!["", "", "+"]),
    ) {
        let expression = format!("{minute} {hour} {day} {month} {plus}{weekday}");
        if let Ok(cron) = parse(&expression) {
            let start = "2026-01-01T00:00:00Z".parse().unwrap();
            let due = cron.next_after(start);
            prop_assert!(due.is_some(), "{} never fires", expression);
            let canonical = parse(&cron.to_string()).unwrap();
            prop_assert_eq!(canonical.to_string(), cron.to_string());
            prop_assert_eq!(canonical.next_after(start), due, "{}", cron);
            prop_assert!(!cron.describe().is_empty());
        }
    }
}

#[test]
fn a_year_is_the_seventh_field() {
    let next = |expression: &str, after: &str| {
        let cron = Cron::parse(expression, crate::zone("Europe/Berlin"), None).unwrap();
        let after = after.parse().unwrap();
        let times = std::iter::successors(cron.next_after(after), |at| cron.next_after(*at));
        times.take(3).map(|at| at.to_rfc3339()).collect::<Vec<_>>()
    };
    assert_eq!(next("0 0 12 24 12 * 2030", "2026-01-01T00:00:00Z"), ["2030-12-24T11:00:00+00:00"]);
    assert_eq!(
        next("0 0 0 29 2 ? 2026-2040/2", "2026-01-01T00:00:00Z"),
        ["2028-02-28T23:00:00+00:00", "2032-02-28T23:00:00+00:00", "2036-02-28T23:00:00+00:00"]
    );
    assert_eq!(next("0 30 8 * * MON-FRI 2026,2027", "2028-01-01T00:00:00Z"), Vec::<String>::new());
    let cron = Cron::parse("0 0 9 1 jan * 2030-2032", crate::zone("Europe/Berlin"), None).unwrap();
    assert_eq!(cron.to_string(), "0 0 9 1 JAN * 2030-2032");
    assert!(cron.describe().contains("2030"), "{}", cron.describe());
    assert_eq!(
        refusal("0 0 0 29 2 * 2030"),
        "matches no date that ever occurs: write L for the last day of a month"
    );
}

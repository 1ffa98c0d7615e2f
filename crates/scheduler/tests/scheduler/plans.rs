//! What becomes of each due time: the policies, the bounds, and what is never lost.

use std::time::Instant;

use chrono::{DateTime, Duration, Utc};
use gathering_domain::Pointer;
use gathering_scheduler::{
    CatchUp, Days, FireOutcome, MAX_CAUGHT_UP, Overlap, Plan, Progress, SkipReason, Timetable, Trigger, plan,
    plan_resumption,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn timetable(trigger: Value) -> Timetable {
    Timetable::new(Trigger::parse(&trigger, &Pointer::root()).unwrap())
}

fn minutely() -> Timetable {
    timetable(json!({ "type": "cron", "expression": "* * * * *" }))
}

fn since(passed: &str) -> Progress {
    Progress { seed: 7, passed: at(passed), n_fires: 0, n_open: 0, queued: None }
}

/// The entries as `12:01 started`, `12:02 skipped overlap`.
fn words(plan: &Plan) -> Vec<String> {
    let words = |entry: &gathering_scheduler::DueEntry| {
        let time = entry.due.at.format("%H:%M");
        match entry.outcome.reason() {
            Some(reason) => format!("{time} skipped {reason}"),
            None => format!("{time} {}", entry.outcome.as_str()),
        }
    };
    plan.entries.iter().map(words).collect()
}

#[test]
fn a_due_time_fires_on_time_and_the_next_one_is_set() {
    let plan = plan(&minutely(), &since("2026-01-01T12:00:00Z"), at("2026-01-01T12:01:00Z"));
    assert_eq!(words(&plan), ["12:01 started"]);
    assert_eq!(plan.next.unwrap().due_at, at("2026-01-01T12:02:00Z"));
    assert_eq!((plan.n_fires, plan.passed), (1, at("2026-01-01T12:01:00Z")));
}

#[test]
fn nothing_happens_before_it_is_due() {
    let progress = since("2026-01-01T12:00:00Z");
    let plan = plan(&minutely(), &progress, at("2026-01-01T12:00:59Z"));
    assert!(plan.entries.is_empty());
    assert_eq!(plan.passed, progress.passed);
}

#[test]
fn missed_due_times_are_caught_up_as_the_policy_says() {
    let now = at("2026-01-01T12:04:30Z");
    for (catch_up, expected) in [
        (
            CatchUp::Skip,
            vec!["12:01 skipped missed", "12:02 skipped missed", "12:03 skipped missed", "12:04 started"],
        ),
        (
            CatchUp::Latest,
            vec!["12:01 skipped missed", "12:02 skipped missed", "12:03 skipped missed", "12:04 started"],
        ),
        (CatchUp::All, vec!["12:01 caught_up", "12:02 caught_up", "12:03 caught_up", "12:04 started"]),
    ] {
        let timetable = Timetable { catch_up, overlap: Overlap::Allow, ..minutely() };
        assert_eq!(words(&plan(&timetable, &since("2026-01-01T12:00:00Z"), now)), expected, "{catch_up}");
    }
}

#[test]
fn the_latest_missed_due_time_fires_late_unless_all_are_skipped() {
    let hourly = timetable(json!({ "type": "cron", "expression": "0 * * * *" }));
    for (catch_up, expected) in [
        (CatchUp::Skip, vec!["11:00 skipped missed", "12:00 skipped missed"]),
        (CatchUp::Latest, vec!["11:00 skipped missed", "12:00 caught_up"]),
        (CatchUp::All, vec!["11:00 caught_up", "12:00 caught_up"]),
    ] {
        let timetable = Timetable { catch_up, overlap: Overlap::Allow, ..hourly.clone() };
        let plan = plan(&timetable, &since("2026-01-01T10:30:00Z"), at("2026-01-01T12:30:00Z"));
        assert_eq!(words(&plan), expected, "{catch_up}");
        assert_eq!(plan.next.unwrap().due_at, at("2026-01-01T13:00:00Z"));
    }
}

#[test]
fn overlaps_are_handled_as_the_policy_says() {
    let open = Progress { n_open: 1, ..since("2026-01-01T12:00:00Z") };
    for (overlap, expected, queued, cancels) in [
        (Overlap::Allow, "12:01 started", None, false),
        (Overlap::Skip, "12:01 skipped overlap", None, false),
        (Overlap::QueueOne, "12:01 queued", Some(at("2026-01-01T12:01:00Z").into()), false),
        (Overlap::CancelPrevious, "12:01 queued", Some(at("2026-01-01T12:01:00Z").into()), true),
    ] {
        let timetable = Timetable { overlap, ..minutely() };
        let plan = plan(&timetable, &open, at("2026-01-01T12:01:00Z"));
        assert_eq!(words(&plan), [expected], "{overlap}");
        assert_eq!((plan.queued, plan.cancels_open), (queued, cancels), "{overlap}");
    }
}

#[test]
fn the_queued_due_time_fires_when_the_earlier_run_has_ended() {
    let timetable = Timetable { overlap: Overlap::QueueOne, ..minutely() };
    let queued = Some(at("2026-01-01T12:01:00Z").into());
    let waiting = Progress { n_open: 1, queued, ..since("2026-01-01T12:01:00Z") };
    let next = plan(&timetable, &waiting, at("2026-01-01T12:02:00Z"));
    assert_eq!(words(&next), ["12:02 skipped overlap"], "one waits already");
    assert_eq!(next.queued, queued);
    let ended = Progress { n_open: 0, ..waiting };
    let next = plan(&timetable, &ended, at("2026-01-01T12:01:30Z"));
    assert_eq!(words(&next), ["12:01 started"]);
    assert_eq!(next.queued, None);
}

#[test]
fn of_two_that_cancel_their_predecessor_the_later_one_waits() {
    let timetable = Timetable { overlap: Overlap::CancelPrevious, ..minutely() };
    let queued = Some(at("2026-01-01T12:01:00Z").into());
    let waiting = Progress { n_open: 1, queued, ..since("2026-01-01T12:01:00Z") };
    let plan = plan(&timetable, &waiting, at("2026-01-01T12:02:00Z"));
    assert_eq!(words(&plan), ["12:01 skipped overlap", "12:02 queued"]);
    assert_eq!(plan.queued, Some(at("2026-01-01T12:02:00Z").into()));
}

#[test]
fn a_time_that_the_clocks_skip_is_in_the_ledger() {
    let trigger =
        json!({ "type": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin", "dst": "skip" });
    let plan = plan(&timetable(trigger), &since("2026-03-28T12:00:00Z"), at("2026-03-30T00:30:00Z"));
    assert_eq!(words(&plan), ["01:30 skipped dst_gap", "00:30 started"]);
}

#[test]
fn a_day_that_is_excepted_is_in_the_ledger_and_the_next_due_time_is_after_it() {
    let days = json!({ "except": ["2026-12-25", "2026-12-26"] });
    let days = Days::parse(days.as_object().unwrap(), &Pointer::root()).unwrap();
    let daily = json!({ "type": "cron", "expression": "0 0 * * *", "timezone": "Europe/Berlin" });
    let timetable = Timetable { days: days.clone(), ..timetable(daily) };
    // In Berlin, 23:00 in UTC is the next day.
    let planned = plan(&timetable, &since("2026-12-23T12:00:00Z"), at("2026-12-23T23:00:00Z"));
    assert_eq!(words(&planned), ["23:00 started"]);
    assert_eq!(planned.next.unwrap().due_at, at("2026-12-26T23:00:00Z"));
    let planned = plan(&timetable, &since("2026-12-23T23:00:00Z"), at("2026-12-26T23:00:00Z"));
    assert_eq!(words(&planned), ["23:00 skipped excluded", "23:00 skipped excluded", "23:00 started"]);

    let hours = Timetable {
        days,
        ..Timetable::new(
            Trigger::parse(&json!({ "type": "interval", "seconds": 25_200 }), &Pointer::root()).unwrap(),
        )
    };
    assert_eq!(hours.next_due(7, at("2026-12-24T22:30:00Z")).unwrap().due_at, at("2026-12-27T06:30:00Z"));
}

#[test]
fn a_schedule_fires_on_its_only_days_and_ends_with_them() {
    let days = json!({ "only": ["2026-12-24", "2027-12-24"] });
    let days = Days::parse(days.as_object().unwrap(), &Pointer::root()).unwrap();
    let timetable = Timetable { days, ..timetable(json!({ "type": "cron", "expression": "0 9 * * *" })) };
    let due = |after| timetable.next_due(7, at(after)).map(|next| next.due_at);
    assert_eq!(due("2026-01-01T00:00:00Z"), Some(at("2026-12-24T09:00:00Z")));
    assert_eq!(due("2026-12-24T09:00:00Z"), Some(at("2027-12-24T09:00:00Z")));
    assert_eq!(due("2027-12-24T09:00:00Z"), None);
    let places = |wrong: Value| {
        let problems = Days::parse(wrong.as_object().unwrap(), &Pointer::root()).unwrap_err();
        problems.iter().map(|problem| problem.pointer.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(places(json!({ "except": ["2026-02-30", 1] })), ["/except/0", "/except/1"]);
    assert_eq!(places(json!({ "only": [] })), ["/only"]);
}

#[test]
fn without_any_day_no_due_time_is_searched() {
    let days = Days::of_stored(json!({ "only": [] }).as_object().unwrap(), &Pointer::root()).unwrap();
    let begun = Instant::now();
    assert_eq!(Timetable { days, ..minutely() }.next_due(7, at("2026-01-01T00:00:00Z")), None);
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn no_more_than_the_bound_is_caught_up_and_the_rest_is_one_entry() {
    let day = since("2026-01-01T00:00:00Z");
    let now = at("2026-01-02T00:00:30Z");
    let all = Timetable { catch_up: CatchUp::All, overlap: Overlap::Allow, ..minutely() };
    let planned = plan(&all, &day, now);
    assert_eq!(planned.entries.len(), MAX_CAUGHT_UP + 1);
    let last = planned.entries.last().unwrap();
    assert_eq!(last.outcome, FireOutcome::Skipped(SkipReason::Bound));
    assert_eq!((last.due.at, last.until), (at("2026-01-01T16:41:00Z"), Some(at("2026-01-02T00:00:00Z"))));

    let planned = plan(&minutely(), &day, now);
    let [.., bound, latest] = &planned.entries[..] else { panic!("{planned:?}") };
    assert_eq!(bound.outcome, FireOutcome::Skipped(SkipReason::Bound));
    assert_eq!((latest.due.at, latest.outcome), (at("2026-01-02T00:00:00Z"), FireOutcome::Started));
    assert_eq!(planned.next.unwrap().due_at, at("2026-01-02T00:01:00Z"));
}

#[test]
fn a_year_of_seconds_is_planned_in_bounded_time() {
    let every_second = timetable(json!({ "type": "cron", "expression": "* * * * * *" }));
    let planned = plan(&every_second, &since("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
    assert_eq!(planned.passed, at("2026-01-01T00:00:00Z"));
    assert_eq!(planned.entries.len(), MAX_CAUGHT_UP + 2);
}

#[test]
fn a_pause_is_in_the_ledger_and_nothing_of_it_fires() {
    let plan = plan_resumption(&minutely(), &since("2026-01-01T12:00:00Z"), at("2026-01-01T12:02:30Z"));
    assert_eq!(words(&plan), ["12:01 skipped paused", "12:02 skipped paused"]);
    assert_eq!(plan.next.unwrap().due_at, at("2026-01-01T12:03:00Z"));
}

#[test]
fn the_last_fire_is_the_last() {
    let timetable = Timetable { max_fires: Some(2), ..minutely() };
    let progress = Progress { n_fires: 1, ..since("2026-01-01T12:00:00Z") };
    let planned = plan(&timetable, &progress, at("2026-01-01T12:01:00Z"));
    assert_eq!((words(&planned), planned.next), (vec!["12:01 started".to_owned()], None));

    let timetable = Timetable { end_at: Some(at("2026-01-01T12:01:00Z")), ..minutely() };
    let planned = plan(&timetable, &since("2026-01-01T12:00:00Z"), at("2026-01-01T12:01:00Z"));
    assert_eq!((words(&planned), planned.next), (vec!["12:01 started".to_owned()], None));
}

#[test]
fn a_start_is_the_first_due_time_of_an_interval_and_sets_its_rhythm() {
    let hourly = Timetable {
        start_at: Some(at("2026-01-01T08:00:00Z")),
        ..timetable(json!({ "type": "interval", "seconds": 3600 }))
    };
    for (now, first) in [
        ("2025-12-31T00:00:00Z", "2026-01-01T08:00:00Z"),
        ("2026-01-01T08:00:00Z", "2026-01-01T09:00:00Z"),
        ("2026-01-01T10:20:00Z", "2026-01-01T11:00:00Z"),
    ] {
        let begin = hourly.begin(at(now));
        assert_eq!(hourly.next_due(7, begin).unwrap().due_at, at(first), "{now}");
    }
    let daily = Timetable {
        start_at: Some(at("2026-01-01T08:00:00Z")),
        ..timetable(json!({ "type": "cron", "expression": "0 8 * * *" }))
    };
    let begin = daily.begin(at("2025-12-30T00:00:00Z"));
    assert_eq!(daily.next_due(7, begin).unwrap().due_at, at("2026-01-01T08:00:00Z"));
}

#[test]
fn a_jitter_delays_a_fire_and_is_always_the_same() {
    let timetable = Timetable { jitter_seconds: 30, ..minutely() };
    let due_at = at("2026-01-01T12:01:00Z");
    let fires: Vec<_> = (0..50).map(|seed| timetable.fire_of(seed, due_at).fire_at).collect();
    assert_eq!(fires, (0..50).map(|seed| timetable.fire_of(seed, due_at).fire_at).collect::<Vec<_>>());
    assert!(fires.iter().all(|at| *at >= due_at && *at <= due_at + Duration::seconds(30)));
    assert!(fires.iter().collect::<std::collections::HashSet<_>>().len() > 40, "schedules differ");

    let fire_at = timetable.fire_of(7, due_at).fire_at;
    let early = plan(&timetable, &since("2026-01-01T12:00:00Z"), fire_at - Duration::milliseconds(1));
    assert!(early.entries.is_empty());
    let fired = plan(&timetable, &since("2026-01-01T12:00:00Z"), fire_at);
    assert_eq!(words(&fired), ["12:01 started"]);
}

proptest! {
    // The slow reference walks through weeks of minutes.
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whenever the loop looks, and however long it did not: after each look, every due time until then has exactly one
    /// entry, or is within the one entry that stands for many.
    #[test]
    fn i6_every_due_time_is_entered_once_whenever_the_loop_looks(
        looks in prop::collection::vec(1_i64..90_000, 1..7),
        catch_up in prop::sample::select(CatchUp::ALL),
        overlap in prop::sample::select(Overlap::ALL),
        jitter_seconds in prop::sample::select(&[0, 0, 45, 600][..]),
        expression in prop::sample::select(&["* * * * *", "*/7 * * * *", "0 3 * * *", "30 2,3 * * *"][..]),
        ends in prop::collection::vec(any::<bool>(), 7),
    ) {
        let trigger = json!({ "type": "cron", "expression": expression, "timezone": "Europe/Berlin", "dst": "skip" });
        let timetable = Timetable { catch_up, overlap, jitter_seconds, ..timetable(trigger) };
        let start = at("2026-03-27T00:00:00Z");
        let mut progress = Progress { seed: 7, passed: start, n_fires: 0, n_open: 0, queued: None };
        let (mut now, mut entered, mut ranges) = (start, std::collections::BTreeMap::new(), Vec::new());
        for (seconds, has_ended) in looks.iter().zip(&ends) {
            now += Duration::seconds(*seconds);
            if *has_ended {
                progress.n_open = 0;
            }
            loop {
                let plan = plan(&timetable, &progress, now);
                for entry in &plan.entries {
                    match entry.until {
                        Some(until) => ranges.push((entry.due.at, until)),
                        None => {
                            let earlier = entered.insert(entry.due.at, entry.outcome);
                            prop_assert!(matches!(earlier, None | Some(FireOutcome::Queued)), "{:?} twice", entry.due.at);
                        }
                    }
                }
                progress.n_open += plan.entries.iter().filter(|entry| entry.outcome.starts()).count() as u32;
                progress = Progress { passed: plan.passed, n_fires: plan.n_fires, queued: plan.queued, ..progress };
                // What is left that is due is the next round's.
                if plan.next.is_none_or(|next| next.fire_at > now) {
                    break;
                }
                prop_assert!(!plan.entries.is_empty(), "a round that does nothing");
            }
        }
        let all = std::iter::successors(timetable.next_occurrence(start), |o| timetable.next_occurrence(o.at()));
        for occurrence in all.take_while(|occurrence| occurrence.at() <= progress.passed) {
            let due_at = occurrence.at();
            let within = ranges.iter().any(|(from, until)| (*from..=*until).contains(&due_at));
            prop_assert!(within != entered.contains_key(&due_at), "{due_at} has no entry, or two");
        }
    }

    /// The search for the last due time finds what looking at each of them finds.
    #[test]
    fn the_last_due_time_is_found_by_halving(
        seconds in 1_i64..700_000,
        expression in prop::sample::select(&["*/5 * * * *", "0 0 1 * *", "0 0-3 * * MON", "* * 3 * *", "30 2 * * *"][..]),
    ) {
        let timetable =
            timetable(json!({ "type": "cron", "expression": expression, "timezone": "Europe/Berlin", "dst": "both" }));
        let after = at("2026-03-01T00:00:00Z");
        let until = after + Duration::seconds(seconds);
        let all = std::iter::successors(timetable.trigger.next_after(after), |at| timetable.trigger.next_after(*at));
        let last = all.take_while(|at| *at <= until).last();
        prop_assert_eq!(timetable.last_until(after, until), last);
    }
}

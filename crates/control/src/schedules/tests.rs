//! The rules of schedules that no store can bring about at will.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use gathering_domain::{Digest, PipelineId, Pointer, ProjectId, RunId, RunState, ScheduleId, UserId};
use gathering_scheduler::{CatchUp, DayList, Days, Next, Timetable, Trigger, Zone, ZoneData};
use serde_json::{Map, json};

use super::*;
use crate::RunRules;
use crate::events::LoggedEvent;
use crate::pipelines::{Pipeline, PipelineHead};
use crate::runs::PipelineToStart;
use crate::schedules::calendars::{Reading, renewed};
use crate::schedules::change::changed;
use crate::schedules::define::ScheduleSpec;
use crate::schedules::event::react;
use crate::schedules::fire::fire;
use crate::schedules::manual::backfilled;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn hourly() -> Timetable {
    let trigger = json!({ "type": "cron", "expression": "0 * * * *" });
    Timetable {
        catch_up: CatchUp::All,
        ..Timetable::new(Trigger::parse(&trigger, &Pointer::root()).unwrap())
    }
}

/// An action of its own, which is always startable.
fn node() -> ScheduledAction {
    ScheduledAction::Node { written: json!({ "action": "call_api" }), graph: Digest::of(b"graph") }
}

fn locked(timetable: Timetable, action: ScheduledAction) -> LockedSchedule {
    let spec = ScheduleSpec {
        name: "s".to_owned(),
        timetable,
        calendars: Calendars::default(),
        action,
        on_failure: OnFailure::default(),
        enabled: true,
    };
    let new = NewSchedule { id: ScheduleId::new(), spec, once: None };
    LockedSchedule {
        schedule: new.of(ProjectId::new(), at("2026-01-01T08:30:00Z"), 0).unwrap(),
        open: Vec::new(),
        pipeline: None,
        action_timeout: None,
        queued_cause: None,
        causes: Vec::new(),
        log_end: 0,
        fired: BTreeSet::new(),
        ranges: Vec::new(),
    }
}

fn gone() -> ScheduledAction {
    ScheduledAction::Pipeline { pipeline: PipelineId::new(), version: None, input: json!({}) }
}

fn spec_of(schedule: &Schedule) -> ScheduleSpec {
    ScheduleSpec {
        name: "another".to_owned(),
        timetable: schedule.timetable.clone(),
        calendars: schedule.calendars.clone(),
        action: schedule.action.clone(),
        on_failure: schedule.on_failure.clone(),
        enabled: schedule.pause.is_none(),
    }
}

fn words(step: &ScheduleStep) -> Vec<String> {
    let words = |entry: &LedgerEntry| {
        let (time, outcome) = (entry.entry.due.at.format("%H"), entry.entry.outcome);
        let until = entry.entry.until.map(|until| until.format(" until %H").to_string());
        format!(
            "{time} {}{}{}",
            outcome.as_str(),
            outcome.reason().map(|reason| format!(" {reason}")).unwrap_or_default(),
            until.unwrap_or_default()
        )
    };
    step.entries.iter().map(words).collect()
}

#[test]
fn a_change_does_not_undo_a_pause_that_came_in_between() {
    let before = locked(hourly(), node());
    let (seen, spec) = (SubmittedSchedule::of(&before.schedule), spec_of(&before.schedule));
    let mut paused = before.clone();
    paused.schedule.pause = Some(PauseReason::Failures);
    let now = at("2026-01-01T08:45:00Z");
    let refused = changed(paused.clone(), &seen, &spec, now);
    assert!(matches!(refused, Err(ControlError::Outdated)), "{refused:?}");
    let again =
        changed(paused.clone(), &SubmittedSchedule::of(&paused.schedule), &spec_of(&paused.schedule), now);
    assert_eq!(again.unwrap().schedule.pause, Some(PauseReason::Failures));
    assert_eq!(changed(before, &seen, &spec, now).unwrap().schedule.name, "another");
}

#[test]
fn a_change_to_fewer_fires_than_there_were_is_refused() {
    let mut before = locked(hourly(), node());
    before.schedule.n_fires = 3;
    let seen = SubmittedSchedule::of(&before.schedule);
    let mut spec = spec_of(&before.schedule);
    spec.timetable.max_fires = Some(3);
    let refused = changed(before, &seen, &spec, at("2026-01-01T08:45:00Z"));
    let Err(ControlError::Invalid(problems)) = refused else { panic!("{refused:?}") };
    assert_eq!(problems.to_string(), "/max_fires: must be more than 3, as often as the schedule has fired");
}

#[test]
fn what_cannot_be_started_is_entered_so_and_counts_as_no_fire() {
    let timetable = Timetable { max_fires: Some(1), ..hourly() };
    let step = fire(&locked(timetable, gone()), at("2026-01-01T09:00:10Z"));
    assert_eq!(words(&step), ["09 skipped not_startable"]);
    assert_eq!(step.schedule.n_fires, 0);
    assert_eq!(step.schedule.next.unwrap().due_at, at("2026-01-01T10:00:00Z"), "its only fire is to come");
    // The first of several is in no other's way.
    let step = fire(&locked(hourly(), gone()), at("2026-01-01T11:00:10Z"));
    assert_eq!(
        words(&step),
        ["09 skipped not_startable", "10 skipped not_startable", "11 skipped not_startable"]
    );
}

#[test]
fn a_due_time_by_old_rules_of_its_zone_is_entered_when_they_have_changed() {
    let mut old = locked(hourly(), node());
    let wrong = at("2026-01-01T09:30:00Z");
    old.schedule.next = Some(Next { due_at: wrong, fire_at: wrong });
    old.schedule.zone_data = "2025b".to_owned();
    let step = fire(&old, at("2026-01-01T08:40:00Z"));
    assert_eq!(words(&step), ["09 skipped zone_data"]);
    assert_eq!(step.schedule.next.unwrap().due_at, at("2026-01-01T09:00:00Z"));
    let mut right = old.clone();
    right.schedule.next = step.schedule.next;
    assert!(fire(&right, at("2026-01-01T08:40:00Z")).entries.is_empty(), "the same time by both");
}

#[test]
fn a_backfill_leaves_out_what_has_fired_and_days_that_are_excepted() {
    let days = json!({ "except": ["2026-01-02"] });
    let days = Days::parse(days.as_object().unwrap(), &Pointer::root()).unwrap();
    let mut locked = locked(Timetable { days, ..hourly() }, node());
    locked.fired = [at("2026-01-01T22:00:00Z")].into();
    let range = BackfillRange { from: at("2026-01-01T21:00:00Z"), to: at("2026-01-03T00:00:00Z") };
    let step = backfilled(&locked, range, at("2026-02-01T00:00:00Z"), UserId::new()).unwrap();
    assert_eq!(words(&step), ["21 caught_up", "23 caught_up", "00 caught_up"]);
}

#[test]
fn a_backfill_of_the_first_of_many_leaves_an_entry_for_the_rest() {
    let mut locked = locked(hourly(), node());
    locked.ranges = vec![(at("2026-01-01T10:00:00Z"), at("2026-01-01T20:00:00Z"))];
    let range = BackfillRange { from: at("2026-01-01T09:00:00Z"), to: at("2026-01-01T11:00:00Z") };
    let step = backfilled(&locked, range, at("2026-02-01T00:00:00Z"), UserId::new()).unwrap();
    let mut all = words(&step);
    all.sort();
    assert_eq!(all, ["09 caught_up", "10 caught_up", "11 caught_up", "12 skipped bound until 20"]);
}

#[test]
fn failures_in_a_row_pause_a_schedule_and_a_success_ends_the_row() {
    let mut failing = locked(hourly(), node());
    failing.schedule.on_failure.pause_after = Some(2);
    let ends = |states: &[RunState]| {
        let mut ended = failing.clone();
        ended.open = states
            .iter()
            .map(|state| OpenFire {
                due: at("2026-01-01T08:00:00Z").into(),
                run: RunId::new(),
                state: Some(*state),
            })
            .collect();
        let schedule = fire(&ended, at("2026-01-01T08:40:00Z")).schedule;
        (schedule.n_failures, schedule.pause)
    };
    assert_eq!(ends(&[RunState::Failed, RunState::TimedOut]), (2, Some(PauseReason::Failures)));
    assert_eq!(ends(&[RunState::Failed, RunState::Succeeded, RunState::Failed]), (1, None));
    assert_eq!(ends(&[RunState::Failed, RunState::Cancelled]), (1, None));
}

#[test]
fn what_was_due_before_a_calendar_changed_counts_by_the_days_before() {
    let day = |text: &str| text.parse::<chrono::NaiveDate>().unwrap();
    let first_two = BTreeSet::from([day("2026-01-01"), day("2026-01-02")]);
    let days = Days::default().with(DayList::Except, first_two);
    let mut locked = locked(Timetable { days, ..hourly() }, node());
    locked.schedule.calendars.files.insert(DayList::Except, "h.ics".to_owned());
    assert_eq!(locked.schedule.next.unwrap().due_at, at("2026-01-03T00:00:00Z"));
    let now = at("2026-01-01T10:30:00Z");
    let read = |days: Result<BTreeSet<chrono::NaiveDate>, String>| Reading {
        files: locked.schedule.calendars.files.clone(),
        zone: Zone::UTC,
        lists: BTreeMap::from([(DayList::Except, days)]),
    };
    let of_nothing = read(Ok(BTreeSet::new()));
    for other in [
        Reading {
            files: BTreeMap::from([(DayList::Except, "i.ics".to_owned())]),
            ..read(Ok(BTreeSet::new()))
        },
        Reading { zone: ZoneData::current().zone("Asia/Tokyo").unwrap(), ..read(Ok(BTreeSet::new())) },
    ] {
        let step = renewed(&locked, &other, now);
        assert_eq!(step.schedule, locked.schedule, "it was changed while the files were read");
    }

    let step = renewed(&locked, &of_nothing, now);
    assert_eq!(words(&step), ["09 skipped excluded", "10 skipped excluded"]);
    assert_eq!(step.schedule.next.unwrap().due_at, at("2026-01-01T11:00:00Z"));
    assert_eq!((step.schedule.passed_at, step.schedule.n_fires), (at("2026-01-01T10:00:00Z"), 0));
    assert_eq!(step.schedule.calendars.read_at, Some(now));
    let unreadable = read(Err("gone".to_owned()));
    let step = renewed(&locked, &unreadable, now);
    assert_eq!((words(&step).len(), step.schedule.next), (0, locked.schedule.next));
    assert_eq!(step.schedule.calendars.problem.as_deref(), Some("/except/file: gone"));

    locked.schedule.pause = Some(PauseReason::Request);
    let step = renewed(&locked, &of_nothing, now);
    assert_eq!((words(&step).len(), step.schedule.look_at()), (0, None), "it is entered at the resumption");
    locked.schedule.pause = None;
    (locked.schedule.timetable.max_fires, locked.schedule.n_fires) = (Some(3), 3);
    let step = renewed(&locked, &of_nothing, now);
    assert_eq!(step.schedule.next, None, "it has fired as often as it should");
}

fn order(seq: i64, project: ProjectId, caused_by: &[ScheduleId]) -> Cause {
    let event = LoggedEvent {
        seq,
        project: Some(project),
        event_type: "run.succeeded".to_owned(),
        id: None,
        key: None,
        source: None,
        subject: None,
        attributes: Map::new(),
        data: json!({}),
        at: at("2026-01-01T08:45:00Z"),
    };
    Cause { event, caused_by: caused_by.to_vec() }
}

#[test]
fn a_schedule_does_not_fire_for_what_it_caused_itself_and_a_chain_ends() {
    let trigger = json!({ "type": "event", "event_type": "run.*" });
    let timetable = Timetable::new(Trigger::parse(&trigger, &Pointer::root()).unwrap());
    let mut waiting = locked(timetable, node());
    let (own, project) = (waiting.schedule.id, waiting.schedule.project);
    let others: Vec<ScheduleId> = (0..8).map(|_| ScheduleId::new()).collect();
    waiting.causes = vec![
        order(1, project, &[]),
        order(2, project, &[own]),
        order(3, project, &[own, others[0]]),
        order(4, project, &others[..7]),
        order(5, project, &others),
        order(6, ProjectId::new(), &[]),
    ];
    let step = react(&waiting, at("2026-01-01T08:45:00Z"));
    let mut outcomes: Vec<_> =
        step.entries.iter().map(|new| (new.entry.due.event, new.entry.outcome)).collect();
    outcomes.sort_by_key(|(event, _)| *event);
    let looped = FireOutcome::Skipped(SkipReason::Loop);
    assert_eq!(
        outcomes,
        [
            (Some(1), FireOutcome::Started),
            (Some(2), looped),
            (Some(3), looped),
            (Some(4), FireOutcome::Started),
            (Some(5), looped),
        ]
    );
    let of_chain = step.entries.iter().find(|new| new.entry.due.event == Some(4)).unwrap();
    let caused_by = of_chain.run.as_ref().unwrap().trigger["caused_by"].as_array().unwrap().clone();
    assert_eq!((caused_by.len(), caused_by.last()), (8, Some(&json!(own))));
}

#[test]
fn what_was_missed_is_told_once_and_of_events_nothing() {
    let timetable = Timetable { catch_up: CatchUp::Skip, ..hourly() };
    let step = fire(&locked(timetable, node()), at("2026-01-01T11:30:00Z"));
    let (first, last) = (at("2026-01-01T09:00:00Z"), at("2026-01-01T11:00:00Z"));
    assert_eq!(step.news, [ScheduleNews::Skipped { reason: SkipReason::Missed, first, last }]);
    let overlapping = Timetable { catch_up: CatchUp::All, ..hourly() };
    let step = fire(&locked(overlapping, node()), at("2026-01-01T10:00:30Z"));
    assert_eq!(
        (words(&step).len(), step.news.len()),
        (2, 0),
        "that an earlier run goes on is as it should be"
    );
    let trigger = json!({ "type": "event", "event_type": "schedule.*" });
    let mut waiting = locked(Timetable::new(Trigger::parse(&trigger, &Pointer::root()).unwrap()), gone());
    waiting.causes = vec![order(1, waiting.schedule.project, &[])];
    waiting.causes[0].event.event_type = "schedule.skipped".to_owned();
    let step = react(&waiting, at("2026-01-01T08:45:00Z"));
    assert_eq!(words(&step), ["08 skipped not_startable"]);
    assert!(step.news.is_empty(), "it would fire for this");
    waiting.schedule.queued = Some(Due { at: at("2026-01-01T08:40:00Z"), event: Some(1) });
    let step = fire(&waiting, at("2026-01-01T08:45:00Z"));
    assert_eq!(words(&step), ["08 skipped not_startable"], "nor when it waited");
    assert!(step.news.is_empty());
}

fn pipeline_in(project: ProjectId) -> Pipeline {
    Pipeline {
        id: PipelineId::new(),
        project,
        name: "numbers".to_owned(),
        description: String::new(),
        enabled: true,
        version: 1,
        created_at: at("2026-01-01T00:00:00Z"),
        updated_at: at("2026-01-01T00:00:00Z"),
    }
}

#[test]
fn a_pipeline_starts_in_its_own_project_only() {
    let mut locked = locked(hourly(), gone());
    let pipeline = |project| PipelineToStart {
        head: PipelineHead { pipeline: pipeline_in(project), graph: Digest::of(b"graph") },
        named: None,
        rules: RunRules::default(),
    };
    locked.pipeline = Some(pipeline(locked.schedule.project));
    assert!(locked.is_startable());
    locked.pipeline = Some(pipeline(ProjectId::new()));
    assert!(!locked.is_startable());
    assert_eq!(words(&fire(&locked, at("2026-01-01T09:00:10Z"))), ["09 skipped not_startable"]);
}

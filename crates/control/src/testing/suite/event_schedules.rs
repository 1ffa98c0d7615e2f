//! Schedules that fire for events: each event once, on any number of instances, and nothing that came before.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::time::Duration;

use gathering_domain::{Pointer, ScheduleId};
use gathering_scheduler::{CatchUp, Overlap};
use serde_json::{Value, json};

use super::schedules::{Plan, end, run_of, succeeded};
use crate::testing::ControlFixture;
use crate::{
    ControlError, EventControl, EventMatching, EventSeq, Fire, MatchRound, PostEvent, PostEvents, Schedule,
    SubmittedSchedule, right,
};

/// How long a case waits for what others in the same database do.
const LIMIT: Duration = Duration::from_secs(10);

fn on_orders() -> Value {
    json!({ "type": "event", "event_type": "order.*", "when": "event.data.total > 10" })
}

/// Posts events of this type, in one transaction; answers with their places.
async fn post<F: ControlFixture>(
    fixture: &F,
    plan: &Plan,
    event_type: &str,
    totals: &[i32],
) -> Vec<EventSeq> {
    let event = |total: &i32| PostEvent {
        event_type: event_type.to_owned(),
        data: json!({ "total": total }),
        ..PostEvent::default()
    };
    let posting = PostEvents {
        project: Some(plan.world.project),
        events: totals.iter().map(|total| (Pointer::root(), event(total))).collect(),
    };
    let posted = EventControl::new(fixture.store()).post(&plan.world.owner, posting).await.unwrap();
    posted.into_iter().map(|posted| posted.event.seq).collect()
}

/// Reads the log until this schedule's ledger has so many entries; answers with them in the order of their events.
async fn match_until<F: ControlFixture>(
    fixture: &F,
    plan: &Plan,
    schedule: ScheduleId,
    n: usize,
) -> Vec<Fire> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        EventMatching::match_events(&*fixture.store()).await.unwrap();
        let mut ledger = plan.ledger(schedule).await;
        if ledger.len() >= n {
            ledger.sort_by_key(|fire| fire.event);
            return ledger;
        }
        assert!(tokio::time::Instant::now() < deadline, "after {LIMIT:?}: {ledger:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads the log until nothing is left.
async fn match_all<F: ControlFixture>(fixture: &F) {
    while EventMatching::match_events(&*fixture.store()).await.unwrap() != MatchRound::ToTheEnd {
        tokio::task::yield_now().await;
    }
}

fn words(fires: &[Fire]) -> Vec<String> {
    let words = |fire: &Fire| match &fire.reason {
        Some(reason) => format!("{} {reason}", fire.outcome),
        None => fire.outcome.clone(),
    };
    fires.iter().map(words).collect()
}

async fn on_orders_with<F: ControlFixture>(
    fixture: &F,
    change: impl FnOnce(SubmittedSchedule) -> SubmittedSchedule,
) -> (Plan, Schedule) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(change(plan.submitted(on_orders()))).await.unwrap();
    (plan, schedule)
}

/// The event is in the input of the run, and named in its trigger.
pub async fn an_event_that_fits_starts_a_run_with_it<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    post(fixture, &plan, "order.paid", &[99]).await;
    let schedule = plan.define(plan.submitted(on_orders())).await.unwrap();
    assert_eq!((schedule.next, schedule.events_after.is_some()), (None, true));
    let policies = (schedule.timetable.catch_up, schedule.timetable.overlap);
    assert_eq!(policies, (CatchUp::All, Overlap::Allow), "each event counts");
    post(fixture, &plan, "order.paid", &[10]).await;
    post(fixture, &plan, "orders.paid", &[11]).await;
    let seq = post(fixture, &plan, "order.paid", &[11]).await[0];
    let ledger = match_until(fixture, &plan, schedule.id, 1).await;
    match_all(fixture).await;
    assert_eq!(plan.ledger(schedule.id).await.len(), 1, "nothing else fits");
    assert_eq!((ledger[0].event, &*ledger[0].outcome), (Some(seq), "started"));
    let run = plan.world.runs.find::<right::Read>(&plan.world.owner, run_of(&ledger[0])).await.unwrap();
    assert_eq!((&run.input["n"], &run.input["event"]["data"]), (&json!(1), &json!({ "total": 11 })));
    assert_eq!(run.trigger["event"], json!({ "seq": seq, "type": "order.paid" }));
    assert_eq!(run.trigger["caused_by"], json!([schedule.id]));
    let after = plan.show(schedule.id).await;
    assert_eq!((after.n_fires, after.last_fire_at.is_some()), (1, true));
}

/// However many instances read the log at once, and events of one moment too.
pub async fn i6_each_event_fires_a_schedule_once<F: ControlFixture>(fixture: &F) {
    let (plan, schedule) = on_orders_with(fixture, |schedule| schedule).await;
    let mut posted = Vec::new();
    for _ in 0..5 {
        posted.extend(post(fixture, &plan, "order.paid", &[20, 21, 22, 23]).await);
        let store = fixture.store();
        let matching = || EventMatching::match_events(&*store);
        let (one, two, three) = tokio::join!(matching(), matching(), matching());
        one.and(two).and(three).unwrap();
    }
    let ledger = match_until(fixture, &plan, schedule.id, posted.len()).await;
    match_all(fixture).await;
    let fired: Vec<EventSeq> = ledger.iter().filter_map(|fire| fire.event).collect();
    assert_eq!(fired, posted);
    let page = plan.schedules.list_fires(&plan.world.owner, schedule.id, None, 7).await.unwrap();
    let last = page.last().map(|fire| gathering_scheduler::Due { at: fire.due_at, event: fire.event });
    let rest = plan.schedules.list_fires(&plan.world.owner, schedule.id, last, 100).await.unwrap();
    assert_eq!(page.len() + rest.len(), posted.len(), "a page ends between two events of one moment");
    assert_eq!(plan.show(schedule.id).await.n_fires, 20);
}

/// Also many schedules for one event.
pub async fn i6_more_events_than_a_round_takes_all_fire<F: ControlFixture>(fixture: &F) {
    let (plan, schedule) = on_orders_with(fixture, |schedule| schedule).await;
    let another = plan.define(plan.submitted(on_orders())).await.unwrap();
    let totals: Vec<i32> = (11..1011).collect();
    post(fixture, &plan, "order.paid", &totals).await;
    match_all(fixture).await;
    for id in [schedule.id, another.id] {
        assert_eq!(plan.show(id).await.n_fires, 1000);
    }
}

/// One waits for the run; it starts with its own event when the run has ended.
pub async fn an_event_can_wait_until_the_earlier_run_has_ended<F: ControlFixture>(fixture: &F) {
    let queue_one = |schedule| SubmittedSchedule { overlap: Some(Overlap::QueueOne), ..schedule };
    let (plan, schedule) = on_orders_with(fixture, queue_one).await;
    post(fixture, &plan, "order.paid", &[21, 22, 23]).await;
    let ledger = match_until(fixture, &plan, schedule.id, 3).await;
    assert_eq!(words(&ledger), ["started", "queued", "skipped overlap"]);
    end(fixture, run_of(&ledger[0]), succeeded()).await;
    let is_started = |fires: &[Fire]| fires.iter().filter(|fire| fire.run.is_some()).count() == 2;
    let mut ledger = plan.fire_until(schedule.id, is_started).await;
    ledger.sort_by_key(|fire| fire.event);
    let run = plan.world.runs.find::<right::Read>(&plan.world.owner, run_of(&ledger[1])).await.unwrap();
    assert_eq!(run.input["event"]["data"], json!({ "total": 22 }));
}

/// Its events are in the ledger as skipped. What it resumes with is what comes then.
pub async fn a_paused_schedule_fires_for_no_event<F: ControlFixture>(fixture: &F) {
    let (plan, schedule) = on_orders_with(fixture, |schedule| schedule).await;
    plan.schedules.pause(&plan.world.owner, schedule.id).await.unwrap();
    post(fixture, &plan, "order.paid", &[21]).await;
    match_until(fixture, &plan, schedule.id, 1).await;
    plan.schedules.resume(&plan.world.owner, schedule.id).await.unwrap();
    post(fixture, &plan, "order.paid", &[22]).await;
    let ledger = match_until(fixture, &plan, schedule.id, 2).await;
    assert_eq!(words(&ledger), ["skipped paused", "started"]);
}

/// With a number of fires it ends, and another number has it go on with what comes then.
pub async fn an_event_schedule_ends_after_its_fires<F: ControlFixture>(fixture: &F) {
    let once = |schedule| SubmittedSchedule { max_fires: Some(1), ..schedule };
    let (plan, schedule) = on_orders_with(fixture, once).await;
    post(fixture, &plan, "order.paid", &[21, 22]).await;
    match_until(fixture, &plan, schedule.id, 1).await;
    let ended = plan.show(schedule.id).await;
    assert_eq!((ended.n_fires, ended.events_after), (1, None));
    let more =
        |schedule: &Schedule| SubmittedSchedule { max_fires: Some(2), ..SubmittedSchedule::of(schedule) };
    plan.schedules.change(&plan.world.owner, schedule.id, more).await.unwrap();
    post(fixture, &plan, "order.paid", &[23]).await;
    let ledger = match_until(fixture, &plan, schedule.id, 2).await;
    assert_eq!(words(&ledger), ["started", "started"]);
}

/// Another trigger brings its own policies along.
pub async fn a_schedule_changes_from_times_to_events_and_back<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let hourly = json!({ "type": "cron", "expression": "0 * * * *" });
    let schedule = plan.define(plan.submitted(hourly.clone())).await.unwrap();
    let to = |trigger: Value| {
        move |schedule: &Schedule| {
            let mut changed = SubmittedSchedule::of(schedule);
            changed.set_trigger(trigger.clone());
            changed
        }
    };
    let owner = &plan.world.owner;
    let events = plan.schedules.change(owner, schedule.id, to(on_orders())).await.unwrap();
    assert_eq!((events.next, events.timetable.catch_up), (None, CatchUp::All));
    post(fixture, &plan, "order.paid", &[21]).await;
    match_until(fixture, &plan, schedule.id, 1).await;
    // What has come and was not read yet is not passed over by a change of something else.
    post(fixture, &plan, "order.paid", &[22]).await;
    let ten =
        |schedule: &Schedule| SubmittedSchedule { max_fires: Some(10), ..SubmittedSchedule::of(schedule) };
    plan.schedules.change(owner, schedule.id, ten).await.unwrap();
    match_until(fixture, &plan, schedule.id, 2).await;
    let times = plan.schedules.change(owner, schedule.id, to(hourly)).await.unwrap();
    assert_eq!((times.next.is_some(), times.events_after), (true, None));
    assert_eq!(times.timetable.catch_up, CatchUp::Latest);
}

/// Everything wrong is named at its place.
pub async fn a_wrong_event_schedule_is_refused_with_every_problem<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let action =
        json!({ "action": "execute_pipeline", "pipeline_id": plan.world.pipeline, "input": { "event": 1 } });
    let trigger = json!({ "type": "event", "event_type": "Order", "when": "event.data +" });
    let wrong = SubmittedSchedule {
        jitter_seconds: 5,
        catch_up: Some(CatchUp::Latest),
        ..SubmittedSchedule::new("wrong", trigger, action)
    };
    let Err(ControlError::Invalid(problems)) = plan.define(wrong).await else { panic!() };
    let mut places: Vec<_> = problems.iter().map(|problem| problem.pointer.to_string()).collect();
    places.sort();
    let expected = ["/action/input", "/catch_up", "/jitter_seconds", "/trigger/event_type", "/trigger/when"];
    assert_eq!(places, expected);
    let schedule = plan.define(plan.submitted(on_orders())).await.unwrap();
    let range = crate::BackfillRange { from: schedule.created_at, to: schedule.created_at };
    let refused = plan.schedules.backfill(&plan.world.owner, schedule.id, range).await;
    assert!(matches!(refused, Err(ControlError::Invalid(_))), "{refused:?}");
    let run = plan.schedules.trigger(&plan.world.owner, schedule.id).await.unwrap();
    let run = plan.world.runs.find::<right::Read>(&plan.world.owner, run).await.unwrap();
    assert_eq!(run.input["event"], Value::Null, "fired by hand, it has no event");
}

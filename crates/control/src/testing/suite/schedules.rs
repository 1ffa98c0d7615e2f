//! Schedules: created, changed, fired, and their ledgers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gathering_auth::{Caller, ProjectRole, Role};
use gathering_dag_engine::{NodeSpecs, Release, RunEnd, RunResult};
use gathering_domain::{KeyedBody, RunId, RunKind, RunState, ScheduleId};
use gathering_scheduler::{CatchUp, FireStore as _, Overlap};
use serde_json::{Value, json};

use super::{World, claim, commit, conflict, failed};
use crate::testing::ControlFixture;
use crate::{
    BackfillRange, Conflict, ControlError, DefineSchedule, Fire, Graphs, PauseReason, Schedule,
    ScheduleControl, ScheduleFiring, SubmittedSchedule, right,
};

/// How long a case waits for what comes by itself.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Plan {
    pub(super) world: World,
    pub(super) schedules: ScheduleControl,
    firing: ScheduleFiring,
}

impl Plan {
    pub(super) async fn new<F: ControlFixture>(fixture: &F) -> Self {
        let world = World::new(fixture).await;
        let graphs = Graphs::new(fixture.run_store(), NodeSpecs::builtin(), 16);
        let schedules = ScheduleControl::new(fixture.store(), graphs);
        Self { world, schedules, firing: ScheduleFiring::new(fixture.store()) }
    }

    /// A schedule of the pipeline.
    pub(super) fn submitted(&self, trigger: Value) -> SubmittedSchedule {
        let action =
            json!({ "action": "execute_pipeline", "pipeline_id": self.world.pipeline, "input": { "n": 1 } });
        SubmittedSchedule::new("numbers", trigger, action)
    }

    pub(super) async fn define(&self, schedule: SubmittedSchedule) -> Result<Schedule, ControlError> {
        self.define_as(&self.world.owner, schedule).await
    }

    async fn define_as(&self, by: &Caller, schedule: SubmittedSchedule) -> Result<Schedule, ControlError> {
        let define = DefineSchedule { project: Some(self.world.project), schedule, once: None };
        self.schedules.define(by, define).await
    }

    pub(super) async fn show(&self, schedule: ScheduleId) -> Schedule {
        self.schedules.find::<right::Read>(&self.world.owner, schedule).await.unwrap().into_thing()
    }

    /// The ledger, oldest first.
    pub(super) async fn ledger(&self, schedule: ScheduleId) -> Vec<Fire> {
        let mut fires = self.schedules.list_fires(&self.world.owner, schedule, None, 100).await.unwrap();
        fires.reverse();
        fires
    }

    /// Fires until the ledger looks so.
    pub(super) async fn fire_until(
        &self,
        schedule: ScheduleId,
        is_done: impl Fn(&[Fire]) -> bool,
    ) -> Vec<Fire> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            self.firing.fire_due().await.unwrap();
            let ledger = self.ledger(schedule).await;
            if is_done(&ledger) {
                return ledger;
            }
            assert!(tokio::time::Instant::now() < deadline, "after {LIMIT:?}: {ledger:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(super) fn every_second() -> Value {
    json!({ "type": "interval", "seconds": 1 })
}

pub(super) fn hourly() -> Value {
    json!({ "type": "cron", "expression": "0 * * * *" })
}

pub(super) fn run_of(fire: &Fire) -> RunId {
    fire.run.unwrap()
}

/// Ends a run as an instance would.
pub(super) async fn end<F: ControlFixture>(fixture: &F, run: RunId, release: Release) {
    let claim = claim(fixture, run).await;
    commit(fixture, claim, Vec::new(), Some(release)).await;
}

pub(super) fn succeeded() -> Release {
    Release::End(RunEnd {
        result: RunResult::Succeeded(json!({})),
        abandons_children: false,
        is_limited: false,
    })
}

/// The run, its trigger and the entry of the ledger belong together.
pub async fn a_due_schedule_starts_a_run_of_its_pipeline<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(every_second())).await.unwrap();
    assert_eq!((schedule.n_fires, schedule.pause), (0, None));
    let ledger = plan.fire_until(schedule.id, |fires| !fires.is_empty()).await;
    let fire = &ledger[0];
    assert_eq!((&*fire.outcome, fire.run_state), ("started", Some(RunState::Queued)));
    assert_eq!(fire.due_at, schedule.next.unwrap().due_at);
    let run =
        plan.world.runs.find::<right::Read>(&plan.world.owner, run_of(fire)).await.unwrap().into_thing();
    assert_eq!((run.kind, run.pipeline), (RunKind::Pipeline, Some((plan.world.pipeline, 1))));
    assert_eq!((run.schedule, &run.input), (Some(schedule.id), &json!({ "n": 1 })));
    assert_eq!(
        (&run.trigger["type"], &run.trigger["schedule_id"]),
        (&json!("schedule"), &json!(schedule.id))
    );
    assert_eq!(run.trigger["due_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap(), fire.due_at);
    let after = plan.show(schedule.id).await;
    assert!(after.n_fires >= 1 && after.last_fire_at.is_some());
    assert!(after.next.unwrap().due_at > fire.due_at);
}

/// However many instances fire, and how often: of one due time there is one run.
pub async fn i6_of_several_that_fire_at_once_one_starts_a_run<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let due_at = Utc::now() + TimeDelta::milliseconds(500);
    let mut ids = Vec::new();
    for _ in 0..5 {
        let once = plan.submitted(json!({ "type": "once", "at": due_at.to_rfc3339() }));
        ids.push(plan.define(once).await.unwrap().id);
    }
    let firing = Arc::new(ScheduleFiring::new(fixture.store()));
    let until = tokio::time::Instant::now() + Duration::from_millis(1200);
    let loops = (0..4).map(|_| {
        let firing = Arc::clone(&firing);
        tokio::spawn(async move {
            while tokio::time::Instant::now() < until {
                firing.fire_due().await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    });
    for one in loops.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    for id in ids {
        let ledger = plan.ledger(id).await;
        assert_eq!(ledger.iter().map(|fire| &*fire.outcome).collect::<Vec<_>>(), ["started"]);
        assert_eq!(plan.show(id).await.next, None, "a schedule of one moment ends");
    }
}

/// While a run goes on the next due time is skipped; when it has ended, one fires again.
pub async fn a_due_time_is_skipped_while_an_earlier_run_goes_on<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(every_second())).await.unwrap();
    let ledger = plan.fire_until(schedule.id, |fires| fires.len() >= 2).await;
    assert_eq!(ledger[1].reason.as_deref(), Some("overlap"));
    end(fixture, run_of(&ledger[0]), succeeded()).await;
    let n_before = ledger.len();
    let started = |fires: &[Fire]| fires.iter().skip(n_before).any(|fire| fire.outcome == "started");
    let ledger = plan.fire_until(schedule.id, started).await;
    assert_eq!(ledger[0].run_state, Some(RunState::Succeeded));
}

/// A queued due time starts when the earlier run ends, not at the next due time.
pub async fn a_queued_due_time_starts_when_the_earlier_run_has_ended<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let submitted = SubmittedSchedule { overlap: Some(Overlap::QueueOne), ..plan.submitted(every_second()) };
    let schedule = plan.define(submitted).await.unwrap();
    let queued = |fires: &[Fire]| fires.iter().any(|fire| fire.outcome == "queued");
    let ledger = plan.fire_until(schedule.id, queued).await;
    plan.schedules.pause(&plan.world.owner, schedule.id).await.unwrap();
    end(fixture, run_of(&ledger[0]), succeeded()).await;
    plan.fire_until(schedule.id, |fires| fires[0].run_state == Some(RunState::Succeeded)).await;
    assert!(queued(&plan.ledger(schedule.id).await), "a paused schedule starts nothing");
    plan.schedules.resume(&plan.world.owner, schedule.id).await.unwrap();
    let ledger = plan.ledger(schedule.id).await;
    assert!(ledger[1].run.is_some() && ledger[1].outcome == "started", "{ledger:?}");
}

/// The earlier run is cancelled, and the new one waits for its end.
pub async fn the_previous_run_is_cancelled_where_the_policy_says_so<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let submitted =
        SubmittedSchedule { overlap: Some(Overlap::CancelPrevious), ..plan.submitted(every_second()) };
    let schedule = plan.define(submitted).await.unwrap();
    // A run that was never claimed ends by its cancellation.
    let second = |fires: &[Fire]| fires.get(1).is_some_and(|fire| fire.run.is_some());
    let ledger = plan.fire_until(schedule.id, second).await;
    assert_eq!(ledger[0].run_state, Some(RunState::Cancelled), "{ledger:?}");
}

/// A pause is in the ledger; nothing of it fires later.
pub async fn what_becomes_due_during_a_pause_is_skipped<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(every_second())).await.unwrap();
    let paused = plan.schedules.pause(&plan.world.owner, schedule.id).await.unwrap();
    assert_eq!((paused.pause, paused.look_at()), (Some(PauseReason::Request), None));
    let first = paused.next.unwrap().due_at;
    while Utc::now() <= first {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    plan.firing.fire_due().await.unwrap();
    assert!(plan.ledger(schedule.id).await.is_empty());
    let resumed = plan.schedules.resume(&plan.world.owner, schedule.id).await.unwrap();
    assert!(resumed.pause.is_none() && resumed.look_at().is_some());
    let ledger = plan.ledger(schedule.id).await;
    assert!(!ledger.is_empty() && ledger.iter().all(|fire| fire.reason.as_deref() == Some("paused")));
}

/// A trigger by hand has its entry, and leaves the due times as they are.
pub async fn a_schedule_is_triggered_by_hand<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(hourly())).await.unwrap();
    let run = plan.schedules.trigger(&plan.world.owner, schedule.id).await.unwrap();
    let ledger = plan.ledger(schedule.id).await;
    assert_eq!((ledger.len(), run_of(&ledger[0])), (1, run));
    let run = plan.world.runs.find::<right::Read>(&plan.world.owner, run).await.unwrap();
    assert_eq!(run.trigger["user_id"], json!(plan.world.owner.user));
    assert_eq!(plan.show(schedule.id).await.next, schedule.next);
    plan.world.change(false, None).await;
    let refused = plan.schedules.trigger(&plan.world.owner, schedule.id).await;
    assert_eq!(conflict(refused), Conflict::PipelineDisabled);
}

/// Asked for twice, overlapping, each due time fires once.
pub async fn i6_a_range_is_backfilled_once<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(hourly())).await.unwrap();
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let range = BackfillRange { from: at("2026-01-01T00:00:00Z"), to: at("2026-01-01T05:30:00Z") };
    let backfill = |range| plan.schedules.backfill(&plan.world.owner, schedule.id, range);
    assert_eq!(backfill(range).await.unwrap(), 6);
    assert_eq!(backfill(range).await.unwrap(), 0);
    let wider = BackfillRange { to: at("2026-01-01T08:00:00Z"), ..range };
    assert_eq!(backfill(wider).await.unwrap(), 3);
    let ledger = plan.ledger(schedule.id).await;
    assert_eq!(ledger.len(), 9);
    assert!(ledger.iter().all(|fire| fire.outcome == "caught_up" && fire.run.is_some()));
    assert_eq!(ledger[0].due_at, range.from);
    for (from, to, wrong) in [
        (range.to, range.from, "must not be before"),
        (range.from, Utc::now() + TimeDelta::days(1), "must not be in the future"),
        (at("2020-01-01T00:00:00Z"), range.to, "more than 1000 due times"),
    ] {
        let refused = backfill(BackfillRange { from, to }).await;
        let Err(ControlError::Invalid(problems)) = refused else { panic!("{refused:?}") };
        assert!(problems.to_string().contains(wrong), "{problems}");
    }
}

/// A disabled pipeline is a reason in the ledger, not a failure of the loop.
pub async fn a_due_time_whose_pipeline_is_disabled_is_skipped<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(every_second())).await.unwrap();
    plan.world.change(false, None).await;
    let ledger = plan.fire_until(schedule.id, |fires| !fires.is_empty()).await;
    assert_eq!(ledger[0].reason.as_deref(), Some("not_startable"));
    assert_eq!(plan.show(schedule.id).await.n_fires, 0);
}

/// After as many failures in a row as allowed it fires no more.
pub async fn a_schedule_pauses_itself_after_failures_in_a_row<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let submitted = SubmittedSchedule { pause_after: Some(2), ..plan.submitted(every_second()) };
    let schedule = plan.define(submitted).await.unwrap();
    for n_started in 1..=2 {
        let started = |fires: &[Fire]| fires.iter().filter(|fire| fire.run.is_some()).count() == n_started;
        let ledger = plan.fire_until(schedule.id, started).await;
        let last = ledger.iter().rev().find_map(|fire| fire.run).unwrap();
        end(fixture, last, failed()).await;
    }
    let deadline = tokio::time::Instant::now() + LIMIT;
    while plan.show(schedule.id).await.pause.is_none() {
        plan.firing.fire_due().await.unwrap();
        assert!(tokio::time::Instant::now() < deadline);
    }
    let paused = plan.show(schedule.id).await;
    assert_eq!((paused.pause, paused.n_failures), (Some(PauseReason::Failures), 2));
    let resumed = plan.schedules.resume(&plan.world.owner, schedule.id).await.unwrap();
    assert_eq!((resumed.pause, resumed.n_failures), (None, 0));
}

/// A change counts due times anew; what was entered stays.
pub async fn a_changed_trigger_counts_from_the_change<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(every_second())).await.unwrap();
    let n_before = plan.fire_until(schedule.id, |fires| !fires.is_empty()).await.len();
    let other = SubmittedSchedule { catch_up: Some(CatchUp::All), ..plan.submitted(hourly()) };
    let changed = plan.schedules.change(&plan.world.owner, schedule.id, |_| other.clone()).await.unwrap();
    assert!(changed.next.unwrap().due_at > Utc::now());
    assert_eq!(changed.timetable.catch_up, CatchUp::All);
    assert!(changed.updated_at > schedule.updated_at);
    assert_eq!(plan.ledger(schedule.id).await.len(), n_before);
    assert_eq!(plan.show(schedule.id).await, changed);
}

/// The same key and body create one schedule.
pub async fn a_schedule_is_created_once_for_one_key<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let define = |body: &Value| DefineSchedule {
        project: Some(plan.world.project),
        schedule: plan.submitted(hourly()),
        once: Some(KeyedBody::new("key".parse().unwrap(), body)),
    };
    let first = plan.schedules.define(&plan.world.owner, define(&json!(1))).await.unwrap();
    let again = plan.schedules.define(&plan.world.owner, define(&json!(1))).await.unwrap();
    assert_eq!(first.id, again.id);
    let other = plan.schedules.define(&plan.world.owner, define(&json!(2))).await;
    assert_eq!(conflict(other), Conflict::KeyReused);
}

/// A schedule is a thing of its project.
pub async fn a_stranger_finds_no_schedule_and_a_viewer_changes_none<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let schedule = plan.define(plan.submitted(hourly())).await.unwrap().id;
    let (stranger, viewer) = (fixture.account(Role::Member).await, fixture.account(Role::Member).await);
    fixture.join(plan.world.project, &viewer, ProjectRole::Viewer).await;
    let found = plan.schedules.find::<right::Read>(&stranger, schedule).await;
    assert!(matches!(found, Err(ControlError::NotFound)), "{found:?}");
    assert!(plan.schedules.list(&stranger, None, None, 10).await.unwrap().is_empty());
    assert_eq!(plan.schedules.list(&viewer, None, None, 10).await.unwrap().len(), 1);
    let refused = plan.schedules.trigger(&viewer, schedule).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    let refused = plan.define_as(&viewer, plan.submitted(hourly())).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    plan.schedules.delete(&plan.world.owner, schedule).await.unwrap();
    let gone = plan.schedules.find::<right::Read>(&plan.world.owner, schedule).await;
    assert!(matches!(gone, Err(ControlError::NotFound)), "{gone:?}");
}

/// Everything wrong is named at its place, and nothing is stored.
pub async fn a_wrong_schedule_is_refused_with_every_problem<F: ControlFixture>(fixture: &F) {
    let plan = Plan::new(fixture).await;
    let wrong = SubmittedSchedule {
        jitter_seconds: 100_000,
        max_fires: Some(0),
        start_at: Some(Utc::now() + TimeDelta::days(2)),
        end_at: Some(Utc::now() + TimeDelta::days(1)),
        ..SubmittedSchedule::new(
            "wrong",
            json!({ "type": "cron", "expression": "0 0 30 2 *", "timezone": "Berlin" }),
            json!({ "action": "execute_pipeline", "pipeline_id": ScheduleId::new() }),
        )
    };
    let Err(ControlError::Invalid(problems)) = plan.define(wrong).await else { panic!() };
    let mut places: Vec<_> = problems.iter().map(|problem| problem.pointer.to_string()).collect();
    places.sort();
    let expected = [
        "/action/pipeline_id",
        "/end_at",
        "/jitter_seconds",
        "/max_fires",
        "/trigger/expression",
        "/trigger/timezone",
    ];
    assert_eq!(places, expected);
    for (trigger, place) in [
        (json!({ "type": "once", "at": "2020-01-01T00:00:00Z" }), "/trigger"),
        (json!({ "type": "interval", "seconds": 172_800 }), "/end_at"),
    ] {
        let end_at = Some(Utc::now() + TimeDelta::days(1));
        let never = SubmittedSchedule { end_at, ..plan.submitted(trigger) };
        let Err(ControlError::Invalid(problems)) = plan.define(never).await else { panic!() };
        assert_eq!(problems.iter().map(|problem| problem.pointer.to_string()).collect::<Vec<_>>(), [place]);
    }
    assert!(plan.schedules.list(&plan.world.owner, None, None, 10).await.unwrap().is_empty());
}

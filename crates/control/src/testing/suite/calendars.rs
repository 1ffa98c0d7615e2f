//! Schedules whose days come from calendars.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::path::PathBuf;

use chrono::{Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use gathering_dag_engine::NodeSpecs;
use gathering_domain::ProjectId;
use gathering_tools::{BlockingPool, Workspace, WorkspacePath};
use serde_json::{Value, json};

use super::World;
use crate::testing::ControlFixture;
use crate::{
    ControlError, DefineSchedule, Graphs, ProjectControl, Schedule, ScheduleControl, SubmittedSchedule,
    WorkspaceSettings, Workspaces, right,
};

/// A member with a project whose files are on the disk.
struct Office {
    world: World,
    schedules: ScheduleControl,
    files: Workspace,
    root: PathBuf,
}

impl Office {
    async fn new<F: ControlFixture>(fixture: &F) -> Self {
        let world = World::new(fixture).await;
        let root = std::env::temp_dir().join(format!("gathering-calendars-{}", ProjectId::new()));
        let settings = WorkspaceSettings {
            root: root.join("workspaces"),
            data_dir: root.join("data"),
            n_cached_directories: 10,
            n_cached_workspaces: 10,
        };
        let projects = ProjectControl::new(fixture.store());
        let workspaces = Workspaces::new(projects, settings, BlockingPool::new(2));
        tokio::fs::create_dir_all(&root).await.unwrap();
        let files = workspaces.open(world.project).await.unwrap();
        let graphs = Graphs::new(fixture.run_store(), NodeSpecs::builtin(), 16);
        let schedules = ScheduleControl::new(fixture.store(), graphs).with_files(workspaces);
        Self { world, schedules, files, root }
    }

    async fn write(&self, file: &str, content: &str) {
        self.files.write(&path(file), content.to_owned()).await.unwrap();
    }

    /// Writes it, as a request does that tells the schedules.
    async fn put(&self, file: &str, content: &str) -> usize {
        self.write(file, content).await;
        self.schedules.renew_calendars_of(self.world.project, &path(file)).await.unwrap()
    }

    fn submitted(&self, days: Value) -> SubmittedSchedule {
        let trigger = json!({ "type": "cron", "expression": "0 * * * *" });
        let action = json!({ "action": "execute_pipeline", "pipeline_id": self.world.pipeline });
        let Value::Object(days) = days else { panic!("{days}") };
        SubmittedSchedule { days, ..SubmittedSchedule::new("hourly", trigger, action) }
    }

    async fn define(&self, days: Value) -> Result<Schedule, ControlError> {
        let schedule = self.submitted(days);
        let define = DefineSchedule { project: Some(self.world.project), schedule, once: None };
        self.schedules.define(&self.world.owner, define).await
    }

    /// What is wrong with these days.
    async fn problem(&self, days: Value) -> String {
        let Err(ControlError::Invalid(problems)) = self.define(days.clone()).await else { panic!("{days}") };
        problems.to_string()
    }

    async fn show(&self, schedule: &Schedule) -> Schedule {
        self.schedules.find::<right::Read>(&self.world.owner, schedule.id).await.unwrap().into_thing()
    }

    async fn end(self) {
        tokio::fs::remove_dir_all(&self.root).await.unwrap();
    }
}

fn path(text: &str) -> WorkspacePath {
    text.parse().unwrap()
}

/// A calendar with one event, so many days from today on.
fn days_from(first: NaiveDate, n_days: u64) -> String {
    let end = first + Days::new(n_days);
    format!(
        "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:{}\r\nDTEND;VALUE=DATE:{}\r\n\
         END:VEVENT\r\nEND:VCALENDAR\r\n",
        first.format("%Y%m%d"),
        end.format("%Y%m%d")
    )
}

fn next_due(schedule: &Schedule) -> chrono::DateTime<Utc> {
    schedule.next.unwrap().due_at
}

/// Each schedule follows the file that it names.
pub async fn a_schedule_follows_its_calendar<F: ControlFixture>(fixture: &F) {
    let office = Office::new(fixture).await;
    let today = Utc::now().date_naive();
    office.write("calendars/holidays.ics", &days_from(today, 4)).await;
    let created = office.define(json!({ "except": { "file": "./calendars/holidays.ics" } })).await.unwrap();
    let fifth_day = (today + Days::new(4)).and_time(NaiveTime::MIN).and_utc();
    assert_eq!(next_due(&created), fifth_day);
    let found = office.show(&created).await;
    assert_eq!((found.next, &found.calendars), (created.next, &created.calendars));
    assert_eq!(
        Value::Object(SubmittedSchedule::of(&found).days),
        json!({ "except": { "file": "calendars/holidays.ics" } }),
        "it keeps the file, not the days"
    );
    let other = office.define(json!({ "except": [] })).await.unwrap();

    assert_eq!(office.put("calendars/other.ics", &days_from(today, 1)).await, 0, "nobody names it");
    assert_eq!(office.put("calendars/holidays.ics", &days_from(today, 4)).await, 0, "the same days");
    assert_eq!(office.put("calendars/holidays.ics", &days_from(today, 2)).await, 1);
    let found = office.show(&created).await;
    assert_eq!(next_due(&found), fifth_day - TimeDelta::days(2));
    assert_eq!(found.updated_at, created.updated_at, "nobody has changed the schedule");
    assert!(found.calendars.read_at > created.calendars.read_at);
    // Written by a run, or by others on the disk.
    office.write("calendars/holidays.ics", &days_from(today, 3)).await;
    assert_eq!(office.schedules.renew_calendars().await.unwrap(), 1);
    assert_eq!(office.schedules.renew_calendars().await.unwrap(), 0);
    assert_eq!(next_due(&office.show(&created).await), fifth_day - TimeDelta::days(1));
    assert_eq!(office.show(&other).await.next, other.next);
    office.end().await;
}

/// What nobody can read changes nothing, and is told.
pub async fn a_broken_calendar_leaves_the_days_as_they_are<F: ControlFixture>(fixture: &F) {
    let office = Office::new(fixture).await;
    let today = Utc::now().date_naive();
    office.write("h.ics", &days_from(today, 4)).await;
    let schedule = office.define(json!({ "except": { "file": "h.ics" } })).await.unwrap();
    assert_eq!(office.put("h.ics", "BEGIN:VCALENDAR\nEND:VEVENT").await, 1);
    let broken = office.show(&schedule).await;
    let problem = "/except/file: line 2: ends another component than VCALENDAR, which begins in line 1";
    assert_eq!(broken.calendars.problem.as_deref(), Some(problem));
    assert_eq!((broken.next, broken.calendars.read_at), (schedule.next, schedule.calendars.read_at));
    assert_eq!(office.schedules.renew_calendars().await.unwrap(), 0, "it is told once");
    office.files.remove(&path("h.ics")).await.unwrap();
    assert_eq!(office.schedules.renew_calendars().await.unwrap(), 1);
    let gone = office.show(&schedule).await;
    assert_eq!(
        gone.calendars.problem.as_deref(),
        Some("/except/file: there is no file or directory `h.ics`")
    );

    // Another change does not need the file, unless it means other days on other clocks.
    let change = |trigger: Option<Value>| {
        move |schedule: &Schedule| {
            let mut changed = SubmittedSchedule::of(schedule);
            changed.name = "renamed".to_owned();
            changed.trigger = trigger.clone().unwrap_or(changed.trigger);
            changed
        }
    };
    let owner = &office.world.owner;
    let renamed = office.schedules.change(owner, schedule.id, change(None)).await.unwrap();
    assert_eq!(
        (&*renamed.name, renamed.next, &renamed.calendars),
        ("renamed", schedule.next, &gone.calendars)
    );
    let elsewhere = |schedule: &Schedule| {
        let mut changed = SubmittedSchedule::of(schedule);
        changed.days.insert("except".to_owned(), json!({ "file": "i.ics" }));
        changed
    };
    let refused = office.schedules.change(owner, schedule.id, elsewhere).await;
    let Err(ControlError::Invalid(problems)) = refused else { panic!("{refused:?}") };
    assert_eq!(problems.to_string(), "/except/file: there is no file or directory `i.ics`");
    let tokyo = json!({ "type": "cron", "expression": "0 * * * *", "timezone": "Asia/Tokyo" });
    let refused = office.schedules.change(owner, schedule.id, change(Some(tokyo))).await;
    let Err(ControlError::Invalid(problems)) = refused else { panic!("{refused:?}") };
    assert_eq!(problems.to_string(), "/except/file: there is no file or directory `h.ics`");

    assert_eq!(office.put("h.ics", &days_from(today, 4)).await, 1);
    let whole = office.show(&schedule).await;
    assert_eq!((whole.calendars.problem, whole.next), (None, schedule.next));
    office.end().await;
}

/// A schedule that fires on the days of a calendar alone has ended when they are over, and goes on when there are more.
pub async fn a_calendar_of_the_only_days_ends_a_schedule_and_revives_it<F: ControlFixture>(fixture: &F) {
    let office = Office::new(fixture).await;
    let today = Utc::now().date_naive();
    let in_a_week = today + Days::new(7);
    office.write("days.ics", &days_from(in_a_week, 1)).await;
    let schedule = office.define(json!({ "only": { "file": "days.ics" } })).await.unwrap();
    assert_eq!(next_due(&schedule).date_naive(), in_a_week);
    assert_eq!(office.put("days.ics", "BEGIN:VCALENDAR\nEND:VCALENDAR").await, 1);
    let ended = office.show(&schedule).await;
    assert_eq!((ended.next, ended.look_at()), (None, None));
    assert_eq!(office.put("days.ics", &days_from(in_a_week, 1)).await, 1);
    assert_eq!(office.show(&schedule).await.next, schedule.next);
    office.end().await;
}

/// Each problem is at its place, and tells nothing of what is outside of the workspace.
pub async fn a_calendar_that_cannot_be_read_is_refused_at_its_place<F: ControlFixture>(fixture: &F) {
    let office = Office::new(fixture).await;
    let broken = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:soon\nEND:VEVENT\nEND:VCALENDAR";
    office.write("broken.ics", broken).await;
    office.write("past.ics", &days_from("2025-06-01".parse().unwrap(), 1)).await;
    office.write("large.ics", &"x".repeat(1024 * 1024 + 1)).await;
    tokio::fs::write(office.root.join("secret.ics"), days_from(Utc::now().date_naive(), 1)).await.unwrap();
    let link = office.root.join("workspaces").join(office.world.project.to_string()).join("link.ics");
    tokio::fs::symlink(office.root.join("secret.ics"), link).await.unwrap();
    let outside = "/except/file: the path is outside of the workspace";
    let a_path = "must be the path of an iCalendar file in the workspace";
    let cases = [
        (json!({ "file": "../secret.ics" }), outside.to_owned()),
        (json!({ "file": "/etc/passwd" }), outside.to_owned()),
        (json!({ "file": "link.ics" }), outside.to_owned()),
        (json!({ "file": "no.ics" }), "/except/file: there is no file or directory `no.ics`".to_owned()),
        (json!({ "file": "large.ics" }), "/except/file: the file is larger than 1048576 bytes".to_owned()),
        (json!({ "file": "" }), format!("/except/file: {a_path}")),
        (json!({ "file": 1 }), format!("/except/file: {a_path}")),
        (json!({}), format!("/except/file: {a_path}")),
        (
            json!({ "file": "past.ics", "url": "x" }),
            "/except/url: is not a field of a calendar: it has file".to_owned(),
        ),
        (json!(1), "/except: must be a list of days, such as [\"2026-12-25\"]".to_owned()),
    ];
    for (days, expected) in cases {
        assert_eq!(office.problem(json!({ "except": days })).await, expected, "{days}");
    }
    let broken = office.problem(json!({ "except": { "file": "broken.ics" } })).await;
    assert!(broken.starts_with("/except/file: line 3: DTSTART must have a day"), "{broken}");
    let never = office.problem(json!({ "only": { "file": "past.ics" } })).await;
    assert_eq!(never, "/only: leaves no due time, so that the schedule never fires");
    assert!(office.schedules.list(&office.world.owner, None, None, 10).await.unwrap().is_empty());
    office.end().await;
}

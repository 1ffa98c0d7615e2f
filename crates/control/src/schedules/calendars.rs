//! The calendars of schedules: files of the workspace whose days a schedule leaves out, or fires on alone.
//!
//! A schedule keeps the days that were read last, so that it is planned without its files. The files are read before the
//! transaction in which the schedule is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use gathering_auth::Caller;
use gathering_domain::{Pointer, Problems, ProjectId};
use gathering_scheduler::{DayList, Days, MAX_CALENDAR_BYTES, Trigger, Zone, days_of_calendar, plan};
use gathering_tools::{WorkspaceError, WorkspacePath};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::fire::{fire, progress};
use super::{LockedSchedule, Schedule, ScheduleControl, ScheduleStep};
use crate::access::right;
use crate::workspaces::OpenWorkspaceError;
use crate::{ControlError, Workspaces};

/// How many schedules are listed at once.
const SCHEDULES_AT_ONCE: usize = 100;

/// How often the days of a schedule are read whose file is written again and again meanwhile.
const ATTEMPTS: usize = 3;

/// The files that the days of a schedule come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calendars {
    /// The path in the project's workspace, by the list that it stands for.
    pub files: BTreeMap<DayList, String>,
    /// When the days were read that the schedule has, in UTC. `None` without files.
    pub read_at: Option<DateTime<Utc>>,
    /// Why the files cannot be read since then.
    pub problem: Option<String>,
}

/// What reading the files of a schedule came to, by the list.
type ReadLists = BTreeMap<DayList, Result<BTreeSet<NaiveDate>, String>>;

/// The files of a schedule as they were read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Which they were.
    pub(super) files: BTreeMap<DayList, String>,
    /// On the clocks of this zone.
    pub(super) zone: Zone,
    /// What came of it.
    pub(super) lists: ReadLists,
}

impl Calendars {
    /// The fields `except` and `only` as people write them.
    pub fn written(&self, days: &Days) -> Map<String, Value> {
        let mut fields = days.to_json().as_object().cloned().unwrap_or_default();
        for (list, file) in &self.files {
            fields.insert(list.as_str().to_owned(), json!({ "file": file }));
        }
        fields
    }

    /// The same when a schedule is written at this time: what was read for that is as old.
    pub(super) fn taken_at(self, now: DateTime<Utc>) -> Self {
        let read_at = self.read_at.or(Some(now)).filter(|_| !self.files.is_empty());
        Self { read_at, ..self }
    }
}

impl ScheduleControl {
    /// The days that `except` and `only` mean, for a trigger on the clocks of its time zone; files are those of this
    /// project, or of the caller's default project.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] with everything that is wrong; [`ControlError::NotFound`] or
    /// [`ControlError::Forbidden`] for a project whose files are needed.
    pub async fn preview_days(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        fields: &Map<String, Value>,
        trigger: &Trigger,
    ) -> Result<Days, ControlError> {
        let mut problems = Problems::new();
        let has_file = fields.values().any(Value::is_object);
        let days = if has_file {
            let project = *self.projects.find_or_default::<right::Read>(caller, project).await?.thing();
            self.check_days(project, fields, Some(trigger.timezone()), None, &mut problems).await?.0
        } else {
            Days::parse(fields, &Pointer::root()).map_err(ControlError::Invalid)?
        };
        problems.into_result().map_err(ControlError::Invalid)?;
        Ok(days)
    }

    /// Reads `except` and `only`. Without a `zone` nobody knows which days the files mean. Files that a schedule had
    /// `before` may be unreadable now: it keeps its days.
    pub(super) async fn check_days(
        &self,
        project: ProjectId,
        fields: &Map<String, Value>,
        zone: Option<&Zone>,
        before: Option<&Schedule>,
        problems: &mut Problems,
    ) -> Result<(Days, Calendars), ControlError> {
        let root = Pointer::root();
        let mut listed = fields.clone();
        let mut calendars = Calendars::default();
        for list in DayList::ALL {
            let at = root.join(list.as_str());
            if let Some(Value::Object(calendar)) = fields.get(list.as_str()) {
                listed.shift_remove(list.as_str());
                match path_of(calendar, &at) {
                    Ok(path) => drop(calendars.files.insert(list, path)),
                    Err(wrong) => problems.extend(wrong),
                }
            }
        }
        let mut days =
            Days::parse(&listed, &root).map_err(|wrong| problems.extend(wrong)).unwrap_or_default();
        let Some(zone) = zone else { return Ok((days, calendars)) };
        let before = before.filter(|before| before.timetable.trigger.timezone() == zone);
        for (list, result) in self.read_files(project, &calendars.files, zone).await? {
            let file = calendars.files.get(&list);
            let before = before.filter(|before| before.calendars.files.get(&list) == file);
            let kept = before.and_then(|before| Some((before, before.timetable.days.list(list)?)));
            match (result, kept) {
                (Ok(read), _) => days = days.with(list, read),
                (Err(problem), Some((before, kept))) => {
                    days = days.with(list, kept.clone());
                    calendars.read_at = before.calendars.read_at;
                    calendars.problem = Some(placed(list, &problem));
                }
                (Err(problem), None) => problems.add(root.join(list.as_str()).join("file"), problem),
            }
        }
        Ok((days, calendars))
    }

    /// Reads the calendars of all schedules, and has those planned anew whose days have changed; answers with how many
    /// these are. A calendar that cannot be read leaves the days as they are. Repeats: safe.
    ///
    /// # Errors
    /// The store's; some are renewed.
    pub async fn renew_calendars(&self) -> Result<usize, ControlError> {
        self.renew(None, |_| true).await
    }

    /// The same for the schedules whose calendar is this file.
    ///
    /// # Errors
    /// As [`renew_calendars`](Self::renew_calendars).
    pub async fn renew_calendars_of(
        &self,
        project: ProjectId,
        file: &WorkspacePath,
    ) -> Result<usize, ControlError> {
        let uses = |schedule: &Schedule| schedule.calendars.files.values().any(|used| used == file.as_str());
        self.renew(Some(project), uses).await
    }

    async fn renew(
        &self,
        project: Option<ProjectId>,
        is_meant: impl Fn(&Schedule) -> bool,
    ) -> Result<usize, ControlError> {
        let (mut n_renewed, mut after) = (0, None);
        loop {
            let found = self.store.list_calendar_schedules(project, after, SCHEDULES_AT_ONCE).await?;
            let is_last = found.len() < SCHEDULES_AT_ONCE;
            after = found.last().map(|last| last.id);
            for schedule in found.into_iter().filter(&is_meant) {
                match self.renew_one(schedule).await {
                    Ok(is_renewed) => n_renewed += usize::from(is_renewed),
                    // It, or its project, was deleted meanwhile.
                    Err(ControlError::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            if is_last {
                return Ok(n_renewed);
            }
        }
    }

    /// Reads until nothing differs: of two who read a file, the later one may have written the older days.
    async fn renew_one(&self, mut schedule: Schedule) -> Result<bool, ControlError> {
        let mut is_renewed = false;
        for _ in 0..ATTEMPTS {
            let (files, zone) =
                (schedule.calendars.files.clone(), schedule.timetable.trigger.timezone().clone());
            let lists = self.read_files(schedule.project, &files, &zone).await?;
            let reading = Reading { files, zone, lists };
            let (days, problem) = renewed_days(&schedule, &reading.lists);
            if days == schedule.timetable.days && problem == schedule.calendars.problem {
                break;
            }
            match &problem {
                Some(problem) if schedule.calendars.problem.as_ref() != Some(problem) => tracing::warn!(
                    schedule.id = %schedule.id,
                    "schedule {} keeps the days of its calendar: {problem}", schedule.id
                ),
                _ => {}
            }
            let rule = |locked: LockedSchedule, now| Ok(renewed(&locked, &reading, now));
            schedule = self.store.renew_schedule(schedule.id, &rule).await?;
            is_renewed = true;
        }
        Ok(is_renewed)
    }

    /// Reads files of a project: the days on the clocks of `zone`, or what is wrong.
    async fn read_files(
        &self,
        project: ProjectId,
        files: &BTreeMap<DayList, String>,
        zone: &Zone,
    ) -> Result<ReadLists, ControlError> {
        let mut lists = ReadLists::new();
        for (list, path) in files {
            let read = match &self.files {
                Some(workspaces) => read_file(workspaces, &self.reading, project, path, zone).await?,
                None => Err("cannot be read: there are no workspaces here".to_owned()),
            };
            lists.insert(*list, read);
        }
        Ok(lists)
    }
}

/// The path in `{file}`, as workspaces write it.
fn path_of(calendar: &Map<String, Value>, at: &Pointer) -> Result<String, Problems> {
    let mut problems = Problems::new();
    for field in calendar.keys().filter(|field| *field != "file") {
        problems.add(at.join(field), "is not a field of a calendar: it has file");
    }
    let at = at.join("file");
    let path = match calendar.get("file").map(|path| path.as_str().map(str::parse::<WorkspacePath>)) {
        Some(Some(Ok(path))) if !path.is_root() => Some(path.as_str().to_owned()),
        Some(Some(Err(error))) => {
            problems.add(at, error.to_string());
            None
        }
        _ => {
            problems.add(at, "must be the path of an iCalendar file in the workspace");
            None
        }
    };
    match path {
        Some(path) if problems.is_empty() => Ok(path),
        _ => Err(problems),
    }
}

async fn read_file(
    workspaces: &Workspaces,
    reading: &Arc<Semaphore>,
    project: ProjectId,
    path: &str,
    zone: &Zone,
) -> Result<Result<BTreeSet<NaiveDate>, String>, ControlError> {
    let workspace = match workspaces.open(project).await {
        Ok(workspace) => workspace,
        Err(OpenWorkspaceError::NoProject(_)) => return Err(ControlError::NotFound),
        Err(OpenWorkspaceError::Lookup(error)) => return Err(error),
        Err(error @ OpenWorkspaceError::Workspace { .. }) => {
            return Ok(Err(unreadable(project, path, &error)));
        }
    };
    let parsed: WorkspacePath = match path.parse() {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let content = match workspace.read(&parsed, MAX_CALENDAR_BYTES as u64).await {
        Ok(content) => content,
        Err(error @ (WorkspaceError::Io { .. } | WorkspaceError::Panicked(_))) => {
            return Ok(Err(unreadable(project, path, &error)));
        }
        Err(error) => return Ok(Err(error.to_string())),
    };
    let (zone, today) = (zone.clone(), zone.local(Utc::now()).date_naive());
    // A reading goes on when its request has gone, and counts until it ends.
    let permit = Arc::clone(reading).acquire_owned().await.ok();
    let days = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        days_of_calendar(&content.bytes, &zone, today)
    });
    let days = match days.await {
        Ok(days) => days,
        // A fault of the reader, which must not keep other calendars from being read.
        Err(panicked) => return Ok(Err(unreadable(project, path, &panicked))),
    };
    Ok(days.map_err(|error| error.to_string()))
}

/// What its author is told when the server cannot read a file, which is not the author's to repair.
fn unreadable(project: ProjectId, path: &str, error: &(dyn std::error::Error + 'static)) -> String {
    tracing::warn!(project.id = %project, error, "cannot read the calendar {path}: {error}");
    "cannot be read: the server's log says why".to_owned()
}

fn placed(list: DayList, problem: &str) -> String {
    format!("{}: {problem}", Pointer::root().join(list.as_str()).join("file"))
}

/// The days of the schedule with those that were read, and why others are kept.
fn renewed_days(schedule: &Schedule, read: &ReadLists) -> (Days, Option<String>) {
    let (mut days, mut problem) = (schedule.timetable.days.clone(), None);
    for (list, result) in read {
        match result {
            Ok(read) => days = days.with(*list, read.clone()),
            Err(wrong) => problem = problem.or_else(|| Some(placed(*list, wrong))),
        }
    }
    (days, problem)
}

/// The step to the days that were read, unless the schedule names other files by now, or means other clocks. What is due
/// before counts by the old ones.
pub(super) fn renewed(locked: &LockedSchedule, reading: &Reading, now: DateTime<Utc>) -> ScheduleStep {
    let Reading { files, zone, lists } = reading;
    let current = &locked.schedule;
    if current.calendars.files != *files || current.timetable.trigger.timezone() != zone {
        return ScheduleStep::of(current.clone());
    }
    let (days, problem) = renewed_days(current, lists);
    let is_other = days != locked.schedule.timetable.days;
    let mut step = if is_other { fire(locked, now) } else { ScheduleStep::of(locked.schedule.clone()) };
    let calendars = &mut step.schedule.calendars;
    if problem.is_none() {
        calendars.read_at = Some(now);
    }
    calendars.problem = problem;
    if is_other {
        step.schedule.timetable.days = days;
        // What was due has been taken, so this only looks ahead.
        step.schedule.next = plan(&step.schedule.timetable, &progress(&step, &[]), now).next;
    }
    step
}

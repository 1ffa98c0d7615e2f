//! What a schedule does at a moment: which due times fire, which are skipped and why, and what comes next.

use chrono::{DateTime, Duration, Utc};

use crate::timetable::Next;
use crate::{CatchUp, Occurrence, Overlap, SkipReason, Timetable};

/// How many due times are recorded or caught up one by one; what is beyond is one entry with the reason
/// [`SkipReason::Bound`].
pub const MAX_CAUGHT_UP: usize = 1000;

/// A due time that fires within this time is on time. Later, it was missed, and the policy [`CatchUp`] applies.
pub const ON_TIME: Duration = Duration::seconds(60);

/// What a schedule fires for: a due time of its trigger, or an event, which is due when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Due {
    /// The due time, in UTC.
    pub at: DateTime<Utc>,
    /// The place of the event in its log.
    pub event: Option<i64>,
}

impl From<DateTime<Utc>> for Due {
    fn from(at: DateTime<Utc>) -> Self {
        Self { at, event: None }
    }
}

/// Where a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Differs between schedules, such as the bits of the id.
    pub seed: u128,
    /// All due times until here are in the ledger, in UTC.
    pub passed: DateTime<Utc>,
    /// How many due times have fired.
    pub n_fires: u32,
    /// How many of its runs have not ended.
    pub n_open: u32,
    /// What waits until they have.
    pub queued: Option<Due>,
}

/// What became of a due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FireOutcome {
    /// It fires, on time.
    Started,
    /// It fires, late.
    CaughtUp,
    /// It fires when the earlier runs have ended.
    Queued,
    /// It never fires.
    Skipped(SkipReason),
}

impl FireOutcome {
    /// The word for it in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            FireOutcome::Started => "started",
            FireOutcome::CaughtUp => "caught_up",
            FireOutcome::Queued => "queued",
            FireOutcome::Skipped(_) => "skipped",
        }
    }

    /// Why it was skipped, if it was.
    pub const fn reason(self) -> Option<SkipReason> {
        match self {
            FireOutcome::Skipped(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether it starts a run now.
    pub const fn starts(self) -> bool {
        matches!(self, FireOutcome::Started | FireOutcome::CaughtUp)
    }
}

/// An entry of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueEntry {
    /// What was due.
    pub due: Due,
    /// The entry stands for all due times from that one until here; only with [`SkipReason::Bound`].
    pub until: Option<DateTime<Utc>>,
    /// What became of it.
    pub outcome: FireOutcome,
}

/// What a schedule does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The new entries of the ledger, oldest first. The entry of a due time that was queued replaces the old one.
    pub entries: Vec<DueEntry>,
    /// Whether its runs that have not ended are cancelled.
    pub cancels_open: bool,
    /// Where the schedule stands afterwards.
    pub passed: DateTime<Utc>,
    /// How many due times have fired by then.
    pub n_fires: u32,
    /// What waits for the end of earlier runs.
    pub queued: Option<Due>,
    /// What fires next; `None` if nothing does.
    pub next: Option<Next>,
}

/// Plans what the schedule does `now`: everything that has become due since it was planned last.
///
/// Due times fire in order. One whose jitter is over waits for an earlier one whose jitter is not.
pub fn plan(timetable: &Timetable, progress: &Progress, now: DateTime<Utc>) -> Plan {
    let mut planner = Planner::new(timetable, progress);
    planner.start_queued();
    planner.pass(now);
    planner.finish()
}

/// Plans the resumption `now` of a schedule that was paused: what has become due meanwhile is skipped, and a due time that
/// waited for the end of earlier runs fires if they have ended.
pub fn plan_resumption(timetable: &Timetable, progress: &Progress, now: DateTime<Utc>) -> Plan {
    let mut planner = Planner::new(timetable, progress);
    planner.start_queued();
    planner.skip_until(now, SkipReason::Paused);
    planner.finish()
}

/// Plans what the schedule does `now` for events, in their order: as for due times, except that each is caught up unless
/// the policy is [`CatchUp::Skip`], whatever their number.
pub fn plan_events(timetable: &Timetable, progress: &Progress, events: &[Due], now: DateTime<Utc>) -> Plan {
    let mut planner = Planner::new(timetable, progress);
    planner.start_queued();
    for event in events.iter().filter(|event| timetable.is_within_bounds(event.at)) {
        if planner.is_exhausted() {
            break;
        }
        let is_on_time = now - event.at <= ON_TIME;
        match timetable.classify(Occurrence::Due(event.at)) {
            Occurrence::Due(_) if is_on_time => planner.fire(*event, FireOutcome::Started),
            Occurrence::Due(_) if timetable.catch_up == CatchUp::Skip => {
                planner.skip(*event, SkipReason::Missed)
            }
            Occurrence::Due(_) => planner.fire(*event, FireOutcome::CaughtUp),
            Occurrence::Excluded(_) | Occurrence::LeftOut(_) => planner.skip(*event, SkipReason::Excluded),
        }
    }
    planner.finish()
}

struct Planner<'a> {
    timetable: &'a Timetable,
    seed: u128,
    n_open: u32,
    plan: Plan,
}

impl<'a> Planner<'a> {
    const fn new(timetable: &'a Timetable, progress: &Progress) -> Self {
        let Progress { seed, passed, n_fires, n_open, queued } = *progress;
        let plan = Plan { entries: Vec::new(), cancels_open: false, passed, n_fires, queued, next: None };
        Self { timetable, seed, n_open, plan }
    }

    fn start_queued(&mut self) {
        if self.n_open == 0
            && let Some(due) = self.plan.queued.take()
        {
            self.start(due, FireOutcome::Started);
        }
    }

    /// Takes every due time whose moment has come.
    fn pass(&mut self, now: DateTime<Utc>) {
        let first = self.plan.passed;
        let mut n_taken = 0;
        while !self.is_exhausted() {
            let Some(occurrence) = self.come(self.plan.passed, now) else { return };
            if n_taken == MAX_CAUGHT_UP {
                return self.bound(now);
            }
            let later = self.timetable.next_due(self.seed, occurrence.at());
            let has_later = later.is_some_and(|later| later.fire_at <= now);
            self.take(occurrence, now, has_later);
            n_taken += 1;
        }
        debug_assert!(self.plan.passed >= first, "time goes forward");
    }

    /// The next occurrence after `after`, if its moment has come.
    fn come(&self, after: DateTime<Utc>, now: DateTime<Utc>) -> Option<Occurrence> {
        let occurrence = self.timetable.next_occurrence(after)?;
        let moment = match occurrence {
            Occurrence::Due(due_at) => self.timetable.fire_of(self.seed, due_at).fire_at,
            Occurrence::LeftOut(at) | Occurrence::Excluded(at) => at,
        };
        (moment <= now).then_some(occurrence)
    }

    fn take(&mut self, occurrence: Occurrence, now: DateTime<Utc>, has_later: bool) {
        self.plan.passed = occurrence.at();
        let due_at = match occurrence {
            Occurrence::LeftOut(at) => return self.skip(at.into(), SkipReason::DstGap),
            Occurrence::Excluded(at) => return self.skip(at.into(), SkipReason::Excluded),
            Occurrence::Due(due_at) => due_at,
        };
        let late = now - self.timetable.fire_of(self.seed, due_at).fire_at;
        let outcome = match self.timetable.catch_up {
            _ if late <= ON_TIME => FireOutcome::Started,
            CatchUp::All => FireOutcome::CaughtUp,
            CatchUp::Latest if !has_later => FireOutcome::CaughtUp,
            CatchUp::Latest | CatchUp::Skip => FireOutcome::Skipped(SkipReason::Missed),
        };
        match outcome {
            FireOutcome::Skipped(reason) => self.skip(due_at.into(), reason),
            outcome => self.fire(due_at.into(), outcome),
        }
    }

    /// Fires, unless an earlier run is in the way.
    fn fire(&mut self, due: Due, outcome: FireOutcome) {
        if self.n_open == 0 {
            return self.start(due, outcome);
        }
        match self.timetable.overlap {
            Overlap::Allow => self.start(due, outcome),
            Overlap::QueueOne if self.plan.queued.is_none() => self.queue(due),
            Overlap::Skip | Overlap::QueueOne => self.skip(due, SkipReason::Overlap),
            Overlap::CancelPrevious => {
                if let Some(earlier) = self.plan.queued.take() {
                    self.plan.entries.retain(|entry| entry.due != earlier);
                    self.skip(earlier, SkipReason::Overlap);
                }
                self.queue(due);
                self.plan.cancels_open = true;
            }
        }
    }

    fn start(&mut self, due: Due, outcome: FireOutcome) {
        self.n_open += 1;
        self.plan.n_fires += 1;
        self.enter(due, outcome);
    }

    fn queue(&mut self, due: Due) {
        self.plan.queued = Some(due);
        self.enter(due, FireOutcome::Queued);
    }

    fn skip(&mut self, due: Due, reason: SkipReason) {
        self.enter(due, FireOutcome::Skipped(reason));
    }

    fn enter(&mut self, due: Due, outcome: FireOutcome) {
        self.plan.entries.push(DueEntry { due, until: None, outcome });
    }

    /// Enters everything that is left until now as one entry; the latest due time still fires if it is to be caught up.
    fn bound(&mut self, now: DateTime<Utc>) {
        let settled = now - Duration::seconds(self.timetable.jitter_seconds.into());
        let Some(last) = self.timetable.last_until(self.plan.passed, settled) else { return };
        let Some(first) = self.timetable.next_occurrence(self.plan.passed) else { return };
        let fires_last = self.timetable.catch_up == CatchUp::Latest;
        // Due times that come by the thousand are whole seconds.
        let until = if fires_last { last - Duration::seconds(1) } else { last };
        if first.at() <= until {
            self.enter_bound(first.at(), until);
        }
        if fires_last {
            self.take(self.timetable.classify(Occurrence::Due(last)), now, false);
        }
        self.plan.passed = last;
    }

    fn enter_bound(&mut self, due_at: DateTime<Utc>, until: DateTime<Utc>) {
        let outcome = FireOutcome::Skipped(SkipReason::Bound);
        self.plan.entries.push(DueEntry { due: due_at.into(), until: Some(until), outcome });
    }

    /// Enters every occurrence until now as skipped.
    fn skip_until(&mut self, now: DateTime<Utc>, reason: SkipReason) {
        for _ in 0..MAX_CAUGHT_UP {
            let next = self.timetable.next_occurrence(self.plan.passed);
            let Some(occurrence) = next.filter(|occurrence| occurrence.at() <= now) else { return };
            self.plan.passed = occurrence.at();
            self.skip(occurrence.at().into(), reason);
        }
        let first = self.timetable.next_occurrence(self.plan.passed);
        if let (Some(first), Some(last)) = (first, self.timetable.last_until(self.plan.passed, now)) {
            self.enter_bound(first.at(), last);
            self.plan.passed = last;
        }
    }

    fn is_exhausted(&self) -> bool {
        let n_promised = self.plan.n_fires + u32::from(self.plan.queued.is_some());
        self.timetable.max_fires.is_some_and(|max| n_promised >= max)
    }

    fn finish(mut self) -> Plan {
        if !self.is_exhausted() {
            self.plan.next = self.timetable.next_due(self.seed, self.plan.passed);
        }
        self.plan
    }
}

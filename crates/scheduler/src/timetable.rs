//! When a schedule fires: its trigger within its bounds.

use chrono::{DateTime, Duration, NaiveDate, NaiveTime, Timelike, Utc};
use gathering_domain::Digest;

use crate::{CatchUp, Days, Occurrence, Overlap, Trigger};

/// The longest jitter: a day.
pub const MAX_JITTER_SECONDS: u32 = 24 * 60 * 60;

/// A trigger with the bounds and policies of its schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    /// The rule for due times.
    pub trigger: Trigger,
    /// On which days it fires.
    pub days: Days,
    /// For due times that passed while nothing fired.
    pub catch_up: CatchUp,
    /// For due times at which an earlier run has not ended.
    pub overlap: Overlap,
    /// Each fire is delayed by a part of so many seconds, which is always the same for one due time.
    pub jitter_seconds: u32,
    /// No due time is before, in UTC. An interval counts from here.
    pub start_at: Option<DateTime<Utc>>,
    /// No due time is after, in UTC.
    pub end_at: Option<DateTime<Utc>>,
    /// It ends after so many fires.
    pub max_fires: Option<u32>,
}

/// A due time with the moment at which it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The due time by the trigger, in UTC.
    pub due_at: DateTime<Utc>,
    /// When it fires, in UTC: later by its jitter.
    pub fire_at: DateTime<Utc>,
}

impl Timetable {
    /// A timetable without bounds, with the default policies: catch up the latest, skip overlaps, no jitter. Of events each
    /// is caught up, and overlaps are allowed.
    pub fn new(trigger: Trigger) -> Self {
        let (catch_up, overlap) = match trigger {
            Trigger::Event(_) => (CatchUp::All, Overlap::Allow),
            _ => (CatchUp::Latest, Overlap::Skip),
        };
        Self {
            trigger,
            days: Days::default(),
            catch_up,
            overlap,
            jitter_seconds: 0,
            start_at: None,
            end_at: None,
            max_fires: None,
        }
    }

    /// The moment after which the due times of a schedule are counted that begins now.
    pub fn begin(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let Some(start) = self.start_at else { return now };
        match &self.trigger {
            Trigger::Interval(interval) => {
                let length = Duration::seconds(interval.seconds().into());
                let first = start - length;
                // A rhythm that began before goes on.
                let n_passed = (now - first).num_seconds().div_euclid(length.num_seconds()).max(0);
                first + Duration::seconds(n_passed * length.num_seconds())
            }
            _ => now.max(start - Duration::nanoseconds(1)),
        }
    }

    /// A moment before the first due time from `from` on, and not before an earlier one. `passed` is where the schedule
    /// stands: an interval keeps its rhythm into the past.
    pub fn before(&self, from: DateTime<Utc>, passed: DateTime<Utc>) -> DateTime<Utc> {
        let from = self.start_at.map_or(from, |start| from.max(start)) - Duration::nanoseconds(1);
        match &self.trigger {
            Trigger::Interval(interval) => {
                let length = i64::from(interval.seconds());
                let passed = passed.with_nanosecond(0).unwrap_or(passed);
                let n_back = (passed - from).num_seconds().div_euclid(length) + 1;
                let last = passed - Duration::seconds(n_back * length);
                if last + Duration::seconds(length) <= from { last + Duration::seconds(length) } else { last }
            }
            _ => from,
        }
    }

    /// The first time after `after` that the trigger names, in UTC; `None` if there is no more.
    pub fn next_occurrence(&self, after: DateTime<Utc>) -> Option<Occurrence> {
        let next = self.trigger.next_occurrence(after).map(|next| self.classify(next))?;
        self.end_at.is_none_or(|end| next.at() <= end).then_some(next)
    }

    /// The occurrence, which is not due on some days.
    pub(crate) fn classify(&self, occurrence: Occurrence) -> Occurrence {
        match occurrence {
            Occurrence::Due(at) if !self.days.includes(self.day_of(at)) => Occurrence::Excluded(at),
            other => other,
        }
    }

    /// Whether a moment is not before the start and not after the end.
    pub fn is_within_bounds(&self, at: DateTime<Utc>) -> bool {
        self.start_at.is_none_or(|start| at >= start) && self.end_at.is_none_or(|end| at <= end)
    }

    fn day_of(&self, at: DateTime<Utc>) -> NaiveDate {
        self.trigger.timezone().local(at).date_naive()
    }

    /// The first due time after `after`, with the moment at which it fires; `None` if there is no more. `seed` is the
    /// schedule's: two schedules have different jitters.
    pub fn next_due(&self, seed: u128, after: DateTime<Utc>) -> Option<Next> {
        let mut after = after;
        loop {
            let due_at =
                self.trigger.next_after(after).filter(|at| self.end_at.is_none_or(|end| *at <= end))?;
            let day = self.day_of(due_at);
            if self.days.includes(day) {
                return Some(self.fire_of(seed, due_at));
            }
            if !self.days.goes_on(day) {
                return None;
            }
            after = self.last_of_day(due_at, day);
        }
    }

    /// A moment at or after `due_at` until which no other day begins; an interval keeps its rhythm from there.
    fn last_of_day(&self, due_at: DateTime<Utc>, day: NaiveDate) -> DateTime<Utc> {
        let Some(next_day) = day.succ_opt() else { return due_at };
        let end = self.trigger.timezone().moment(next_day.and_time(NaiveTime::MIN)) - Duration::seconds(1);
        match &self.trigger {
            Trigger::Interval(interval) => {
                let length = i64::from(interval.seconds());
                let n_passed = (end - due_at).num_seconds().div_euclid(length).max(0);
                due_at + Duration::seconds(n_passed * length)
            }
            _ => end.max(due_at),
        }
    }

    /// When this due time fires.
    pub fn fire_of(&self, seed: u128, due_at: DateTime<Utc>) -> Next {
        Next { due_at, fire_at: due_at + self.jitter(seed, due_at) }
    }

    /// The last due time until `until`, if there is one after `after`.
    ///
    /// The search halves the time in between, as a trigger only looks forward.
    pub fn last_until(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let until = self.end_at.map_or(until, |end| until.min(end));
        let next = |after| self.trigger.next_after(after).filter(|at| *at <= until);
        let mut last = next(after)?;
        let mut end = until;
        while let Some(later) = next(last) {
            let middle = later + (end - later) / 2;
            match next(middle) {
                Some(beyond) if beyond <= end => last = beyond,
                _ => {
                    last = later;
                    end = middle;
                }
            }
        }
        Some(last)
    }

    /// From 0 to `jitter_seconds`, in whole milliseconds; always the same for one due time of one schedule.
    fn jitter(&self, seed: u128, due_at: DateTime<Utc>) -> Duration {
        if self.jitter_seconds == 0 {
            return Duration::zero();
        }
        let mut key = [0; 24];
        key[..16].copy_from_slice(&seed.to_be_bytes());
        key[16..].copy_from_slice(&due_at.timestamp().to_be_bytes());
        let digest = Digest::of(&key);
        let drawn =
            digest.as_bytes().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let n_values = u64::from(self.jitter_seconds) * 1000 + 1;
        Duration::milliseconds(i64::try_from(drawn % n_values).unwrap_or_default())
    }
}

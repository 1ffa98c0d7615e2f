//! Recurrence rules of RFC 5545 in a time zone.
//!
//! The crate rrule decides which wall-clock times a rule matches: it counts in UTC, which stands for a clock that is never
//! changed. This module turns them into moments, by the same rules of time zones as everything here.

use std::fmt;

use chrono::{DateTime, Datelike, Days, Duration, Months, NaiveDateTime, NaiveTime, Utc};
use rrule::{Frequency, RRule, RRuleSet, Tz, Unvalidated, Validated};

use crate::Zone;

/// Rules are not searched beyond this year.
const LAST_YEAR: i32 = 2199;

/// A rule that ends after a number of times is counted from its start each time.
pub(crate) const MAX_COUNT: u32 = 10_000;

/// An event of a calendar has few times of a day: each is computed, though only the day counts.
const MAX_TIMES_OF_DAY: usize = 24;

/// No clock was ever moved by more, so times of a rule that are further apart keep their order.
const LARGEST_JUMP: Duration = Duration::hours(25);

/// A rule such as "every second Tuesday", with its first time.
#[derive(Clone)]
pub struct Recurrence {
    written: String,
    rule: RRule<Validated>,
    start: NaiveDateTime,
    timezone: Zone,
}

impl Recurrence {
    /// Parses a rule, `FREQ=WEEKLY;INTERVAL=2;BYDAY=TU` for example. Its times are wall-clock times in `timezone`, the first
    /// one at `start`. `UNTIL` is a moment in UTC if it ends with `Z`, else a wall-clock time too.
    ///
    /// # Errors
    /// What is wrong, in words for the author.
    pub fn parse(rule: &str, start: NaiveDateTime, timezone: Zone) -> Result<Self, String> {
        let written = rule.trim().to_ascii_uppercase();
        let written = written.strip_prefix("RRULE:").unwrap_or(&written).to_owned();
        if written.contains("DTSTART") || written.contains('\n') {
            return Err(
                "must be one rule, such as FREQ=WEEKLY;INTERVAL=2;BYDAY=TU: its first time is `start`"
                    .to_owned(),
            );
        }
        let parsed = read(&written, &timezone)?;
        if !is_daily_or_rarer(&parsed) {
            return Err(
                "must be DAILY, WEEKLY, MONTHLY or YEARLY: use cron or an interval within a day".to_owned()
            );
        }
        if parsed.get_by_second().len() > 1 {
            return Err("may name one second only: use cron within a minute".to_owned());
        }
        if parsed.get_count().is_some_and(|count| count > MAX_COUNT) {
            return Err(format!("may have a COUNT of at most {MAX_COUNT}: use UNTIL"));
        }
        let recurrence = Self::of(written, parsed, start, timezone)?;
        let first = recurrence.times_from(start).next();
        match first {
            Some(first) if first == start => Ok(recurrence),
            Some(first) => Err(format!(
                "does not match `start`: its first time is {}",
                first.format("%Y-%m-%dT%H:%M:%S")
            )),
            None => Err("matches no date that ever occurs".to_owned()),
        }
    }

    /// The rule of an event in a calendar, which need not match the event's start. It has neither `COUNT` nor `UNTIL`, and
    /// names few times of a day.
    pub(crate) fn of_event(rule: String, start: NaiveDateTime, timezone: Zone) -> Result<Self, String> {
        let parsed = read(&rule, &timezone)?;
        let times = [parsed.get_by_hour(), parsed.get_by_minute(), parsed.get_by_second()];
        let n_times: usize = times.iter().map(|times| times.len().max(1)).product();
        if !is_daily_or_rarer(&parsed) || n_times > MAX_TIMES_OF_DAY {
            return Err(format!("must not name more than {MAX_TIMES_OF_DAY} times of a day"));
        }
        Self::of(rule, parsed, start, timezone)
    }

    fn of(
        written: String,
        parsed: RRule<Unvalidated>,
        start: NaiveDateTime,
        timezone: Zone,
    ) -> Result<Self, String> {
        let rule = parsed
            .validate(floating_time(start))
            .map_err(|error| format!("is not a rule of RFC 5545: {error}"))?;
        Ok(Self { written, rule, start, timezone })
    }

    /// The rule as it was written, in capital letters.
    pub fn rule(&self) -> &str {
        &self.written
    }

    /// Its first time, on the clocks of the time zone.
    pub const fn start(&self) -> NaiveDateTime {
        self.start
    }

    /// The time zone of its times.
    pub const fn timezone(&self) -> &Zone {
        &self.timezone
    }

    /// The first due time later than `after`, in UTC; `None` if there are no more until the year 2199. A time that the clocks
    /// skip is due later by as much as they moved, one that they repeat is due the first time, as RFC 5545 has it.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let wall = self.timezone.local(after).naive_local() - LARGEST_JUMP;
        let mut times = self.times_from(wall).map(|time| (time, self.timezone.moment(time)));
        let (first, moment) = times.find(|(_, moment)| *moment > after)?;
        // Of times around a change of the clocks, a later one may be due earlier.
        let others = times.take_while(|(time, _)| *time <= first + LARGEST_JUMP).map(|(_, moment)| moment);
        Some(others.filter(|other| *other > after).fold(moment, DateTime::min))
    }

    /// The rule in English.
    pub fn describe(&self) -> String {
        format!("{} from {} ({})", self.written, self.start.format("%Y-%m-%d %H:%M:%S"), self.timezone)
    }

    /// The times of the rule from this one on until the year 2199, on the clocks of the time zone.
    fn times_from(&self, wall: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> {
        self.endless_from(wall).take_while(|time| time.year() <= LAST_YEAR)
    }

    /// The same in all years. A rule without an end that has no more times never had one.
    pub(crate) fn endless_from(&self, wall: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> {
        let set = RRuleSet::new(floating_time(self.near(wall))).rrule(self.rule.clone()).limit();
        set.into_iter().map(|time| time.naive_utc()).skip_while(move |time| *time < wall)
    }

    /// A start of the same phase not long before `wall`, so that a rule that began years ago is not counted through.
    fn near(&self, wall: NaiveDateTime) -> NaiveDateTime {
        let passed = wall.signed_duration_since(self.start).num_days();
        if self.rule.get_count().is_some() || passed <= 0 {
            return self.start;
        }
        let interval = i64::from(self.rule.get_interval().max(1));
        // One period less, as the start may be in the middle of its own.
        let periods = |days: i64| u32::try_from((passed / (days * interval) - 1).max(0)).unwrap_or_default();
        let length = u32::try_from(interval).unwrap_or(u32::MAX);
        let moved = match self.rule.get_freq() {
            Frequency::Daily => {
                self.start.checked_add_days(Days::new(u64::from(periods(1)) * u64::from(length)))
            }
            Frequency::Weekly => {
                self.start.checked_add_days(Days::new(u64::from(periods(7)) * 7 * u64::from(length)))
            }
            // A month or a year that lacks the day of the start would move it.
            Frequency::Monthly if self.start.day() <= 28 => {
                self.start.checked_add_months(Months::new(periods(31).saturating_mul(length)))
            }
            Frequency::Yearly if self.start.day() <= 28 => self
                .start
                .checked_add_months(Months::new(periods(366).saturating_mul(length).saturating_mul(12))),
            _ => None,
        };
        moved.unwrap_or(self.start)
    }
}

/// Reads a rule, with its `UNTIL` as rrule wants it: in UTC, which stands for the clocks of the time zone.
fn read(rule: &str, timezone: &Zone) -> Result<RRule<Unvalidated>, String> {
    let part = |part: &str| match part.strip_prefix("UNTIL=") {
        Some(until) => {
            let wall = until_on_the_wall(until, timezone)?;
            Ok(format!("UNTIL={}Z", wall.format("%Y%m%dT%H%M%S")))
        }
        None => Ok::<_, String>(part.to_owned()),
    };
    let parts: Result<Vec<String>, String> = rule.split(';').map(part).collect();
    parts?.join(";").parse().map_err(|error| format!("is not a rule of RFC 5545: {error}"))
}

/// The last time that `UNTIL` allows, on the clocks of the time zone.
pub(crate) fn until_on_the_wall(until: &str, timezone: &Zone) -> Result<NaiveDateTime, String> {
    let wrong = || "has an invalid UNTIL: write 20301231, 20301231T235959 or 20301231T225959Z".to_owned();
    match until.strip_suffix('Z') {
        Some(text) => {
            let moment = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S").map_err(|_| wrong())?;
            Ok(timezone.local(moment.and_utc()).naive_local())
        }
        None if until.len() == 8 => {
            let day = chrono::NaiveDate::parse_from_str(until, "%Y%m%d").map_err(|_| wrong())?;
            Ok(day.and_time(NaiveTime::from_hms_opt(23, 59, 59).unwrap_or_default()))
        }
        None => NaiveDateTime::parse_from_str(until, "%Y%m%dT%H%M%S").map_err(|_| wrong()),
    }
}

fn is_daily_or_rarer(rule: &RRule<Unvalidated>) -> bool {
    !matches!(rule.get_freq(), Frequency::Hourly | Frequency::Minutely | Frequency::Secondly)
}

fn floating_time(time: NaiveDateTime) -> DateTime<Tz> {
    time.and_utc().with_timezone(&Tz::UTC)
}

impl PartialEq for Recurrence {
    fn eq(&self, other: &Self) -> bool {
        (&self.written, self.start, &self.timezone) == (&other.written, other.start, &other.timezone)
    }
}

impl Eq for Recurrence {}

impl fmt::Debug for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recurrence({} from {} in {})", self.written, self.start, self.timezone)
    }
}

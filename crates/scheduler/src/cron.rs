//! Cron expressions in a time zone.
//!
//! croner decides which wall clock times an expression names; what a change of the clocks does to them is decided here.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Datelike, Duration, NaiveDate, Timelike, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use croner::time::Weekday;

use crate::zone::{Change, next_change, offset_at, recent_change, wall_clock};
use crate::{Dst, Occurrence};

/// The years in which due times are looked for.
const YEARS: std::ops::Range<i32> = 1..4900;

/// Enough for every minute of an hour written out, twice.
const MAX_LENGTH: usize = 512;

/// An expression with its time zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    expression: String,
    pattern: Arc<croner::Cron>,
    timezone: Tz,
    dst: Dst,
}

impl Cron {
    /// Reads an expression of five fields (minute, hour, day of month, month, day of week), of six with seconds in front,
    /// or an alias such as `@daily`. It is read in `timezone`.
    ///
    /// Without `dst`, an expression that names every hour gets [`Dst::Both`], which keeps its rhythm, and any other
    /// [`Dst::Shift`], which fires once on each day.
    ///
    /// # Errors
    /// What is wrong, in words for its author; also when it names no date that ever comes, such as 30 February.
    pub fn parse(expression: &str, timezone: Tz, dst: Option<Dst>) -> Result<Self, String> {
        let expression = expression.trim();
        let n_fields = expression.split_whitespace().count();
        if !expression.starts_with('@') && !(5..=6).contains(&n_fields) {
            return Err(format!(
                "has {n_fields} fields, but must have 5 (minute, hour, day of month, month, day of week), or 6 with \
                 seconds in front"
            ));
        }
        if expression.len() > MAX_LENGTH {
            return Err(format!("must have at most {MAX_LENGTH} characters"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern = match parser.parse(if expression == "@midnight" { "@daily" } else { expression }) {
            Ok(pattern) => pattern,
            Err(_) if expression.starts_with('@') => {
                return Err(
                    "must be one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly".into(),
                );
            }
            Err(error) => return Err(format!("is no cron expression: {error}")),
        };
        if !names_a_date(&pattern) {
            return Err("names no date that ever comes".to_owned());
        }
        let names_every_hour = (0..24).all(|hour| pattern.pattern.hour_match(hour).unwrap_or(false));
        let dst = dst.unwrap_or(if names_every_hour { Dst::Both } else { Dst::Shift });
        Ok(Self { expression: expression.to_owned(), pattern: Arc::new(pattern), timezone, dst })
    }

    /// The expression as it was written.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone in whose time it is read.
    pub const fn timezone(&self) -> Tz {
        self.timezone
    }

    /// What happens when the clocks are moved.
    pub const fn dst(&self) -> Dst {
        self.dst
    }

    /// The expression in English, with its time zone.
    pub fn describe(&self) -> String {
        let words = self.pattern.describe();
        let words = words.trim_end_matches('.');
        match words.strip_prefix("At every ") {
            Some(rhythm) => format!("Every {rhythm} ({})", self.timezone),
            None => format!("{words} ({})", self.timezone),
        }
    }

    /// The first moment later than `after` at which it fires, in UTC and whole seconds.
    ///
    /// `None` beyond the years 1 to 4900 only: an expression that was accepted names a date at least every 40 years.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut after = after;
        loop {
            match self.next_occurrence(after)? {
                Occurrence::Due(at) => return Some(at),
                Occurrence::LeftOut(at) => after = at,
            }
        }
    }

    /// As [`next_after`](Self::next_after), but also tells of the times that a change of the clocks leaves out.
    pub fn next_occurrence(&self, after: DateTime<Utc>) -> Option<Occurrence> {
        if !YEARS.contains(&after.year()) {
            return None;
        }
        let mut from = after.with_nanosecond(0)? + Duration::seconds(1);
        loop {
            let recent = recent_change(self.timezone, from);
            if let Some(end) = recent.and_then(|change| self.end_of_repetition(change, from)) {
                from = end;
                continue;
            }
            let moved = recent.and_then(|change| self.next_left_out(change, from));
            let offset = offset_at(self.timezone, from);
            let regular = self.next_at_offset(from, offset);
            // Both end this stretch of one offset at the latest; what lies beyond a change is looked for from there.
            let until = match (regular, moved) {
                (Some(at), Some(other)) => at.min(other),
                (at, other) => at.or(other)?,
            };
            if let Some(change) = next_change(self.timezone, from, until) {
                from = change.at;
                continue;
            }
            return Some(match self.dst {
                Dst::Skip if regular != Some(until) => Occurrence::LeftOut(until),
                _ => Occurrence::Due(until),
            });
        }
    }

    /// The first moment from `from` on that it names if the clocks are never moved again.
    fn next_at_offset(&self, from: DateTime<Utc>, offset: Duration) -> Option<DateTime<Utc>> {
        let wall = self.pattern.find_next_occurrence(&wall_clock(from, offset), true).ok()?;
        Some((wall - offset).and_utc())
    }

    /// When the clocks were put back, a while is repeated: its end, if `from` is in it and it does not count.
    fn end_of_repetition(&self, change: Change, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let end = change.at + (change.before - change.after);
        (self.dst != Dst::Both && from < end).then_some(end)
    }

    /// When the clocks were put forward, a while was left out: the next moment of those it named there, as much later
    /// as the clocks were moved. That is the moment at which clocks that were not moved would have shown it.
    fn next_left_out(&self, change: Change, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let end = change.at + (change.after - change.before);
        let at = self.next_at_offset(from, change.before)?;
        (at < end).then_some(at)
    }
}

/// Whether there is a date that the expression names.
///
/// The years are of 14 kinds (leap or not, by the weekday they begin with) and each kind comes at least every 40 years,
/// also across a century that is no leap year.
fn names_a_date(cron: &croner::Cron) -> bool {
    let from = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default();
    from.iter_days().take_while(|day| day.year() <= 2040).any(|day| {
        let weekday = Weekday::from_days_from_sunday(day.weekday().num_days_from_sunday());
        cron.pattern.month_match(day.month()).unwrap_or(false)
            && cron.pattern.day_match(day.year(), day.month(), day.day(), weekday).unwrap_or(false)
    })
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?} in {}, {})", self.expression, self.timezone, self.dst)
    }
}

//! Cron expressions in a time zone.
//!
//! croner decides which wall-clock times an expression matches. This module applies changes of the clocks to them.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use chrono::{DateTime, Datelike, Duration, NaiveDate, NaiveTime, Timelike, Utc};
use croner::parser::{CronParser, Seconds, Year};
use croner::time::Weekday;

use crate::expression::Expression;
use crate::field::YEAR;
use crate::zone::{Change, wall_clock};
use crate::{Dst, Occurrence, Zone};

/// The years that are searched for due times.
const YEARS: std::ops::Range<i32> = 1..4900;

/// Years are of 14 kinds (leap or not, by the weekday on which they begin). Each kind occurs at least every 40 years, even
/// across a century that is not a leap year.
const EVERY_KIND_OF_YEAR: RangeInclusive<i32> = 2000..=2040;

/// More than any clock was ever moved, on both sides of a moment.
const MARGIN: Duration = Duration::days(3);

/// The calendar, and with it each rule for the clocks, repeats after this many years.
const CALENDAR_YEARS: i32 = 400;

/// An expression with its time zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    written: String,
    expression: Expression,
    pattern: Arc<croner::Cron>,
    timezone: Zone,
    dst: Dst,
}

impl Cron {
    /// Parses an expression of five fields (minute, hour, day of month, month, day of week), of six with seconds in
    /// front, of seven with a year (1970 to 2199) at the end, too, or an alias such as `@daily`. The expression applies to wall-clock time in `timezone`.
    ///
    /// Without `dst`, an expression that matches every hour gets [`Dst::Both`], which keeps its rhythm. Any other gets
    /// [`Dst::Shift`], which fires once on each day.
    ///
    /// # Errors
    /// What is wrong, in words for the author. An expression that matches no date, such as 30 February, is an error
    /// too.
    pub fn parse(expression: &str, timezone: Zone, dst: Option<Dst>) -> Result<Self, String> {
        let written = expression.trim().to_owned();
        let expression = Expression::parse(&written)?;
        let pattern = pattern(&expression.fields())?;
        let years = if expression.has_years() { YEAR.values() } else { EVERY_KIND_OF_YEAR };
        if !names_a_date(&pattern, years) {
            return Err("matches no date that ever occurs: write L for the last day of a month".to_owned());
        }
        let names_every_hour = (0..24).all(|hour| pattern.pattern.hour_match(hour).unwrap_or(false));
        let dst = dst.unwrap_or(if names_every_hour { Dst::Both } else { Dst::Shift });
        let cron = Self { written, expression, pattern: Arc::new(pattern), timezone, dst };
        if !cron.ever_fires() {
            return Err(format!(
                "never fires in {}, where the clocks skip it each time: write another time, or set dst to shift",
                cron.timezone
            ));
        }
        Ok(cron)
    }

    /// The expression as its author wrote it. [`to_string`](ToString::to_string) gives the canonical spelling.
    pub fn expression(&self) -> &str {
        &self.written
    }

    /// What a reader may take wrongly, in English: if day of month and day of week are both set, cron fires on the days
    /// that match either.
    pub fn ambiguity(&self) -> Option<String> {
        self.expression.ambiguity()
    }

    /// The time zone of the expression.
    pub const fn timezone(&self) -> &Zone {
        &self.timezone
    }

    /// The policy for changes of the clocks.
    pub const fn dst(&self) -> Dst {
        self.dst
    }

    /// The expression in English, with its time zone.
    pub fn describe(&self) -> String {
        let spelled_out = pattern(&self.expression.spelled_out());
        let mut words = spelled_out.as_ref().unwrap_or(&self.pattern).describe();
        if self.expression.has_last_weekday() {
            words = words.replace("last day of the month", "last weekday of the month");
        }
        let words = words.trim_end_matches('.');
        match words.strip_prefix("At every ") {
            Some(rhythm) => format!("Every {rhythm} ({})", self.timezone),
            None => format!("{words} ({})", self.timezone),
        }
    }

    /// The first due time later than `after`, in UTC and whole seconds.
    ///
    /// `None` after the last year that it names, and beyond the years 1 to 4900. Every field of a valid expression names a
    /// value, and without years it matches a date at least every 40 years. So the search is short.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut after = after;
        loop {
            match self.next_occurrence(after)? {
                Occurrence::Due(at) => return Some(at),
                other => after = other.at(),
            }
        }
    }

    /// As [`next_after`](Self::next_after), but also reports the times that a change of the clocks skips.
    pub fn next_occurrence(&self, after: DateTime<Utc>) -> Option<Occurrence> {
        if !YEARS.contains(&after.year()) {
            return None;
        }
        let mut from = after.with_nanosecond(0)? + Duration::seconds(1);
        loop {
            let recent = self.timezone.recent_change(from);
            if let Some(end) = recent.and_then(|change| self.end_of_repetition(change, from)) {
                from = end;
                continue;
            }
            let moved = recent.and_then(|change| self.next_left_out(change, from));
            let offset = self.timezone.offset_at(from);
            let regular = self.next_at_offset(from, offset);
            // Both end this period of one offset at the latest. The search continues after a change from there.
            let until = match (regular, moved) {
                (Some(at), Some(other)) => at.min(other),
                (at, other) => at.or(other)?,
            };
            if let Some(change) = self.timezone.next_change(from, until) {
                from = self.near_next_match(change.at);
                continue;
            }
            return Some(match self.dst {
                Dst::Skip if regular != Some(until) => Occurrence::LeftOut(until),
                _ => Occurrence::Due(until),
            });
        }
    }

    /// A moment from `from` on before which nothing fires, not long before the next match. A rare expression would
    /// otherwise be searched anew after each change of the clocks.
    fn near_next_match(&self, from: DateTime<Utc>) -> DateTime<Utc> {
        let offset = self.timezone.offset_at(from);
        match self.next_at_offset(from - MARGIN, offset) {
            Some(at) => from.max(at - MARGIN),
            None => from,
        }
    }

    /// Whether it fires at all: with [`Dst::Skip`], the clocks may skip each time that matches, as 02:30 on 31 March
    /// where that is a Sunday.
    fn ever_fires(&self) -> bool {
        let first =
            if self.expression.has_years() { *YEAR.values().start() } else { *EVERY_KIND_OF_YEAR.start() };
        let start =
            NaiveDate::from_ymd_opt(first, 1, 1).unwrap_or_default().and_time(NaiveTime::MIN).and_utc();
        let next = |from| self.next_occurrence(from);
        std::iter::successors(next(start), |occurrence| next(occurrence.at()))
            .take_while(|occurrence| occurrence.at().year() <= start.year() + CALENDAR_YEARS)
            .any(|occurrence| matches!(occurrence, Occurrence::Due(_)))
    }

    /// The first matching moment from `from` on if the clocks never change again.
    fn next_at_offset(&self, from: DateTime<Utc>, offset: Duration) -> Option<DateTime<Utc>> {
        let wall = self.pattern.find_next_occurrence(&wall_clock(from, offset), true).ok()?;
        Some((wall - offset).and_utc())
    }

    /// The end of the repeated period after the clocks were set back, if `from` is in it and it does not count.
    fn end_of_repetition(&self, change: Change, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let end = change.at + (change.before - change.after);
        (self.dst != Dst::Both && from < end).then_some(end)
    }

    /// The next matching moment in the period that was skipped when the clocks were set forward, later by as much as
    /// the clocks moved. At that moment, unchanged clocks would have shown the matching time.
    fn next_left_out(&self, change: Change, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let end = change.at + (change.after - change.before);
        let at = self.next_at_offset(from, change.before)?;
        (at < end).then_some(at)
    }
}

/// The expression for croner, which gets only what [`Expression`] has checked.
fn pattern(fields: &str) -> Result<croner::Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).build();
    parser.parse(fields).map_err(|error| format!("is not a cron expression: {error}"))
}

/// Whether the expression matches any date.
///
/// It is enough to try [`EVERY_KIND_OF_YEAR`], unless it names years itself.
fn names_a_date(cron: &croner::Cron, years: RangeInclusive<i32>) -> bool {
    let from = NaiveDate::from_ymd_opt(*years.start(), 1, 1).unwrap_or_default();
    from.iter_days().take_while(|day| day.year() <= *years.end()).any(|day| {
        let weekday = Weekday::from_days_from_sunday(day.weekday().num_days_from_sunday());
        cron.pattern.year_match(day.year()).unwrap_or(false)
            && cron.pattern.month_match(day.month()).unwrap_or(false)
            && cron.pattern.day_match(day.year(), day.month(), day.day(), weekday).unwrap_or(false)
    })
}

impl fmt::Display for Cron {
    /// The canonical spelling: names in capitals, aliases in small letters, one space between fields.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt(f)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?} in {}, {})", self.written, self.timezone, self.dst)
    }
}

//! The rule by which an event of a calendar repeats.

use chrono::{Datelike as _, NaiveDateTime};

use super::CalendarError;
use super::lines::WrittenProperty;
use crate::Zone;
use crate::recurrence::{MAX_COUNT, Recurrence, until_on_the_wall};

/// A rule may have to be counted through from its start.
const FIRST_YEAR: i32 = 1900;

/// The times of a rule, on the clocks of the event's zone.
///
/// The end of the rule is kept apart: then a rule that has no more times never had one, which takes long to find out.
#[derive(Debug)]
pub(super) struct Repeats {
    line: usize,
    rule: Recurrence,
    /// How many times there are, the start included.
    count: Option<usize>,
    /// No time is after.
    until: Option<NaiveDateTime>,
}

impl Repeats {
    /// Reads a rule of an event that begins at `start` on the clocks of `zone`.
    pub(super) fn read(
        written: &WrittenProperty,
        start: NaiveDateTime,
        zone: Zone,
    ) -> Result<Self, CalendarError> {
        let wrong = |message: String| CalendarError::new(written.line, format!("RRULE {message}"));
        let value = written.value().to_ascii_uppercase();
        let (mut count, mut until, mut rest) = (None, None, Vec::new());
        for part in value.split(';').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("COUNT", number)) => {
                    let number = number.parse().ok().filter(|number| (1..=MAX_COUNT).contains(number));
                    let number = number
                        .ok_or_else(|| wrong(format!("must have a COUNT of 1 to {MAX_COUNT}: use UNTIL")))?;
                    count = usize::try_from(number).ok();
                }
                Some(("UNTIL", end)) => until = Some(until_on_the_wall(end, &zone).map_err(wrong)?),
                _ => rest.push(part),
            }
        }
        if start.year() < FIRST_YEAR {
            return Err(wrong(format!("must not begin before {FIRST_YEAR}")));
        }
        let rule = Recurrence::of_event(rest.join(";"), start, zone).map_err(wrong)?;
        Ok(Self { line: written.line, rule, count, until })
    }

    /// The times of the rule between two, and perhaps earlier ones.
    pub(super) fn between(
        &self,
        from: NaiveDateTime,
        until: NaiveDateTime,
    ) -> Result<impl Iterator<Item = NaiveDateTime>, CalendarError> {
        let start = self.rule.start();
        let last = self.until.map_or(until, |end| end.min(until));
        // What is counted must be counted through.
        let first = if self.count.is_some() { start } else { from.max(start) };
        let mut times = self.rule.endless_from(first).peekable();
        let Some(earliest) = times.peek() else {
            return Err(CalendarError::new(self.line, "RRULE matches no day that ever exists"));
        };
        // The start is the first time, whether or not the rule matches it.
        let n_more = usize::from(*earliest == start);
        let count = self.count.map_or(usize::MAX, |count| count.saturating_sub(1) + n_more);
        Ok(times.take(count).take_while(move |time| *time <= last))
    }
}

//! The days that the events of an iCalendar file (RFC 5545) touch.
//!
//! Owns the way from the text of a file to days: which events count, and how they repeat. Never knows where the file is.
//! Everybody who may write the file may write anything into it, so everything here is bounded.

mod event;
mod lines;
mod repeats;

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use chrono::{Datelike, NaiveDate};

use crate::{Zone, ZoneData};
use event::{Event, Moment};

/// The largest file, in bytes.
pub const MAX_CALENDAR_BYTES: usize = 1024 * 1024;

/// How many years after the present one the days are kept for which an event repeats. With last year's and the present
/// year's, they are fewer than a schedule may list.
const YEARS_AHEAD: i32 = 10;

/// How many rules of repetition a file may have: the times of one may be far apart, and are searched.
const MAX_RULES: usize = 500;

/// How many times of events are computed of one file, and how many days they may touch together.
const MAX_STEPS: usize = 500_000;

/// Why the days of a calendar cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CalendarError {
    /// The line in the file, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl CalendarError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl fmt::Display for CalendarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// The days that the events of a calendar touch on the clocks of `zone`, from the beginning of the year before `today`
/// until the end of the tenth year after it.
///
/// An event with times touches each day on which a part of it is. Times without a time zone are on the clocks of `zone`;
/// the others are by [`ZoneData::current`]. An event that is cancelled touches none.
///
/// # Errors
/// The first line that is wrong. Nothing is guessed: a day that is left out would fire a schedule.
pub fn days_of_calendar(
    text: &[u8],
    zone: &Zone,
    today: NaiveDate,
) -> Result<BTreeSet<NaiveDate>, CalendarError> {
    if text.len() > MAX_CALENDAR_BYTES {
        return Err(CalendarError::new(1, format!("the file has more than {MAX_CALENDAR_BYTES} bytes")));
    }
    // Names of events may be in another encoding; what counts is ASCII.
    let text = String::from_utf8_lossy(text);
    let events: Vec<Event> = lines::read_events(&text)?
        .iter()
        .map(|written| Event::read(written, zone, ZoneData::current()))
        .collect::<Result<_, _>>()?;
    let mut n_rules = 0;
    let mut replaced: HashMap<&str, Vec<&Moment>> = HashMap::new();
    for event in &events {
        n_rules += event.repeats.len();
        if n_rules > MAX_RULES {
            return Err(CalendarError::new(
                event.line,
                format!("the calendar has more than {MAX_RULES} rules"),
            ));
        }
        if let Some(original) = &event.replaces {
            replaced.entry(&event.uid).or_default().push(original);
        }
    }
    let mut days = Touched::new(today);
    for event in events.iter().filter(|event| !event.is_cancelled) {
        let replaced = match event.replaces {
            Some(_) => &[],
            None => replaced.get(&*event.uid).map_or(&[][..], |moments| moments),
        };
        event.touch(zone, replaced, &mut days)?;
    }
    Ok(days.found)
}

/// The days found so far, and the work that was done for them.
struct Touched {
    first: NaiveDate,
    last: NaiveDate,
    found: BTreeSet<NaiveDate>,
    n_steps: usize,
}

impl Touched {
    fn new(today: NaiveDate) -> Self {
        let year = today.year();
        Self {
            first: NaiveDate::from_ymd_opt(year - 1, 1, 1).unwrap_or(NaiveDate::MIN),
            last: NaiveDate::from_ymd_opt(year + YEARS_AHEAD, 12, 31).unwrap_or(NaiveDate::MAX),
            found: BTreeSet::new(),
            n_steps: 0,
        }
    }

    /// Counts a step for the event on this line.
    fn step(&mut self, line: usize) -> Result<(), CalendarError> {
        self.n_steps += 1;
        if self.n_steps > MAX_STEPS {
            return Err(CalendarError::new(line, "the calendar has too many events and repetitions"));
        }
        Ok(())
    }

    /// Adds the days from one to another, both included, for the event on this line.
    fn add(&mut self, from: NaiveDate, until: NaiveDate, line: usize) -> Result<(), CalendarError> {
        let until = until.min(self.last);
        let mut day = from.max(self.first);
        while day <= until {
            self.step(line)?;
            self.found.insert(day);
            let Some(next) = day.succ_opt() else { break };
            day = next;
        }
        Ok(())
    }
}

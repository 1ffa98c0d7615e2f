//! One event of a calendar: when it is, and which days it touches.

use std::collections::HashSet;

use chrono::{Days, Duration, NaiveDate, NaiveDateTime, NaiveTime};
use jiff::{Span, SpanRelativeTo};

use super::lines::{WrittenEvent, WrittenProperty};
use super::repeats::Repeats;
use super::{CalendarError, Touched};
use crate::{Zone, ZoneData};

/// Events are looked for so much before the first day that counts: the clocks of two zones are a day apart at most.
const MARGIN: Duration = Duration::days(2);

/// A day or a time, as a calendar writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Moment {
    /// A whole day, wherever somebody is.
    Day(NaiveDate),
    /// A time on the clocks of a zone.
    Time(NaiveDateTime, Zone),
}

/// How long an event is.
#[derive(Debug, Clone, Copy)]
struct Length {
    /// Days on the clocks.
    days: u64,
    /// What follows them.
    rest: Duration,
}

/// An event, before it is known which of its days count.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) line: usize,
    pub(super) uid: String,
    pub(super) is_cancelled: bool,
    /// The time of another event with this id that it stands for.
    pub(super) replaces: Option<Moment>,
    start: Moment,
    length: Length,
    pub(super) repeats: Vec<Repeats>,
    also: Vec<Moment>,
    left_out: Vec<Moment>,
}

impl Event {
    /// Reads an event. Times without a zone are on the clocks of `zone`.
    pub(super) fn read(written: &WrittenEvent, zone: &Zone, zones: &ZoneData) -> Result<Self, CalendarError> {
        let all = |name: &'static str| written.properties.iter().filter(move |found| found.name == name);
        let one = |name: &'static str| all(name).next();
        let moments = |name: &'static str| {
            let found: Result<Vec<_>, _> =
                all(name).map(|list| Moment::read_all(list, zone, zones)).collect();
            found.map(|lists| lists.concat())
        };
        let start =
            one("DTSTART").ok_or_else(|| CalendarError::new(written.line, "VEVENT has no DTSTART"))?;
        let start = Moment::read(start, zone, zones)?;
        let length = match (one("DTEND"), one("DURATION")) {
            (Some(end), _) => Length::until(end, &start, Moment::read(end, zone, zones)?)?,
            (None, Some(duration)) => Length::read(duration)?,
            (None, None) => Length { days: u64::from(start.is_day()), rest: Duration::zero() },
        };
        if let Some(rule) = one("EXRULE") {
            return Err(CalendarError::new(rule.line, "EXRULE is not understood: write EXDATE"));
        }
        let replaces = match one("RECURRENCE-ID") {
            Some(id) if id.parameter("RANGE").is_some() => {
                return Err(CalendarError::new(id.line, "RECURRENCE-ID with a RANGE is not understood"));
            }
            Some(id) => Some(Moment::read(id, zone, zones)?),
            None => None,
        };
        let repeats = all("RRULE").map(|rule| Repeats::read(rule, start.wall(), start.zone()));
        Ok(Self {
            line: written.line,
            uid: one("UID").map(|uid| uid.value().to_owned()).unwrap_or_default(),
            is_cancelled: one("STATUS")
                .is_some_and(|status| status.value().eq_ignore_ascii_case("CANCELLED")),
            repeats: repeats.collect::<Result<_, _>>()?,
            also: moments("RDATE")?,
            left_out: moments("EXDATE")?,
            replaces,
            length,
            start,
        })
    }

    /// Adds the days that it touches on the clocks of `zone`. It is not where it is `replaced`.
    pub(super) fn touch(
        &self,
        zone: &Zone,
        replaced: &[&Moment],
        days: &mut Touched,
    ) -> Result<(), CalendarError> {
        let (mut left_out, mut days_left_out) = (HashSet::new(), HashSet::new());
        for moment in self.left_out.iter().chain(replaced.iter().copied()) {
            days.step(self.line)?;
            match (moment, &self.start) {
                (Moment::Day(day), _) => drop(days_left_out.insert(*day)),
                (Moment::Time(wall, _), Moment::Day(_)) => drop(days_left_out.insert(wall.date())),
                (moment, Moment::Time(_, own)) => drop(left_out.insert(moment.wall_in(own))),
            }
        }
        let is_left_out =
            |wall: &NaiveDateTime| left_out.contains(wall) || days_left_out.contains(&wall.date());
        let touch = |wall: NaiveDateTime, days: &mut Touched| {
            let (from, until) = self.touched_at(wall, zone);
            days.add(from, until, self.line)
        };
        let others = self.also.iter().map(|also| match &self.start {
            Moment::Day(_) => also.wall().date().and_time(NaiveTime::MIN),
            Moment::Time(_, own) => also.wall_in(own),
        });
        for wall in std::iter::once(self.start.wall()).chain(others) {
            days.step(self.line)?;
            if !is_left_out(&wall) {
                touch(wall, days)?;
            }
        }
        let from = days.first.and_time(NaiveTime::MIN) - MARGIN - self.length.at_most();
        let until = days.last.and_time(NaiveTime::MIN) + MARGIN;
        for repeats in &self.repeats {
            for wall in repeats.between(from, until)? {
                days.step(self.line)?;
                if !is_left_out(&wall) {
                    touch(wall, days)?;
                }
            }
        }
        Ok(())
    }

    /// The first and the last day that it touches if it begins at this time on its own clocks.
    fn touched_at(&self, wall: NaiveDateTime, zone: &Zone) -> (NaiveDate, NaiveDate) {
        let begins = wall.date();
        let end = wall.checked_add_days(Days::new(self.length.days)).unwrap_or(NaiveDateTime::MAX);
        match &self.start {
            // The end is the day after, but some programs write the same day twice.
            Moment::Day(_) => (begins, end.date().pred_opt().unwrap_or(begins).max(begins)),
            Moment::Time(_, own) => {
                let begins = own.moment(wall);
                let end = own.moment(end).checked_add_signed(self.length.rest).unwrap_or(begins);
                // An event is no more at its end.
                let last = (end - Duration::seconds(1)).max(begins);
                (zone.local(begins).date_naive(), zone.local(last).date_naive())
            }
        }
    }
}

impl Moment {
    /// The only moment of a property.
    fn read(written: &WrittenProperty, zone: &Zone, zones: &ZoneData) -> Result<Self, CalendarError> {
        Self::read_value(written, written.value(), zone, zones)
    }

    /// The moments of a property, which are separated by commas.
    fn read_all(
        written: &WrittenProperty,
        zone: &Zone,
        zones: &ZoneData,
    ) -> Result<Vec<Self>, CalendarError> {
        let values = written.value().split(',').filter(|value| !value.trim().is_empty());
        values.map(|value| Self::read_value(written, value.trim(), zone, zones)).collect()
    }

    fn read_value(
        written: &WrittenProperty,
        value: &str,
        zone: &Zone,
        zones: &ZoneData,
    ) -> Result<Self, CalendarError> {
        let wrong = || {
            let message = format!(
                "{} must have a day that exists, such as 20261225, or a time, such as 20261225T080000",
                written.name
            );
            CalendarError::new(written.line, message)
        };
        let (day, time) = value.split_at_checked(8).ok_or_else(wrong)?;
        if !day.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        let day = NaiveDate::parse_from_str(day, "%Y%m%d").map_err(|_| wrong())?;
        if time.is_empty() {
            return Ok(Self::Day(day));
        }
        let (time, is_utc) = time.strip_suffix('Z').map_or((time, false), |time| (time, true));
        let digits = time.strip_prefix('T').filter(|time| time.len() == 6).ok_or_else(wrong)?;
        let time = NaiveTime::parse_from_str(digits, "%H%M%S").map_err(|_| wrong())?;
        let zone = match written.parameter("TZID") {
            _ if is_utc => Zone::UTC,
            None => zone.clone(),
            Some(name) => find_zone(name, zones).ok_or_else(|| {
                let message = format!("the TZID `{}` is not an IANA time zone", shown(name));
                CalendarError::new(written.line, message)
            })?,
        };
        Ok(Self::Time(day.and_time(time), zone))
    }

    const fn is_day(&self) -> bool {
        matches!(self, Self::Day(_))
    }

    /// The time on its own clocks; a day begins at midnight.
    const fn wall(&self) -> NaiveDateTime {
        match self {
            Self::Day(day) => day.and_time(NaiveTime::MIN),
            Self::Time(wall, _) => *wall,
        }
    }

    /// The zone of its clocks.
    fn zone(&self) -> Zone {
        match self {
            Self::Day(_) => Zone::UTC,
            Self::Time(_, zone) => zone.clone(),
        }
    }

    /// The time on the clocks of another zone.
    fn wall_in(&self, zone: &Zone) -> NaiveDateTime {
        match self {
            Self::Time(wall, own) if own != zone => zone.local(own.moment(*wall)).naive_local(),
            _ => self.wall(),
        }
    }
}

impl Length {
    /// From the start until the end, which is after it.
    fn until(written: &WrittenProperty, start: &Moment, end: Moment) -> Result<Self, CalendarError> {
        let wrong = |message: &str| Err(CalendarError::new(written.line, message));
        match (start, &end) {
            (Moment::Day(start), Moment::Day(end)) => match u64::try_from((*end - *start).num_days()) {
                Ok(days) => Ok(Self { days, rest: Duration::zero() }),
                Err(_) => wrong("DTEND is before DTSTART"),
            },
            (Moment::Time(start, from), Moment::Time(end, to)) => {
                let rest = to.moment(*end) - from.moment(*start);
                if rest < Duration::zero() {
                    return wrong("DTEND is before DTSTART");
                }
                Ok(Self { days: 0, rest })
            }
            _ => wrong("DTEND must be a day if DTSTART is one, else a time"),
        }
    }

    fn read(written: &WrittenProperty) -> Result<Self, CalendarError> {
        let wrong = || CalendarError::new(written.line, "DURATION must be such as P1D, P2W or PT1H30M");
        let span: Span = written.value().parse().map_err(|_| wrong())?;
        let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
        let days = u64::try_from(days).map_err(|_| wrong())?;
        let rest =
            span.weeks(0).days(0).to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        let rest = u32::try_from(rest.as_secs()).map_err(|_| wrong())?;
        Ok(Self { days, rest: Duration::seconds(rest.into()) })
    }

    /// A time that is not shorter.
    fn at_most(self) -> Duration {
        const LONGEST: i64 = 366 * 200;
        let days = i64::try_from(self.days).unwrap_or(LONGEST).min(LONGEST);
        Duration::days(days) + self.rest.min(Duration::days(LONGEST))
    }
}

/// The zone of a `TZID`. Some programs write their own name before that of the zone: `/citadel.org/20210210_1/Europe/Berlin`.
fn find_zone(name: &str, zones: &ZoneData) -> Option<Zone> {
    let suffixes = name.match_indices('/').filter_map(|(at, _)| name.get(at + 1..));
    std::iter::once(name).chain(suffixes).find_map(|name| zones.zone(name).ok())
}

/// The beginning of a text that somebody else wrote.
fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(60).collect()
}

//! Triggers, the rules for due times, and their JSON form.

use chrono::{DateTime, Datelike, Duration, NaiveDateTime, SecondsFormat, Timelike, Utc};
use gathering_domain::{Pointer, Problems};
use serde_json::{Map, Value, json};

use crate::{Cron, Dst, Occurrence, Recurrence, Zone, ZoneData};

/// A rule for due times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// The times that a cron expression matches.
    Cron(Cron),
    /// Regular times with the same distance.
    Interval(Interval),
    /// The times of a rule of RFC 5545.
    Rrule(Box<Recurrence>),
    /// A single moment, in UTC.
    Once(DateTime<Utc>),
    /// The moments of events. They are in no calendar: its next due time is never known.
    Event(EventPattern),
}

/// Which events a schedule fires for. What the texts mean is known to who keeps the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPattern {
    /// The types, with patterns, such as `order.*`.
    pub event_type: String,
    /// An expression over the event.
    pub when: Option<String>,
}

/// The distance between two due times: 1 second to 10 years, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interval(u32);

impl Interval {
    /// The longest interval: 10 years of 365 days.
    pub const MAX_SECONDS: u32 = 10 * 365 * 24 * 60 * 60;

    /// An interval in seconds; `None` if it is less than 1 or more than [`MAX_SECONDS`](Self::MAX_SECONDS).
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        u32::try_from(seconds).ok().filter(|seconds| (1..=Self::MAX_SECONDS).contains(seconds)).map(Self)
    }

    /// Its length in seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl Trigger {
    /// Parses a trigger: `{"type": "cron", "expression", "timezone"?, "dst"?}`, `{"type": "interval", "seconds"}`,
    /// `{"type": "rrule", "rule", "start", "timezone"?}`, `{"type": "once", "at"}` or `{"type": "event", "event_type",
    /// "when"?}`. The time zone is UTC by default; its rules are those of [`ZoneData::current`].
    ///
    /// # Errors
    /// Every problem, each with its location below `pointer`.
    pub fn parse(value: &Value, pointer: &Pointer) -> Result<Self, Problems> {
        Self::parse_in(value, pointer, ZoneData::current())
    }

    /// As [`parse`](Self::parse), with the rules of these time zones.
    ///
    /// # Errors
    /// Every problem, each with its location below `pointer`.
    pub fn parse_in(value: &Value, pointer: &Pointer, zones: &ZoneData) -> Result<Self, Problems> {
        let Some(object) = value.as_object() else {
            return Err(Problems::one(pointer.clone(), "must be an object with a `type`"));
        };
        let mut fields = Fields { object, pointer, problems: Problems::new() };
        let trigger = match fields.text("type") {
            Some("cron") => fields.cron(zones),
            Some("interval") => fields.interval(),
            Some("rrule") => fields.rrule(zones),
            Some("once") => fields.once(),
            Some("event") => fields.event(),
            Some(_) => fields.problem("type", "must be one of cron, interval, rrule, once, event"),
            None => None,
        };
        match trigger {
            Some(trigger) if fields.problems.is_empty() => Ok(trigger),
            _ => Err(fields.problems),
        }
    }

    /// The trigger as [`parse`](Self::parse) accepts it, with its defaults written out.
    pub fn to_json(&self) -> Value {
        match self {
            Trigger::Cron(cron) => json!({
                "type": "cron",
                "expression": cron.expression(),
                "timezone": cron.timezone().name(),
                "dst": cron.dst().as_str(),
            }),
            Trigger::Interval(interval) => json!({ "type": "interval", "seconds": interval.seconds() }),
            Trigger::Rrule(rule) => json!({
                "type": "rrule",
                "rule": rule.rule(),
                "start": rule.start().format("%Y-%m-%dT%H:%M:%S").to_string(),
                "timezone": rule.timezone().name(),
            }),
            Trigger::Once(at) => {
                json!({ "type": "once", "at": at.to_rfc3339_opts(SecondsFormat::AutoSi, true) })
            }
            Trigger::Event(EventPattern { event_type, when: None }) => {
                json!({ "type": "event", "event_type": event_type })
            }
            Trigger::Event(EventPattern { event_type, when: Some(when) }) => {
                json!({ "type": "event", "event_type": event_type, "when": when })
            }
        }
    }

    /// The first due time later than `after`, in UTC; `None` if there are no more.
    ///
    /// An interval counts from `after`, without its fraction of a second. If each due time is passed in turn, the
    /// interval keeps its rhythm however late a fire was.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Trigger::Cron(cron) => cron.next_after(after),
            Trigger::Interval(interval) => {
                after.with_nanosecond(0)?.checked_add_signed(Duration::seconds(interval.seconds().into()))
            }
            Trigger::Rrule(rule) => rule.next_after(after),
            Trigger::Once(at) => (*at > after).then_some(*at),
            Trigger::Event(_) => None,
        }
    }

    /// As [`next_after`](Self::next_after), but also reports the times that a change of the clocks skips.
    pub fn next_occurrence(&self, after: DateTime<Utc>) -> Option<Occurrence> {
        match self {
            Trigger::Cron(cron) => cron.next_occurrence(after),
            Trigger::Interval(_) | Trigger::Rrule(_) | Trigger::Once(_) | Trigger::Event(_) => {
                self.next_after(after).map(Occurrence::Due)
            }
        }
    }

    /// The first `n` due times later than `after`, earliest first; fewer if there are no more.
    pub fn next_n(&self, after: DateTime<Utc>, n: usize) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.next_after(after), |previous| self.next_after(*previous)).take(n).collect()
    }

    /// The time zone on whose clocks it has days: UTC, unless it names one.
    pub fn timezone(&self) -> &Zone {
        static UTC: Zone = Zone::UTC;
        match self {
            Trigger::Cron(cron) => cron.timezone(),
            Trigger::Rrule(rule) => rule.timezone(),
            Trigger::Interval(_) | Trigger::Once(_) | Trigger::Event(_) => &UTC,
        }
    }

    /// The events that it fires for, if it fires for events.
    pub const fn events(&self) -> Option<&EventPattern> {
        match self {
            Trigger::Event(events) => Some(events),
            _ => None,
        }
    }

    /// The trigger in English.
    pub fn describe(&self) -> String {
        match self {
            Trigger::Cron(cron) => cron.describe(),
            Trigger::Interval(interval) => {
                let seconds = interval.seconds();
                let (n, unit) = [(86_400, "day"), (3600, "hour"), (60, "minute")]
                    .into_iter()
                    .find(|(length, _)| seconds.is_multiple_of(*length))
                    .map_or((seconds, "second"), |(length, unit)| (seconds / length, unit));
                if n == 1 { format!("Every {unit}") } else { format!("Every {n} {unit}s") }
            }
            Trigger::Rrule(rule) => rule.describe(),
            Trigger::Once(at) => format!("Once, at {}", at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Trigger::Event(EventPattern { event_type, when }) => {
                let when = when.as_ref().map(|when| format!(" when {when}")).unwrap_or_default();
                format!("On each event {event_type}{when}")
            }
        }
    }
}

/// The fields of an object, and the problems found so far.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    pointer: &'a Pointer,
    problems: Problems,
}

impl<'a> Fields<'a> {
    fn problem<T>(&mut self, field: &str, message: impl Into<String>) -> Option<T> {
        self.problems.add(self.pointer.join(field), message);
        None
    }

    fn known(&mut self, known: &[&str]) {
        for field in self.object.keys().filter(|field| !known.contains(&field.as_str())) {
            let message = format!("is not a field of this trigger: it has {}", known.join(", "));
            self.problems.add(self.pointer.join(field), message);
        }
    }

    /// The text of a required field.
    fn text(&mut self, field: &str) -> Option<&'a str> {
        match self.object.get(field) {
            Some(Value::String(text)) => Some(text),
            Some(_) => self.problem(field, "must be a string"),
            None => self.problem(field, "is missing"),
        }
    }

    /// The text of an optional field, which may be null.
    fn optional_text(&mut self, field: &str) -> Option<&'a str> {
        match self.object.get(field) {
            None | Some(Value::Null) => None,
            Some(_) => self.text(field),
        }
    }

    fn timezone(&mut self, zones: &ZoneData) -> Option<Zone> {
        match self.optional_text("timezone").map(|name| zones.zone(name)) {
            None => Some(Zone::UTC),
            Some(Ok(timezone)) => Some(timezone),
            Some(Err(unknown)) => self.problem("timezone", unknown.to_string()),
        }
    }

    fn rrule(&mut self, zones: &ZoneData) -> Option<Trigger> {
        self.known(&["type", "rule", "start", "timezone"]);
        let timezone = self.timezone(zones);
        let start = self.text("start").and_then(|text| {
            let start = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S");
            let is_in_range = |start: &NaiveDateTime| (1970..=2199).contains(&start.year());
            start.ok().filter(is_in_range).or_else(|| {
                self.problem(
                    "start",
                    "must be a time on the clocks of the time zone, such as 2030-01-31T12:00:00",
                )
            })
        });
        let rule = self.text("rule")?;
        match Recurrence::parse(rule, start?, timezone.unwrap_or(Zone::UTC)) {
            Ok(rule) => Some(Trigger::Rrule(Box::new(rule))),
            Err(message) => self.problem("rule", message),
        }
    }

    fn cron(&mut self, zones: &ZoneData) -> Option<Trigger> {
        self.known(&["type", "expression", "timezone", "dst"]);
        let timezone = self.timezone(zones);
        let dst = match self.optional_text("dst").map(str::parse::<Dst>) {
            None => None,
            Some(Ok(dst)) => Some(dst),
            Some(Err(message)) => self.problem("dst", message),
        };
        let expression = self.text("expression")?;
        match Cron::parse(expression, timezone.unwrap_or(Zone::UTC), dst) {
            Ok(cron) => Some(Trigger::Cron(cron)),
            Err(message) => self.problem("expression", message),
        }
    }

    fn interval(&mut self) -> Option<Trigger> {
        self.known(&["type", "seconds"]);
        match self.object.get("seconds") {
            None => self.problem("seconds", "is missing"),
            Some(value) => match whole_number(value).and_then(Interval::from_seconds) {
                Some(interval) => Some(Trigger::Interval(interval)),
                None => {
                    let message = format!("must be a whole number from 1 to {}", Interval::MAX_SECONDS);
                    self.problem("seconds", message)
                }
            },
        }
    }

    fn event(&mut self) -> Option<Trigger> {
        self.known(&["type", "event_type", "when"]);
        let when = self.optional_text("when").map(str::to_owned);
        let event_type = self.text("event_type")?.to_owned();
        Some(Trigger::Event(EventPattern { event_type, when }))
    }

    fn once(&mut self) -> Option<Trigger> {
        self.known(&["type", "at"]);
        match DateTime::parse_from_rfc3339(self.text("at")?) {
            Ok(at) => Some(Trigger::Once(at.to_utc())),
            Err(_) => self.problem("at", "must be an RFC 3339 time, such as 2030-01-31T12:00:00Z"),
        }
    }
}

/// A number without a fraction. JSON has one kind of number, so 60.0 is 60.
fn whole_number(value: &Value) -> Option<u64> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number);
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
}

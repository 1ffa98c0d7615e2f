//! The lines of an iCalendar file, and the events that they make up.
//!
//! Content lines are split by the crate icalendar. Components are followed here, so that problems can name their line, and
//! the work is bounded.

use icalendar::Property;

use super::CalendarError;

/// How many events a calendar may have, cancelled ones included.
const MAX_EVENTS: usize = 10_000;

const NO_CALENDAR: &str = "is not iCalendar, which begins with BEGIN:VCALENDAR";

/// The properties of events that matter; others are not looked at.
const PROPERTIES: [&str; 10] =
    ["UID", "DTSTART", "DTEND", "DURATION", "RRULE", "EXRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "STATUS"];

/// A property with its place.
#[derive(Debug)]
pub(super) struct WrittenProperty {
    /// Where it begins in the file.
    pub(super) line: usize,
    /// Its name, in capital letters.
    pub(super) name: &'static str,
    property: Property,
}

impl WrittenProperty {
    pub(super) fn value(&self) -> &str {
        self.property.value().trim()
    }

    /// A parameter, whose name is in capital letters.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.property.params().values();
        parameters.find(|parameter| parameter.key().eq_ignore_ascii_case(name)).map(|found| found.value())
    }
}

/// An event as it is written.
#[derive(Debug)]
pub(super) struct WrittenEvent {
    /// Where it begins in the file.
    pub(super) line: usize,
    pub(super) properties: Vec<WrittenProperty>,
}

/// The events of all calendars of the file.
pub(super) fn read_events(text: &str) -> Result<Vec<WrittenEvent>, CalendarError> {
    let mut reader = Reader { open: Vec::new(), events: Vec::new() };
    let mut is_empty = true;
    for (number, line) in unfolded(text) {
        is_empty = false;
        let wrong = |message: String| CalendarError::new(number, message);
        let end_of_name = line.find([':', ';']);
        let name = end_of_name.and_then(|end| line.get(..end)).unwrap_or_default();
        match name.trim().to_ascii_uppercase().as_str() {
            "BEGIN" => reader.begin(number, value_of(&line)),
            _ if reader.open.is_empty() => Err(NO_CALENDAR.to_owned()),
            "" => {
                Err("is neither a property, such as DTSTART:20261225, nor a part of the line before"
                    .to_owned())
            }
            "END" => reader.end(&value_of(&line)),
            name => reader.property(number, name, &line),
        }
        .map_err(wrong)?;
    }
    match reader.open.last() {
        Some((begun, component)) => Err(CalendarError::new(*begun, format!("{component} has no END"))),
        None if is_empty => Err(CalendarError::new(1, NO_CALENDAR)),
        None => Ok(reader.events),
    }
}

/// Follows the components of a file.
struct Reader {
    /// Those that have not ended, each with its first line; the innermost is the last.
    open: Vec<(usize, String)>,
    events: Vec<WrittenEvent>,
}

impl Reader {
    fn begin(&mut self, line: usize, component: String) -> Result<(), String> {
        if self.open.is_empty() && component != "VCALENDAR" {
            return Err(NO_CALENDAR.to_owned());
        }
        if component == "VEVENT" && self.open.len() == 1 {
            if self.events.len() == MAX_EVENTS {
                return Err(format!("begins one event more than {MAX_EVENTS}"));
            }
            self.events.push(WrittenEvent { line, properties: Vec::new() });
        }
        self.open.push((line, component));
        Ok(())
    }

    fn end(&mut self, component: &str) -> Result<(), String> {
        match self.open.pop() {
            Some((_, last)) if last == component => Ok(()),
            Some((begun, last)) => {
                Err(format!("ends another component than {last}, which begins in line {begun}"))
            }
            None => Err(NO_CALENDAR.to_owned()),
        }
    }

    fn property(&mut self, line: usize, name: &str, text: &str) -> Result<(), String> {
        let known = PROPERTIES.into_iter().find(|known| *known == name);
        let is_of_event = self.open.len() == 2 && self.open.last().is_some_and(|(_, last)| last == "VEVENT");
        if let (Some(name), true, Some(event)) = (known, is_of_event, self.events.last_mut()) {
            let property = text.parse().map_err(|_| "is not a property of iCalendar".to_owned())?;
            event.properties.push(WrittenProperty { line, name, property });
        }
        Ok(())
    }
}

/// What follows the colon, in capital letters.
fn value_of(line: &str) -> String {
    line.split_once(':').map(|(_, value)| value.trim().to_ascii_uppercase()).unwrap_or_default()
}

/// The lines that say something, each with its number: a line that begins with a blank goes on with the line before.
fn unfolded(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(rest), Some((_, before))) => before.push_str(rest),
            _ if line.trim().is_empty() => {}
            _ => lines.push((number, line.to_owned())),
        }
    }
    lines
}

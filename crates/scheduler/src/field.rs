//! One field of a cron expression: its grammar, and what to write instead of what it refuses.
//!
//! croner takes names in any field, empty items and steps that lead nowhere, and its messages do not name what was
//! written. So the text is checked here first.

use std::fmt;

use crate::Interval;

/// A kind of field.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) noun: &'static str,
    first: u16,
    last: u16,
    /// The full names, the first one for the value `first`. Their first three letters are written.
    names: &'static [&'static str],
    /// The length of one unit in seconds, if it has always the same.
    seconds: Option<u32>,
}

const MONTHS: &[&str] = &[
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
];
const WEEKDAYS: &[&str] = &["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"];

pub(crate) static SECOND: Field = Field { noun: "second", first: 0, last: 59, names: &[], seconds: Some(1) };
pub(crate) static MINUTE: Field = Field { noun: "minute", first: 0, last: 59, names: &[], seconds: Some(60) };
pub(crate) static HOUR: Field = Field { noun: "hour", first: 0, last: 23, names: &[], seconds: Some(3600) };
pub(crate) static DAY: Field =
    Field { noun: "day of month", first: 1, last: 31, names: &[], seconds: Some(86_400) };
pub(crate) static MONTH: Field = Field { noun: "month", first: 1, last: 12, names: MONTHS, seconds: None };
/// Sunday is 0 and 7.
pub(crate) static WEEKDAY: Field =
    Field { noun: "day of week", first: 0, last: 7, names: WEEKDAYS, seconds: None };

/// The years that a schedule may name.
pub(crate) static YEAR: Field = Field { noun: "year", first: 1970, last: 2199, names: &[], seconds: None };

impl Field {
    /// Its values.
    pub(crate) fn values(&self) -> std::ops::RangeInclusive<i32> {
        self.first.into()..=self.last.into()
    }
}

/// A number, and whether it was written as a name.
#[derive(Debug, Clone, Copy)]
struct Value {
    number: u16,
    named: bool,
}

/// What a field matches, with the text in its canonical spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Every value: `*`, or `?` in a day field.
    Every,
    /// Values, a range or a special day.
    Written(String),
    /// Every `step`th value of a range.
    Step {
        /// The canonical spelling.
        written: String,
        /// Whether it fires in an even rhythm: a step that divides the whole field.
        even: bool,
        /// The values.
        values: Vec<u16>,
    },
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Every => f.write_str("*"),
            Item::Written(written) | Item::Step { written, .. } => f.write_str(written),
        }
    }
}

impl Field {
    /// The items of a list.
    ///
    /// # Errors
    /// What is wrong and what to write instead, in words for the author.
    pub(crate) fn parse(&'static self, text: &str) -> Result<Vec<Item>, String> {
        let texts: Vec<&str> = text.split(',').collect();
        if texts.iter().any(|text| text.is_empty()) {
            return Err(format!(
                "{} `{text}` has an empty item: name a value, or leave out a comma",
                self.noun
            ));
        }
        let alone = texts.len() == 1;
        let items: Result<Vec<Item>, String> = texts
            .into_iter()
            .map(|item| {
                self.item(&item.to_ascii_uppercase(), alone)
                    .map_err(|message| format!("{} `{item}` {message}", self.noun))
            })
            .collect();
        let items = items?;
        let has = |special: &str| items.iter().any(|item| item.to_string() == special);
        if has("L") && has("LW") {
            return Err(format!("{} `{text}` has both L and LW: write two schedules", self.noun));
        }
        Ok(items)
    }

    fn item(&'static self, text: &str, alone: bool) -> Result<Item, String> {
        match text {
            "*" | "?" if !alone => return Err("stands for every value: write it alone".to_owned()),
            "*" => return Ok(Item::Every),
            "?" if self.is_day() => return Ok(Item::Every),
            "?" => return Err("is only for the day of month and the day of week: write *".to_owned()),
            _ => {}
        }
        if let Some((range, step)) = text.split_once('/') {
            return self.step(range, step);
        }
        if let Some(special) = self.special(text) {
            return special.map(Item::Written);
        }
        match text.split_once('-') {
            Some((start, end)) => {
                let (start, end) = self.range(start, end)?;
                Ok(Item::Written(self.show_range(start.number, end.number, start.named || end.named)))
            }
            None => Ok(Item::Written(self.show(self.value(text)?))),
        }
    }

    fn is_day(&self) -> bool {
        *self == DAY || *self == WEEKDAY
    }

    /// The days that are counted from the end of the month or in weeks; `None` if the text is none of them.
    fn special(&'static self, text: &str) -> Option<Result<String, String>> {
        if *self == DAY {
            return match text {
                "L" | "LW" => Some(Ok(text.to_owned())),
                "WL" => Some(Err("is not a day: write LW for the last weekday of the month".to_owned())),
                _ if text.starts_with("L-") => Some(Err(
                    "counts from the last day, which is not supported: write a day, or L for the last one"
                        .to_owned(),
                )),
                _ => text.strip_suffix('W').map(|day| {
                    let day = self.value(day).map_err(|_| {
                        "must have one day before the W, such as 15W for the weekday nearest to the 15th"
                            .to_owned()
                    })?;
                    Ok(format!("{}W", self.show(day)))
                }),
            };
        }
        if *self != WEEKDAY {
            return None;
        }
        if text == "L" {
            return Some(Err("must name a day: write FRIL for the last Friday of the month".to_owned()));
        }
        let (day, nth) = text.split_once('#').or_else(|| Some((text.strip_suffix('L')?, "L")))?;
        Some(self.nth(day, nth))
    }

    /// The first to fifth or last such day of a month.
    fn nth(&'static self, day: &str, nth: &str) -> Result<String, String> {
        if day.contains('-') {
            return Err(format!("counts several days: write each one, such as MON#{nth},TUE#{nth}"));
        }
        let day = self.show(self.value(day)?);
        match nth {
            "L" => Ok(format!("{day}L")),
            "1" | "2" | "3" | "4" | "5" => Ok(format!("{day}#{nth}")),
            _ => Err(format!("must have a number from 1 to 5 after the #, or be {day}L for the last one")),
        }
    }

    fn step(&'static self, range: &str, step_text: &str) -> Result<Item, String> {
        let step = match number(step_text) {
            Some(0) => return Err("has the step 0: write 1 or more".to_owned()),
            Some(u16::MAX) => return Err("has a step that is too large".to_owned()),
            Some(step) => step,
            None => return Err("must have one whole number after the /".to_owned()),
        };
        let (start, end, named) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last, false),
            _ if range.is_empty() => return Err(format!("has no range: write */{step}")),
            Some((start, end)) => {
                let wraps = |hint: String| self.wrapped_step(start, end, step).unwrap_or(hint);
                let (start, end) = self.range(start, end).map_err(wraps)?;
                (start.number, end.number, start.named || end.named)
            }
            None => {
                let start = self.value(range)?;
                let last = if *self == WEEKDAY && start.number == 0 { 6 } else { self.last };
                let range = self.show_range(start.number, last, start.named);
                return Err(format!("has a step without a range: write {range}/{step}"));
            }
        };
        let mut values: Vec<u16> =
            (start..=end).step_by(step.into()).map(|value| self.unique(value)).collect();
        values.sort_unstable();
        values.dedup();
        if let ([only], 2..) = (values.as_slice(), step) {
            let only = self.show(Value { number: *only, named });
            let longer = self
                .seconds
                .filter(|_| range == "*")
                .and_then(|unit| Interval::from_seconds(u64::from(unit) * u64::from(step)))
                .map(|interval| {
                    format!(", or a trigger of type interval with {} seconds", interval.seconds())
                });
            return Err(format!("matches only {only}: write {only}{}", longer.unwrap_or_default()));
        }
        let whole = range == "*";
        let written = if whole {
            format!("*/{step}")
        } else {
            format!("{}/{step}", self.show_range(start, end, named))
        };
        let even = whole && !self.is_day() && (self.last - self.first + 1).is_multiple_of(step);
        Ok(Item::Step { written, even, values })
    }

    /// A range whose end is not before its start. Sunday is 7 at the end of a week.
    fn range(&'static self, start_text: &str, end_text: &str) -> Result<(Value, Value), String> {
        let (start, mut end) = (self.value(start_text)?, self.value(end_text)?);
        if *self == WEEKDAY && end.named && end.number == 0 {
            if start.named && start.number == 0 {
                return Err("begins and ends with the same day: write SUN, or * for every day".to_owned());
            }
            end.number = 7;
        }
        if start.number <= end.number {
            return Ok((start, end));
        }
        let named = start.named || end.named;
        let range = |from, to| self.show_range(from, to, named);
        let instead = match (*self == WEEKDAY, start.number, end.number) {
            (true, 7, end) => range(0, end),
            (true, start, 0) => range(start, 7),
            (true, start, end) => format!("{},{}", range(start, 7), range(1, end)),
            (false, start, end) => format!("{},{}", range(start, self.last), range(self.first, end)),
        };
        Err(format!("ends before it begins: write {instead}"))
    }

    /// What to write instead of a step through a range that ends before it begins; `None` if it does not.
    fn wrapped_step(&'static self, start: &str, end: &str, step: u16) -> Option<String> {
        let (start, end) = (self.value(start).ok()?, self.value(end).ok()?);
        if start.number <= end.number {
            return None;
        }
        let named = start.named || end.named;
        let size = if *self == WEEKDAY { 7 } else { self.last - self.first + 1 };
        let (start, end) = (self.unique(start.number), self.unique(end.number));
        let end = if start <= end { end } else { end + size };
        let numbers =
            (start..=end).step_by(step.into()).map(|number| (number - self.first) % size + self.first);
        let values: Vec<String> = numbers.map(|number| self.show(Value { number, named })).collect();
        Some(format!("ends before it begins: write {}", values.join(",")))
    }

    /// The one number of a value that has two.
    fn unique(&self, value: u16) -> u16 {
        if *self == WEEKDAY { value % 7 } else { value }
    }

    fn value(&'static self, text: &str) -> Result<Value, String> {
        if let Some(number) = number(text) {
            return if (self.first..=self.last).contains(&number) {
                Ok(Value { number, named: false })
            } else {
                Err(format!("must be from {} to {}", self.first, self.last))
            };
        }
        if let Some(number) = self.named(text) {
            return Ok(Value { number, named: true });
        }
        let full = self.names.iter().find(|name| text.len() > 3 && name.starts_with(text));
        if let Some(name) = full {
            return Err(format!("has a name with more than three letters: write {}", &name[..3]));
        }
        let other = [&MONTH, &WEEKDAY].into_iter().find(|other| other.named(text).is_some());
        if let Some(other) = other {
            return Err(format!("has the name of a {}: fields are in the order {ORDER}", other.noun));
        }
        let names = self.names.get(1).map(|name| format!(" or a name such as {}", &name[..3]));
        Err(format!(
            "must be a number from {} to {}{}, a range such as {}, a step such as */2, or a list of them",
            self.first,
            self.last,
            names.unwrap_or_default(),
            self.show_range(1, 5, false)
        ))
    }

    /// The value of a name with three letters.
    fn named(&self, text: &str) -> Option<u16> {
        let index = self.names.iter().position(|name| name[..3] == *text)?;
        Some(self.first + u16::try_from(index).ok()?)
    }

    fn show(&self, value: Value) -> String {
        let name = self.names.get(usize::from(self.unique(value.number) - self.first));
        match name.filter(|_| value.named) {
            Some(name) => name[..3].to_owned(),
            None => value.number.to_string(),
        }
    }

    fn show_range(&self, start: u16, end: u16, named: bool) -> String {
        let show = |number| self.show(Value { number, named });
        if start == end { show(start) } else { format!("{}-{}", show(start), show(end)) }
    }
}

/// The order of the fields, for messages.
pub(crate) const ORDER: &str = "minute, hour, day of month, month, day of week";

/// A number in ASCII digits; a very large one is the largest.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u16::MAX))
}

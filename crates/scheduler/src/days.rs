//! Days on which a schedule does not fire.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use gathering_domain::{Pointer, Problems};
use serde_json::{Map, Value, json};

/// More days than two centuries of holidays have.
const MAX_DAYS: usize = 5000;

/// The lists of days that a schedule may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DayList {
    /// The days on which it does not fire.
    Except,
    /// The only days on which it fires.
    Only,
}

impl DayList {
    /// Both.
    pub const ALL: [DayList; 2] = [DayList::Except, DayList::Only];

    /// The name of the field.
    pub const fn as_str(self) -> &'static str {
        match self {
            DayList::Except => "except",
            DayList::Only => "only",
        }
    }
}

/// The days on which a schedule fires, on the clocks of its trigger's time zone: all, unless some are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Days {
    except: BTreeSet<NaiveDate>,
    only: Option<BTreeSet<NaiveDate>>,
}

impl Days {
    /// Parses the fields `except` and `only` of a schedule, each a list of days such as `2026-12-25`, or null.
    ///
    /// # Errors
    /// Every problem, each with its location below `pointer`.
    pub fn parse(fields: &Map<String, Value>, pointer: &Pointer) -> Result<Self, Problems> {
        let days = Self::of_stored(fields, pointer)?;
        match &days.only {
            Some(only) if only.is_empty() => {
                let message = "has no day, so that the schedule never fires";
                Err(Problems::one(pointer.join("only"), message))
            }
            _ => Ok(days),
        }
    }

    /// As [`parse`](Self::parse), also without a day in `only`: the days may come from elsewhere, which has none now.
    ///
    /// # Errors
    /// Every problem, each with its location below `pointer`.
    pub fn of_stored(fields: &Map<String, Value>, pointer: &Pointer) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let except = read(fields.get("except"), &pointer.join("except"), &mut problems);
        let only = read(fields.get("only"), &pointer.join("only"), &mut problems);
        problems.into_result()?;
        Ok(Self { except: except.unwrap_or_default(), only })
    }

    /// The fields as [`parse`](Self::parse) reads them, without those that name no day.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        if !self.except.is_empty() {
            fields.insert("except".to_owned(), json!(self.except));
        }
        if let Some(only) = &self.only {
            fields.insert("only".to_owned(), json!(only));
        }
        Value::Object(fields)
    }

    /// The days of a list; `None` if it is not there.
    pub fn list(&self, which: DayList) -> Option<&BTreeSet<NaiveDate>> {
        match which {
            DayList::Except => Some(&self.except),
            DayList::Only => self.only.as_ref(),
        }
    }

    /// The same with other days in one of the lists.
    #[must_use]
    pub fn with(self, which: DayList, days: BTreeSet<NaiveDate>) -> Self {
        match which {
            DayList::Except => Self { except: days, ..self },
            DayList::Only => Self { only: Some(days), ..self },
        }
    }

    /// Whether the schedule fires on this day.
    pub fn includes(&self, day: NaiveDate) -> bool {
        !self.except.contains(&day) && self.only.as_ref().is_none_or(|only| only.contains(&day))
    }

    /// Whether it fires on this day or on a later one.
    pub(crate) fn goes_on(&self, day: NaiveDate) -> bool {
        self.only.as_ref().is_none_or(|only| only.last().is_some_and(|last| *last >= day))
    }
}

fn read(value: Option<&Value>, at: &Pointer, problems: &mut Problems) -> Option<BTreeSet<NaiveDate>> {
    let days = match value {
        None | Some(Value::Null) => return None,
        Some(Value::Array(days)) if days.len() <= MAX_DAYS => days,
        Some(Value::Array(_)) => {
            problems.add(at.clone(), format!("may have at most {MAX_DAYS} days"));
            return None;
        }
        Some(_) => {
            problems.add(at.clone(), "must be a list of days, such as [\"2026-12-25\"]");
            return None;
        }
    };
    let mut read = BTreeSet::new();
    for (index, day) in days.iter().enumerate() {
        match day.as_str().and_then(|day| NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()) {
            Some(day) => drop(read.insert(day)),
            None => {
                problems.add(at.join(index.to_string()), "must be a day that exists, such as \"2026-12-25\"")
            }
        }
    }
    Some(read)
}

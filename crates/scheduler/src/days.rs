//! Days on which a schedule does not fire.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use gathering_domain::{Pointer, Problems};
use serde_json::{Map, Value, json};

/// More days than two centuries of holidays have.
const MAX_DAYS: usize = 5000;

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
        let mut problems = Problems::new();
        let except = read(fields.get("except"), &pointer.join("except"), &mut problems);
        let only = read(fields.get("only"), &pointer.join("only"), &mut problems);
        if only.as_ref().is_some_and(BTreeSet::is_empty) {
            problems.add(pointer.join("only"), "has no day, so that the schedule never fires");
        }
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

    /// Whether the schedule fires on this day.
    pub fn includes(&self, day: NaiveDate) -> bool {
        !self.except.contains(&day) && self.only.as_ref().is_none_or(|only| only.contains(&day))
    }

    /// Whether it fires on this day or on a later one.
    pub(crate) fn goes_on(&self, day: NaiveDate) -> bool {
        self.only.as_ref().and_then(BTreeSet::last).is_none_or(|last| *last >= day)
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

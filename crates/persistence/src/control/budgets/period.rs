//! What a budget bounds, and for how long.

use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Months, NaiveTime, Utc};

/// Something that calls use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Tokens that models read and write.
    Tokens,
    /// Calls of models.
    ModelCalls,
    /// Calls of tools.
    ToolCalls,
}

impl Resource {
    /// Every resource that is accounted for.
    pub const ALL: [Resource; 3] = [Resource::Tokens, Resource::ModelCalls, Resource::ToolCalls];

    /// The word for it in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Resource::Tokens => "tokens",
            Resource::ModelCalls => "model_calls",
            Resource::ToolCalls => "tool_calls",
        }
    }
}

impl FromStr for Resource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Resource::ALL.into_iter().find(|resource| resource.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is nothing that is accounted for"))
    }
}

/// After what time a budget begins anew, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Never.
    Total,
    /// With each day.
    Day,
    /// With each ISO week, which begins on a Monday.
    Week,
    /// With each month.
    Month,
}

impl Period {
    /// Every period.
    pub const ALL: [Period; 4] = [Period::Total, Period::Day, Period::Week, Period::Month];

    /// The word for it in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Period::Total => "total",
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
        }
    }

    /// When the period that `at` is in began; `None` for the one that has no end.
    pub fn start(self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let day = at.date_naive();
        let first = match self {
            Period::Total => return None,
            Period::Day => Some(day),
            Period::Week => day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))),
            Period::Month => day.with_day(1),
        };
        first.map(|first| first.and_time(NaiveTime::MIN).and_utc())
    }

    /// When the next one begins.
    pub fn end(self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let start = self.start(at)?;
        match self {
            Period::Total => None,
            Period::Day => start.checked_add_days(Days::new(1)),
            Period::Week => start.checked_add_days(Days::new(7)),
            Period::Month => start.checked_add_months(Months::new(1)),
        }
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Period::ALL.into_iter().find(|period| period.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no period"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn periods_begin_at_midnight_in_utc_and_weeks_on_mondays() {
        let now = at("2026-03-01T23:59:59.9Z"); // a Sunday
        for (period, start, end) in [
            (Period::Day, "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
            (Period::Week, "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"),
            (Period::Month, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
        ] {
            assert_eq!((period.start(now), period.end(now)), (Some(at(start)), Some(at(end))), "{period:?}");
            assert_eq!(period.start(at(start)), Some(at(start)), "its first moment is in it");
            assert_eq!(period.start(at(end)), Some(at(end)), "its last is not");
        }
        assert_eq!((Period::Total.start(now), Period::Total.end(now)), (None, None));
    }
}

//! How long a budget lasts.

use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, Months, NaiveTime, Utc};

/// How long a budget lasts before it is reset. All limits are in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// A budget that is never reset.
    Total,
    /// A day.
    Day,
    /// An ISO week, which starts on a Monday.
    Week,
    /// A calendar month.
    Month,
}

impl Period {
    /// Every period.
    pub const ALL: [Period; 4] = [Period::Total, Period::Day, Period::Week, Period::Month];

    /// Its name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Period::Total => "total",
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
        }
    }

    /// The start of the period that contains `at`; `None` for [`Period::Total`].
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

    /// The start of the next period; `None` for [`Period::Total`].
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
        found.ok_or_else(|| format!("unknown budget period `{text}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn periods_start_at_midnight_in_utc_and_weeks_on_mondays() {
        let now = at("2026-03-01T23:59:59.9Z"); // a Sunday
        for (period, start, end) in [
            (Period::Day, "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
            (Period::Week, "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"),
            (Period::Month, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
        ] {
            assert_eq!((period.start(now), period.end(now)), (Some(at(start)), Some(at(end))), "{period:?}");
            assert_eq!(period.start(at(start)), Some(at(start)), "a period includes its start");
            assert_eq!(period.start(at(end)), Some(at(end)), "and excludes its end");
        }
        assert_eq!((Period::Total.start(now), Period::Total.end(now)), (None, None));
    }
}

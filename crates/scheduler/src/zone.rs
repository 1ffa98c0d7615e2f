//! Time zones as sequences of periods with one offset each.

use chrono::{DateTime, Duration, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

/// The distance between two probes for changes: no zone changes twice within a day.
const STRIDE: Duration = Duration::days(1);

/// No clock was ever moved by more (Samoa skipped a whole day in 2011).
const LARGEST_JUMP: Duration = Duration::hours(25);

/// A change of a zone's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The first moment of the new offset.
    pub(crate) at: DateTime<Utc>,
    /// The offset east of UTC before the change.
    pub(crate) before: Duration,
    /// The offset east of UTC after the change.
    pub(crate) after: Duration,
}

/// The zone's offset east of UTC at this moment.
pub(crate) fn offset_at(zone: Tz, at: DateTime<Utc>) -> Duration {
    Duration::seconds(i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()))
}

/// The wall-clock time at this moment with this offset.
pub(crate) fn wall_clock(at: DateTime<Utc>, offset: Duration) -> NaiveDateTime {
    at.naive_utc() + offset
}

/// The first change later than `after`, not later than `until`.
pub(crate) fn next_change(zone: Tz, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<Change> {
    let before = offset_at(zone, after);
    let mut low = after;
    while low < until {
        let high = (low + STRIDE).min(until);
        if offset_at(zone, high) != before {
            return Some(locate(zone, low, high));
        }
        low = high;
    }
    None
}

/// The change whose skipped or repeated period may include this moment.
pub(crate) fn recent_change(zone: Tz, at: DateTime<Utc>) -> Option<Change> {
    let earlier = at - LARGEST_JUMP;
    (offset_at(zone, earlier) != offset_at(zone, at)).then(|| locate(zone, earlier, at))
}

/// Bisects a period that begins before a change and ends at or after it, down to the second.
fn locate(zone: Tz, mut low: DateTime<Utc>, mut high: DateTime<Utc>) -> Change {
    let before = offset_at(zone, low);
    while high - low > Duration::seconds(1) {
        let middle = low + Duration::seconds((high - low).num_seconds() / 2);
        if offset_at(zone, middle) == before { low = middle } else { high = middle }
    }
    Change { at: high, before, after: offset_at(zone, high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_to_the_second() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let (hour, half) = (Duration::hours(1), Duration::minutes(30));
        for (zone, year_start, spring, jump) in [
            (Tz::Europe__Berlin, "2026-01-01T00:00:00Z", "2026-03-29T01:00:00Z", hour),
            (Tz::America__New_York, "2026-01-01T00:00:00Z", "2026-03-08T07:00:00Z", hour),
            (Tz::Australia__Lord_Howe, "2026-07-01T00:00:00Z", "2026-10-03T15:30:00Z", half),
        ] {
            let change = next_change(zone, at(year_start), at("2027-01-01T00:00:00Z")).unwrap();
            assert_eq!(change.at, at(spring), "{zone}");
            assert_eq!(change.after - change.before, jump);
            assert_eq!(recent_change(zone, change.at), Some(change));
            assert_eq!(recent_change(zone, change.at + jump), Some(change));
            assert_eq!(recent_change(zone, change.at - Duration::seconds(1)), None);
            assert_eq!(next_change(zone, change.at, change.at + Duration::days(20)), None);
        }
        assert_eq!(next_change(Tz::UTC, at("2026-01-01T00:00:00Z"), at("2056-01-01T00:00:00Z")), None);
    }
}

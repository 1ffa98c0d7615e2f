//! Time zones as sequences of periods with one offset each.
//!
//! Owns the conversion between chrono's and jiff's types: jiff knows the rules of the zones, all else speaks chrono.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Duration, FixedOffset, NaiveDateTime, Offset, Utc};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::{UnknownZone, ZoneData};

/// No clock was ever moved by more (Samoa skipped a whole day in 2011).
const LARGEST_JUMP: Duration = Duration::hours(25);

/// A time zone of the IANA database, with the rules of the [`ZoneData`] that it comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

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

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Zone = Zone(TimeZone::UTC);

    /// A zone with these rules, which must have a name.
    pub(crate) const fn new(rules: TimeZone) -> Self {
        Self(rules)
    }

    /// The name as the IANA database spells it, such as `Europe/Berlin`.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The wall-clock time at this moment.
    pub fn local(&self, at: DateTime<Utc>) -> DateTime<FixedOffset> {
        let seconds = self.0.to_offset(timestamp(at)).seconds();
        at.with_timezone(&FixedOffset::east_opt(seconds).unwrap_or(Utc.fix()))
    }

    /// The moment at which the clocks show this: later by as much as they moved if they skip it, the first one if they
    /// repeat it.
    pub(crate) fn moment(&self, wall: NaiveDateTime) -> DateTime<Utc> {
        // Both count seconds since 1970 as if the clocks were those of UTC.
        let utc = Timestamp::from_second(wall.and_utc().timestamp()).ok();
        let civil = utc.map(|utc| TimeZone::UTC.to_datetime(utc));
        let at = civil.and_then(|civil| self.0.to_ambiguous_timestamp(civil).compatible().ok());
        at.and_then(moment).unwrap_or_else(|| wall.and_utc())
    }

    /// The offset east of UTC at this moment.
    pub(crate) fn offset_at(&self, at: DateTime<Utc>) -> Duration {
        Duration::seconds(self.0.to_offset(timestamp(at)).seconds().into())
    }

    /// The first change later than `after`, not later than `until`.
    pub(crate) fn next_change(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<Change> {
        self.0
            .following(timestamp(after))
            .map_while(|transition| moment(transition.timestamp()))
            .take_while(|at| *at <= until)
            .find_map(|at| self.change_at(at))
    }

    /// The change whose skipped or repeated period may include this moment.
    pub(crate) fn recent_change(&self, at: DateTime<Utc>) -> Option<Change> {
        let earliest = at - LARGEST_JUMP;
        self.0
            .preceding(timestamp(at + Duration::seconds(1)))
            .map_while(|transition| moment(transition.timestamp()))
            .take_while(|at| *at > earliest)
            .find_map(|at| self.change_at(at))
    }

    /// The change at this transition; `None` if only the abbreviation of the zone changes.
    fn change_at(&self, at: DateTime<Utc>) -> Option<Change> {
        let (before, after) = (self.offset_at(at - Duration::seconds(1)), self.offset_at(at));
        (before != after).then_some(Change { at, before, after })
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    /// Finds a zone in [`ZoneData::current`].
    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        ZoneData::current().zone(name)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

/// The wall-clock time at this moment with this offset.
pub(crate) fn wall_clock(at: DateTime<Utc>, offset: Duration) -> NaiveDateTime {
    at.naive_utc() + offset
}

/// The begin of this second, or the nearest moment that jiff knows: its years end at 9999, those of chrono at 262,142.
///
/// All changes are at whole seconds.
fn timestamp(at: DateTime<Utc>) -> Timestamp {
    let outside = if at.timestamp() < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(at.timestamp()).unwrap_or(outside)
}

fn moment(at: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(at.as_second(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn changes_are_found_to_the_second() {
        let (hour, half) = (Duration::hours(1), Duration::minutes(30));
        let zones = ZoneData::bundled();
        for (zone, year_start, spring, jump) in [
            ("Europe/Berlin", "2026-01-01T00:00:00Z", "2026-03-29T01:00:00Z", hour),
            ("America/New_York", "2026-01-01T00:00:00Z", "2026-03-08T07:00:00Z", hour),
            ("Australia/Lord_Howe", "2026-07-01T00:00:00Z", "2026-10-03T15:30:00Z", half),
        ] {
            let zone = zones.zone(zone).unwrap();
            let change = zone.next_change(at(year_start), at("2027-01-01T00:00:00Z")).unwrap();
            assert_eq!(change.at, at(spring), "{zone}");
            assert_eq!(change.after - change.before, jump);
            assert_eq!(zone.recent_change(change.at), Some(change));
            assert_eq!(zone.recent_change(change.at + jump), Some(change));
            assert_eq!(zone.recent_change(change.at - Duration::nanoseconds(1)), None);
            assert_eq!(zone.recent_change(change.at - Duration::seconds(1)), None);
            assert_eq!(zone.next_change(change.at, change.at + Duration::days(20)), None);
            let second = Duration::seconds(1);
            assert_eq!(zone.next_change(change.at - second, change.at), Some(change));
            assert_eq!(zone.next_change(change.at - second - second, change.at - second), None);
        }
        assert_eq!(Zone::UTC.next_change(at("2026-01-01T00:00:00Z"), at("2056-01-01T00:00:00Z")), None);
    }

    /// The changes of a zone, found by asking for its offset every twelve hours and halving.
    fn probed(zone: &Zone, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut low = from;
        while low < until {
            let end = (low + Duration::hours(12)).min(until);
            let (before, after) = (zone.offset_at(low), zone.offset_at(end));
            if before != after {
                let (mut earlier, mut later) = (low, end);
                while later - earlier > Duration::seconds(1) {
                    let middle = earlier + Duration::seconds((later - earlier).num_seconds() / 2);
                    if zone.offset_at(middle) == before { earlier = middle } else { later = middle }
                }
                changes.push(Change { at: later, before, after });
            }
            low = end;
        }
        changes
    }

    #[test]
    fn the_changes_of_every_zone_are_those_that_a_slow_search_finds() {
        let zones = ZoneData::bundled();
        // The years around the present, and those around the last change that the data lists one by one.
        for (from, until) in [
            ("2025-01-01T00:00:00Z", "2028-01-01T00:00:00Z"),
            ("2036-06-01T00:00:00Z", "2038-06-01T00:00:00Z"),
        ] {
            let (from, until) = (at(from), at(until));
            for zone in zones.zones() {
                let found: Vec<Change> = std::iter::successors(zone.next_change(from, until), |change| {
                    zone.next_change(change.at, until)
                })
                .collect();
                assert_eq!(found, probed(zone, from, until), "{zone}");
                for change in found {
                    let (before, within) =
                        (change.at - Duration::seconds(1), change.at + Duration::hours(24));
                    assert_ne!(zone.recent_change(before), Some(change), "{zone}");
                    assert_eq!(zone.recent_change(within), Some(change), "{zone}");
                }
            }
        }
    }

    #[test]
    fn the_ends_of_time_have_an_offset() {
        let berlin = ZoneData::bundled().zone("Europe/Berlin").unwrap();
        for moment in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
            let _ = berlin.offset_at(moment);
        }
        assert_eq!(
            berlin.offset_at(at("2150-07-01T00:00:00Z")),
            Duration::hours(2),
            "after the listed changes"
        );
    }
}

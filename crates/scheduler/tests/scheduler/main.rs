//! Triggers and their due times.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod calendars;
mod daylight_saving;
mod event_plans;
mod expressions;
mod firing;
mod plans;
mod recurrences;
mod triggers;
mod zones;

use std::sync::LazyLock;

use gathering_scheduler::{Zone, ZoneData};

/// The same rules on every machine.
static ZONES: LazyLock<ZoneData> = LazyLock::new(ZoneData::bundled);

fn zone(name: &str) -> Zone {
    ZONES.zone(name).unwrap()
}

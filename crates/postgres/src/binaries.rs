//! The PostgreSQL programs: their directory and version.
//!
//! Owns the search. A directory counts only if the user that will run the cluster can execute its programs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
#[cfg(feature = "download")]
use crate::download;
use crate::{ClusterError, place};

/// The oldest major version that the schema supports.
const OLDEST: u32 = 15;

/// A directory with `postgres`, `initdb` and their companions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// The directory that holds the programs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The major version, such as 17.
    pub fn major_version(&self) -> u32 {
        self.major
    }

    /// The path of a program, such as `psql`. It may not exist, because distributions package clients separately.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Searches only `given` if it is set, else PATH and the usual directories. Prefers version `wanted`, else the
    /// first on PATH, else the highest.
    pub(crate) fn find(
        given: Option<&Path>,
        wanted: Option<u32>,
        account: &Account,
    ) -> Result<Binaries, NotFound> {
        let places = given.map_or_else(usual_places, |directory| vec![directory.to_path_buf()]);
        let mut usable = None;
        let mut looked = Vec::new();
        for place in places {
            match probe(&place, account) {
                Ok(binaries) if wanted.is_none_or(|wanted| wanted == binaries.major) => return Ok(binaries),
                Ok(binaries) => usable = usable.or(Some(binaries)),
                Err(reason) => looked.push(format!("{}: {reason}", place.display())),
            }
        }
        if let Some(binaries) = usable {
            return Ok(binaries);
        }
        if looked.is_empty() {
            looked.push("searched PATH and the usual directories".to_owned());
        }
        Err(NotFound { looked: looked.join("; ") })
    }
}

/// The search found nothing; lists where it searched.
#[derive(Debug)]
pub(crate) struct NotFound {
    looked: String,
}

impl std::fmt::Display for NotFound {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.looked)
    }
}

impl From<NotFound> for ClusterError {
    fn from(not_found: NotFound) -> ClusterError {
        ClusterError::NoBinaries { looked: not_found.looked }
    }
}

/// The programs for the cluster of `data_dir`: found, or downloaded once if this crate was built with that feature.
pub(crate) fn find_or_download(
    given: Option<&Path>,
    data_dir: &Path,
    account: &Account,
) -> Result<Binaries, ClusterError> {
    let wanted = place::version(data_dir);
    let found = Binaries::find(given, wanted, account);
    match found {
        Ok(binaries) => Ok(binaries),
        #[cfg(feature = "download")]
        Err(not_found) if given.is_none() => download::ensure(data_dir, wanted, account)
            .map_err(|source| ClusterError::Download { looked: not_found.looked, source }),
        Err(not_found) => Err(not_found.into()),
    }
}

fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(path) = std::env::var_os("PATH") {
        for directory in std::env::split_paths(&path) {
            // Often a link into another directory, which has the companions.
            if let Ok(postgres) = fs::canonicalize(directory.join("postgres")) {
                places.extend(postgres.parent().map(Path::to_path_buf));
            }
        }
    }
    places.extend(bindir_of_pg_config());
    places.extend(versioned("/usr/lib/postgresql", OsStr::new("")));
    places.push(PathBuf::from("/usr/local/pgsql/bin"));
    places.extend(versioned("/opt/homebrew/opt", OsStr::new("postgresql")));
    let mut seen = Vec::new();
    for place in places {
        if place.is_dir() && !seen.contains(&place) {
            seen.push(place);
        }
    }
    seen
}

fn bindir_of_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (!text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

/// The `bin` directories below the children of `parent` whose names begin with `prefix`, highest version first.
fn versioned(parent: &str, prefix: &OsStr) -> Vec<PathBuf> {
    let Ok(children) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = children
        .flatten()
        .filter(|child| child.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()))
        .map(|child| (number_in(&child.file_name().to_string_lossy()), child.path().join("bin")))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, bin)| bin).collect()
}

fn number_in(name: &str) -> u32 {
    name.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

/// Whether `directory` has what a cluster needs, executable by `account`; else the reason.
fn probe(directory: &Path, account: &Account) -> Result<Binaries, String> {
    for needed in ["postgres", "initdb"] {
        if !directory.join(needed).is_file() {
            return Err(format!("no {needed}"));
        }
    }
    let postgres = directory.join("postgres");
    let output = account
        .command(&postgres, Path::new("/"))
        .arg("--version")
        .output()
        .map_err(|error| format!("user {} cannot run postgres: {error}", account.name()))?;
    let major =
        major_in(&String::from_utf8_lossy(&output.stdout)).ok_or("postgres --version names no version")?;
    if major < OLDEST {
        return Err(format!("version {major} is older than {OLDEST}"));
    }
    Ok(Binaries { directory: directory.to_path_buf(), major })
}

/// The 17 of `postgres (PostgreSQL) 17.2 (Debian 17.2-1)` and of `postgres (PostgreSQL) 17beta1`.
fn major_in(version: &str) -> Option<u32> {
    let number = version.split(") ").nth(1)?;
    number.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read_from_what_postgres_prints() {
        assert_eq!(major_in("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_in("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_in("nonsense"), None);
    }

    #[test]
    fn a_failed_search_says_what_to_install_or_set() -> Result<(), Box<dyn std::error::Error>> {
        let empty = tempfile::tempdir()?;
        let account = Account::choose(Path::new("/nowhere"))?;
        let error = ClusterError::from(Binaries::find(Some(empty.path()), None, &account).unwrap_err());
        let message = error.to_string();
        assert!(message.contains("apt-get install postgresql"), "{message}");
        assert!(message.contains("DATABASE_URL"), "{message}");
        assert!(message.contains("no postgres"), "{message}");
        Ok(())
    }
}

//! The cluster's log file.
//!
//! Owns `<data dir>/postgres.log`, which this process opens and the postmaster inherits. It keeps two files of bounded
//! size.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::ClusterError;

/// A larger log is renamed at the next start.
const ROTATE_AT_BYTES: u64 = 10 * 1024 * 1024;

/// The part of the log that an error message shows.
const TAIL_BYTES: i64 = 4 * 1024;

/// Opens the log for appending. Renames a large one to `postgres.log.1` first and replaces the previous one.
pub(crate) fn open(path: &Path) -> Result<File, ClusterError> {
    if fs::metadata(path).is_ok_and(|log| log.len() > ROTATE_AT_BYTES) {
        fs::rename(path, path.with_extension("log.1")).map_err(ClusterError::io("rename", path))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(ClusterError::io("open", path))
}

/// The last lines of the log; empty if there is no log.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-length.min(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_over_ten_mebibytes_is_set_aside_and_shorter_ones_are_kept()
    -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("postgres.log");
        fs::write(&path, "short")?;
        open(&path)?;
        assert_eq!(tail(&path), "short");
        File::options().write(true).open(&path)?.set_len(ROTATE_AT_BYTES + 1)?;
        open(&path)?;
        assert_eq!(fs::metadata(&path)?.len(), 0);
        assert_eq!(fs::metadata(directory.path().join("postgres.log.1"))?.len(), ROTATE_AT_BYTES + 1);
        Ok(())
    }
}

//! Temporary clusters for tests.
//!
//! Owns their directories. A name contains the id of the process that created it, so that a later run recognises those
//! that a killed process left.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Cluster, ClusterError, Settings, place, probe};

const PREFIX: &str = "gathering-temporary-";

/// A new data directory that no other process uses.
pub(crate) fn fresh_directory() -> Result<PathBuf, ClusterError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let path = std::env::temp_dir().join(format!("{PREFIX}{}-{count}-{now}", std::process::id()));
    let mode = if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 };
    fs::DirBuilder::new().mode(mode).create(&path).map_err(ClusterError::io("create", &path))?;
    Ok(path)
}

/// Deletes a stopped cluster.
pub(crate) fn remove(data_dir: &Path, cluster_dir: Option<&Path>) {
    for directory in cluster_dir.and_then(place::elsewhere_of).into_iter().chain([data_dir]) {
        if let Err(error) = fs::remove_dir_all(directory) {
            tracing::warn!(error = %error, "cannot delete {}", directory.display());
        }
    }
}

/// Stops and deletes the temporary clusters of dead processes.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for data_dir in entries.flatten().map(|entry| entry.path()).filter(|path| is_left(path)) {
        if let Err(error) = remove_left(&data_dir) {
            // Another process may be sweeping too.
            tracing::debug!(error = %error, "cannot delete the former temporary cluster {}", data_dir.display());
        }
    }
}

fn is_left(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let maker =
        name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse().ok());
    let own = fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw());
    own && maker.is_some_and(|pid: u32| !probe::is_alive(pid))
}

fn remove_left(data_dir: &Path) -> Result<(), ClusterError> {
    let cluster_dir = fs::canonicalize(place::entry(data_dir)).ok();
    if let Some(running) = Cluster::find_running(&Settings::new(data_dir))? {
        running.stop()?;
    }
    remove(data_dir, cluster_dir.as_deref());
    Ok(())
}

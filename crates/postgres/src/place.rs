//! The directories of a cluster.
//!
//! Owns the creation of the data directory and the choice of the cluster's directory. That is `<data dir>/postgres`. If
//! the user that runs the cluster cannot reach it (for example below /root), it is a directory in /var/lib/gathering
//! with `<data dir>/postgres` as a link to it. The link is created before the cluster, so a data directory without a
//! link never has a cluster elsewhere, and deleting the data directory starts afresh.

use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use crate::ClusterError;
use crate::account::Account;

/// The directory for root's clusters whose users cannot reach the data directory.
const ELSEWHERE: &str = "/var/lib/gathering";

/// Creates the data directory if it is missing, and returns its canonical path.
pub(crate) fn ensure_data_dir(data_dir: &Path) -> Result<PathBuf, ClusterError> {
    // Root's cluster belongs to another user, who must be able to pass through but not to list it.
    let mode = if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 };
    if let Some(parent) = data_dir.parent() {
        fs::create_dir_all(parent).map_err(ClusterError::io("create", parent))?;
    }
    match DirBuilder::new().mode(mode).create(data_dir) {
        Err(error) if !data_dir.is_dir() => return Err(ClusterError::io("create", data_dir)(error)),
        _ => {}
    }
    fs::canonicalize(data_dir).map_err(ClusterError::io("resolve", data_dir))
}

/// The path of the cluster, or of the link to it, in a data directory.
pub(crate) fn entry(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres")
}

/// A short name that differs between data directories: 48 bits of the path's digest, in hexadecimal.
pub(crate) fn short_name(data_dir: &Path) -> String {
    blake3::hash(data_dir.as_os_str().as_bytes()).to_hex().chars().take(12).collect()
}

/// The major version of the cluster of `data_dir`, if it exists.
pub(crate) fn version(data_dir: &Path) -> Option<u32> {
    fs::read_to_string(entry(data_dir).join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// The directory of the cluster, which exists or can be created now, and which `account` can reach.
pub(crate) fn settle(data_dir: &Path, account: &Account) -> Result<PathBuf, ClusterError> {
    let entry = entry(data_dir);
    let link = fs::read_link(&entry).ok();
    if let Some(target) = link {
        if !target.exists() && account.is_other() {
            prepare_elsewhere(&target, data_dir)?;
        }
        return Ok(fs::canonicalize(&entry).unwrap_or(target));
    }
    if entry.is_dir() {
        if !account.can_enter(&entry) {
            return Err(ClusterError::Unreachable { cluster_dir: entry, user: account.name().to_owned() });
        }
        return Ok(entry);
    }
    if account.can_enter(data_dir) {
        return Ok(entry);
    }
    let target = free_elsewhere(data_dir);
    prepare_elsewhere(&target, data_dir)?;
    symlink(&target, &entry).map_err(ClusterError::io("create the link", &entry))?;
    tracing::info!(
        cluster.directory = %target.display(),
        "user {} cannot reach {}: keeping the database in {}", account.name(), data_dir.display(), target.display()
    );
    Ok(target)
}

/// The directory for downloaded programs, which `account` can run.
#[cfg(feature = "download")]
pub(crate) fn for_downloads(data_dir: &Path, account: &Account) -> Result<PathBuf, ClusterError> {
    if account.can_enter(data_dir) {
        return Ok(data_dir.to_path_buf());
    }
    let shared = Path::new(ELSEWHERE);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(shared)
        .map_err(ClusterError::io("create", shared))?;
    Ok(shared.to_path_buf())
}

/// The directory that was created for `cluster_dir` outside of `data_dir`, if any.
pub(crate) fn elsewhere_of(cluster_dir: &Path) -> Option<&Path> {
    cluster_dir.parent().filter(|home| home.parent() == Some(Path::new(ELSEWHERE)))
}

fn free_elsewhere(data_dir: &Path) -> PathBuf {
    let name = short_name(data_dir);
    let mut home = Path::new(ELSEWHERE).join(&name);
    let mut number = 2;
    // The cluster of a data directory that was moved or deleted keeps its directory.
    while home.join("postgres").exists() {
        home = Path::new(ELSEWHERE).join(format!("{name}-{number}"));
        number += 1;
    }
    home.join("postgres")
}

fn prepare_elsewhere(target: &Path, data_dir: &Path) -> Result<(), ClusterError> {
    let Some(home) = target.parent() else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(0o755).create(home).map_err(ClusterError::io("create", home))?;
    let note = home.join("data_dir");
    fs::write(&note, data_dir.as_os_str().as_bytes()).map_err(ClusterError::io("write", &note))
}

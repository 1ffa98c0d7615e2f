//! Creates a cluster.
//!
//! `initdb` works in a directory beside the final one, which is then renamed, so the cluster appears atomically.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::account::Account;
use crate::{Binaries, ClusterError, Durability};

/// The superuser of every cluster created here.
pub(crate) const SUPERUSER: &str = "gathering";

/// Creates the cluster in `cluster_dir` if it does not exist. Removes what a killed attempt left beside it.
pub(crate) fn ensure_cluster(
    cluster_dir: &Path,
    account: &Account,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), ClusterError> {
    if cluster_dir.join("PG_VERSION").is_file() {
        return Ok(());
    }
    remove_leftovers(cluster_dir);
    let unfinished = cluster_dir.with_file_name(format!("postgres.new-{}", std::process::id()));
    let made =
        make(&unfinished, account, binaries, durability).and_then(|()| install(&unfinished, cluster_dir));
    if made.is_err() {
        remove(&unfinished);
    }
    made
}

fn make(
    directory: &Path,
    account: &Account,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), ClusterError> {
    DirBuilder::new().mode(0o700).create(directory).map_err(ClusterError::io("create", directory))?;
    account.own_path(directory)?;
    let initdb = binaries.program("initdb");
    let mut command = account.command(&initdb, directory);
    command.arg("-D").arg(directory);
    command.args([
        "-U",
        SUPERUSER,
        "--encoding=UTF8",
        "--locale=C",
        "--auth-local=trust",
        "--auth-host=reject",
    ]);
    command.args(match durability {
        Durability::Durable => ["--data-checksums"],
        Durability::FastForTests => ["--no-sync"],
    });
    tracing::debug!(cluster.directory = %directory.display(), "creating a database cluster");
    let output = command.stdin(Stdio::null()).output().map_err(ClusterError::io("run", &initdb))?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    Err(ClusterError::Initdb {
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&printed).trim().to_owned(),
    })
}

fn install(unfinished: &Path, cluster_dir: &Path) -> Result<(), ClusterError> {
    fs::rename(unfinished, cluster_dir).map_err(ClusterError::io("rename", unfinished))?;
    let Some(parent) = cluster_dir.parent() else { return Ok(()) };
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(ClusterError::io("sync", parent))
}

fn remove_leftovers(cluster_dir: &Path) {
    let Some(entries) = cluster_dir.parent().and_then(|parent| fs::read_dir(parent).ok()) else { return };
    let leftovers: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("postgres.new-"))
        .map(|entry| entry.path())
        .collect();
    for leftover in leftovers {
        remove(&leftover);
    }
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        tracing::warn!(error = %error, "cannot remove the unfinished cluster {}", directory.display());
    }
}

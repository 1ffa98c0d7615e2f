//! The private directory of the Unix socket.
//!
//! Its path is short, because the path of a socket is limited to 107 bytes. It depends only on the data directory, so a
//! URL is valid after every start. Access to the directory is access to the databases: it belongs to the cluster's
//! user, and no other user may enter it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::ClusterError;
use crate::account::Account;
use crate::place;

/// The number in the socket's name. Nothing listens on that TCP port.
pub(crate) const PORT: u16 = 5432;

/// The directory for the socket of the cluster of `data_dir`; it may not exist.
pub(crate) fn directory(data_dir: &Path, account: &Account) -> PathBuf {
    Path::new("/tmp").join(format!("gathering-{}-{}", place::short_name(data_dir), account.uid()))
}

/// The socket inside its directory.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join(format!(".s.PGSQL.{PORT}"))
}

/// Creates the directory, empty. No postmaster uses it any more.
pub(crate) fn prepare(directory: &Path, account: &Account) -> Result<(), ClusterError> {
    remove(directory, account)?;
    // Not recursive: it fails if somebody else created it, or a link, in the meantime.
    DirBuilder::new().mode(0o700).create(directory).map_err(ClusterError::io("create", directory))?;
    account.own_path(directory)
}

/// Removes the directory with its socket if it exists.
pub(crate) fn remove(directory: &Path, account: &Account) -> Result<(), ClusterError> {
    let found = match fs::symlink_metadata(directory) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ClusterError::io("inspect", directory)(error)),
    };
    // In /tmp anybody can create something under this name.
    let refuse = |reason| Err(ClusterError::SocketDirectory { path: directory.to_path_buf(), reason });
    if !found.is_dir() {
        return refuse("it is not a directory");
    }
    if found.uid() != account.uid() && found.uid() != nix::unistd::geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    fs::remove_dir_all(directory).map_err(ClusterError::io("remove", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_or_file_planted_under_the_socket_directory_is_refused() -> Result<(), Box<dyn std::error::Error>>
    {
        let scratch = tempfile::tempdir()?;
        let precious = scratch.path().join("precious");
        fs::create_dir(&precious)?;
        let planted = scratch.path().join("planted");
        std::os::unix::fs::symlink(&precious, &planted)?;
        let account = Account::choose(Path::new("/nowhere"))?;
        let refused = prepare(&planted, &account).unwrap_err();
        assert!(matches!(refused, ClusterError::SocketDirectory { .. }), "{refused}");
        assert!(precious.is_dir());
        Ok(())
    }

    #[test]
    fn the_socket_path_fits_into_its_limit_however_long_the_data_directory() -> Result<(), ClusterError> {
        let long = PathBuf::from(format!("/{}", "x".repeat(4000)));
        let account = Account::choose(Path::new("/nowhere"))?;
        assert!(path(&directory(&long, &account)).as_os_str().len() <= 90);
        Ok(())
    }
}

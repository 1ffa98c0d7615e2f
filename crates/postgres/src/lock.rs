//! The lock of a data directory: one process at a time.
//!
//! Owns `<data dir>/lock`. The kernel releases it when the process ends, in any way.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::ClusterError;

/// Held as long as the value lives.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// Takes the lock of `data_dir` without waiting.
    pub(crate) fn take(data_dir: &Path) -> Result<DirectoryLock, ClusterError> {
        let path = data_dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(ClusterError::io("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number only helps the reader: without it the message still says what to do.
                let read = file.read_to_string(&mut holder).is_ok();
                let holder = holder.trim().parse().ok().filter(|_| read);
                return Err(ClusterError::Locked { data_dir: data_dir.to_path_buf(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(ClusterError::io("lock", &path)(source)),
        }
        file.set_len(0).map_err(ClusterError::io("write the lock file", &path))?;
        writeln!(file, "{}", std::process::id()).map_err(ClusterError::io("write the lock file", &path))?;
        Ok(DirectoryLock { file })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is forking shares the open file until its exec.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(error = %error, "cannot release the lock of a data directory");
        }
    }
}

//! Reads files. An open file keeps its content, whatever happens to its path.

use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use chrono::{DateTime, Utc};
use rustix::fs::OFlags;

use super::version::{Facts, FileVersion};
use super::{WorkspaceError, WorkspacePath};
use crate::pool::BlockingPool;

/// The content of a file and its metadata.
#[derive(Debug, Clone)]
pub struct FileContent {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The version of the content.
    pub version: FileVersion,
    /// The time of the last write, in UTC.
    pub modified_at: DateTime<Utc>,
}

/// A file that is open for reading. Writing, removing or moving it does not change what is read here. The exception is
/// a program outside GatheRing that changes the file in place.
#[derive(Debug)]
pub struct OpenFile {
    /// `None` only once it is dropped.
    file: Option<Arc<std::fs::File>>,
    facts: Facts,
    pool: BlockingPool,
}

impl OpenFile {
    pub(super) fn new(opened: (std::fs::File, Facts), pool: BlockingPool) -> Self {
        Self { file: Some(Arc::new(opened.0)), facts: opened.1, pool }
    }

    /// The version of its content.
    pub fn version(&self) -> FileVersion {
        self.facts.version()
    }

    /// Its size in bytes when it was opened.
    pub const fn size_bytes(&self) -> u64 {
        self.facts.size_bytes
    }

    /// The time of the last write, in UTC.
    pub const fn modified_at(&self) -> DateTime<Utc> {
        self.facts.modified_at()
    }

    /// Reads at most `max_bytes` from `offset`, up to [`OpenFile::size_bytes`]; nothing past the end. Cancel: safe, it
    /// only reads.
    ///
    /// # Errors
    /// [`WorkspaceError::Io`], also if another program has truncated the file in place.
    pub async fn read_at(&self, offset: u64, max_bytes: usize) -> Result<Bytes, WorkspaceError> {
        let rest = self.facts.size_bytes.saturating_sub(offset);
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(max_bytes);
        let Some(file) = self.file.clone().filter(|_| length > 0) else { return Ok(Bytes::new()) };
        let read = self.pool.run(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
        });
        read.await?.map_err(|source| WorkspaceError::Io { doing: "read the file", source })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Closing the last handle of a replaced file frees its blocks, which is slow for a large file.
        if let Some(file) = self.file.take() {
            self.pool.dispose(file);
        }
    }
}

/// Opens an existing file.
pub(super) fn open(root: &Dir, path: &WorkspacePath) -> Result<(std::fs::File, Facts), WorkspaceError> {
    let failed = |source: io::Error| WorkspaceError::from_lookup("read the file", path.as_str(), source);
    let not_a_file = || WorkspaceError::NotAFile { path: path.to_string() };
    // Checked before it is opened, because opening a device may have an effect.
    if !root.metadata(path.as_path()).map_err(failed)?.is_file() {
        return Err(not_a_file());
    }
    let mut options = OpenOptions::new();
    // If it has become a pipe since, opening it does not wait for a writer.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = root.open_with(path.as_path(), &options).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(not_a_file());
    }
    Ok((file.into_std(), Facts::of(&metadata)))
}

/// Reads the whole file if it has at most `max_bytes`.
pub(super) fn read(root: &Dir, path: &WorkspacePath, max_bytes: u64) -> Result<FileContent, WorkspaceError> {
    let too_large = || WorkspaceError::TooLarge { limit_bytes: max_bytes };
    let (file, facts) = open(root, path)?;
    if facts.size_bytes > max_bytes {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| WorkspaceError::from_io("read the file", path.as_str(), source))?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large());
    }
    Ok(FileContent { bytes, version: facts.version(), modified_at: facts.modified_at() })
}

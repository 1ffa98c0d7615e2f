//! The workspace itself: opening it, reading and removing.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata};
use chrono::{DateTime, Utc};

use super::list::{self, Entry, ListOptions, Listing};
use super::write::{self, Precondition, Written};
use super::{WorkspaceError, WorkspacePath};
use crate::pool::BlockingPool;

/// A directory and everything beneath it; nothing else can be reached through it, whatever paths, links or races say.
///
/// Work runs on the blocking pool. Cancel: dropping a future leaves an operation that has begun to end by itself; a
/// write is then either whole or not there. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: Arc<Dir>,
    /// A directory beneath the root that is no part of the workspace.
    closed: Option<Arc<WorkspacePath>>,
    pool: BlockingPool,
}

/// What a file held when it was read.
#[derive(Debug, Clone)]
pub struct FileContent {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Which content this is.
    pub version: FileVersion,
    /// When it was last written, by the file system's clock, in UTC.
    pub modified_at: DateTime<Utc>,
}

/// Names the content of a file: each write makes another. Fit for a strong `ETag` (without its quotes).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileVersion(String);

impl FileVersion {
    /// The version as text: letters, digits and `-`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        // A write replaces the file, so the inode changes; time and size tell when one is used again.
        let modified_ns = modified_at(metadata).timestamp_nanos_opt().unwrap_or_default();
        Self(format!("{:x}-{:x}-{modified_ns:x}", inode(metadata), metadata.len()))
    }
}

impl From<String> for FileVersion {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    cap_std::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> u64 {
    0
}

pub(super) fn modified_at(metadata: &Metadata) -> DateTime<Utc> {
    metadata.modified().map(|time| time.into_std().into()).unwrap_or(DateTime::UNIX_EPOCH)
}

impl Workspace {
    /// The largest file that a workspace takes: 64 MiB.
    pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

    /// Opens `root`, making it and its parents where they are missing. The path is the operator's and is not checked.
    ///
    /// # Errors
    /// [`WorkspaceError::Io`] if it cannot be made or opened.
    pub async fn open(root: impl AsRef<Path>, pool: BlockingPool) -> Result<Self, WorkspaceError> {
        let root = root.as_ref().to_owned();
        let opened = pool.run(move || {
            Dir::create_ambient_dir_all(&root, ambient_authority())?;
            Dir::open_ambient_dir(&root, ambient_authority())
        });
        let root =
            opened.await?.map_err(|source| WorkspaceError::Io { doing: "open the workspace", source })?;
        Ok(Self { root: Arc::new(root), closed: None, pool })
    }

    /// The same workspace without `path` and what is beneath it: whoever names it, or a link to it, is told that it is
    /// outside, and lists leave it out. For what the operator keeps beneath the root and nobody else may read.
    #[must_use]
    pub fn without(self, path: WorkspacePath) -> Self {
        Self { closed: Some(Arc::new(path)), ..self }
    }

    /// The whole file, if it has at most `max_bytes`.
    ///
    /// # Errors
    /// [`WorkspaceError`]: it leads out, is missing, is no file, or is too large.
    pub async fn read(&self, path: &WorkspacePath, max_bytes: u64) -> Result<FileContent, WorkspaceError> {
        self.blocking(path, move |root, path| read(root, path, max_bytes)).await
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// [`WorkspaceError`]: it leads out or is missing.
    pub async fn entry(&self, path: &WorkspacePath) -> Result<Entry, WorkspaceError> {
        self.blocking(path, list::entry).await
    }

    /// What is in the directory `path`, in the order of the names.
    ///
    /// # Errors
    /// [`WorkspaceError`]: it leads out, is missing, or is no directory.
    pub async fn list(&self, path: &WorkspacePath, options: ListOptions) -> Result<Listing, WorkspaceError> {
        let closed = self.closed.clone();
        self.blocking(path, move |root, path| list::list(root, path, &options, closed.as_deref())).await
    }

    /// Makes the file's content `bytes`, atomically and durably: who reads sees the old content or the new, also after
    /// a crash. Missing parents are made. A link at `path` that stays inside is replaced.
    ///
    /// # Errors
    /// [`WorkspaceError`]; the old content stands.
    pub async fn write(&self, path: &WorkspacePath, bytes: Vec<u8>) -> Result<Written, WorkspaceError> {
        self.write_if(path, bytes, Precondition::None).await
    }

    /// As [`Workspace::write`], if the file is as `precondition` says. Two such writes to one directory, also from two
    /// processes on one host, never both see the same state.
    ///
    /// # Errors
    /// [`WorkspaceError::PreconditionFailed`], or as [`Workspace::write`]; the old content stands.
    pub async fn write_if(
        &self,
        path: &WorkspacePath,
        bytes: Vec<u8>,
        precondition: Precondition,
    ) -> Result<Written, WorkspaceError> {
        self.blocking(path, move |root, path| write::write(root, path, &bytes, &precondition)).await
    }

    /// Removes a file, a link (not what it leads to) or an empty directory, durably.
    ///
    /// # Errors
    /// [`WorkspaceError`]; nothing was removed.
    pub async fn remove(&self, path: &WorkspacePath) -> Result<(), WorkspaceError> {
        self.blocking(path, write::remove).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        path: &WorkspacePath,
        work: impl FnOnce(&Dir, &WorkspacePath) -> Result<T, WorkspaceError> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let (root, path, closed) = (Arc::clone(&self.root), path.clone(), self.closed.clone());
        self.pool
            .run(move || {
                if closed.is_some_and(|closed| leads_into(&root, &path, &closed)) {
                    return Err(WorkspaceError::Escape);
                }
                work(&root, &path)
            })
            .await?
    }
}

/// Whether `path` is `closed` or beneath it, by its name or through links. What does not exist yet is judged by its
/// nearest parent that does.
fn leads_into(root: &Dir, path: &WorkspacePath, closed: &WorkspacePath) -> bool {
    if Path::new(path.as_str()).starts_with(closed.as_str()) {
        return true;
    }
    let mut existing = path.clone();
    loop {
        if let Ok(real) = root.canonicalize(existing.as_path()) {
            return real.starts_with(closed.as_str());
        }
        match existing.split() {
            Some((parent, _)) => existing = parent,
            None => return false,
        }
    }
}

fn read(root: &Dir, path: &WorkspacePath, max_bytes: u64) -> Result<FileContent, WorkspaceError> {
    let failed = |source| WorkspaceError::from_io("read the file", path.as_str(), source);
    // Looked at before it is opened, because opening a pipe would wait for its other end.
    if !root.metadata(path.as_path()).map_err(failed)?.is_file() {
        return Err(WorkspaceError::NotAFile { path: path.to_string() });
    }
    let file = root.open(path.as_path()).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(WorkspaceError::NotAFile { path: path.to_string() });
    }
    let too_large = WorkspaceError::TooLarge { limit_bytes: max_bytes };
    if metadata.len() > max_bytes {
        return Err(too_large);
    }
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large);
    }
    Ok(FileContent { bytes, version: FileVersion::of(&metadata), modified_at: modified_at(&metadata) })
}

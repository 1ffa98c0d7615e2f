//! The workspace itself: what can be done with it, each on the blocking pool.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::entries::DirectoryCache;
use super::inside::Inside;
use super::list::{self, Entry, ListOptions, Listing};
use super::open_file::{self, FileContent, OpenFile};
use super::upload::Upload;
use super::write::{self, Precondition, Written};
use super::{WorkspaceError, WorkspacePath};
use crate::pool::BlockingPool;

/// The permissions of a directory that is made here: what a project holds is no other local user's.
pub(super) const PRIVATE_DIRECTORY: u32 = 0o700;

/// A directory and everything beneath it; nothing else can be reached through it, whatever paths, links or races say.
///
/// Work runs on the blocking pool. Cancel: dropping a future leaves an operation that has begun to end by itself; a
/// write is then either whole or not there. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Workspace {
    inside: Inside,
    pool: BlockingPool,
}

impl Workspace {
    /// The largest file that [`Workspace::write`] takes, which has it in memory: 64 MiB.
    pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

    /// Opens `root`, making it and its parents where they are missing. One that is made is its owner's alone; one that is
    /// there keeps the permissions that somebody gave it. The path is the operator's and is not checked.
    ///
    /// # Errors
    /// [`WorkspaceError::Io`] if it cannot be made or opened.
    pub async fn open(root: impl AsRef<Path>, pool: BlockingPool) -> Result<Self, WorkspaceError> {
        let root = root.as_ref().to_owned();
        let opened = pool.run(move || {
            if let Some(above) = root.parent() {
                Dir::create_ambient_dir_all(above, ambient_authority())?;
            }
            make_private(&root)?;
            Dir::open_ambient_dir(&root, ambient_authority())
        });
        let root =
            opened.await?.map_err(|source| WorkspaceError::Io { doing: "open the workspace", source })?;
        Ok(Self { inside: Inside::new(root), pool })
    }

    /// The same workspace without `path` and what is beneath it: whoever names it, or a link to it, is told that it is
    /// outside, and lists leave it out. For what the operator keeps beneath the root and nobody else may read.
    #[must_use]
    pub fn without(self, path: WorkspacePath) -> Self {
        Self { inside: self.inside.without(path), ..self }
    }

    /// The same workspace, which remembers for a moment what its directories held. One cache may serve all workspaces of
    /// a process.
    #[must_use]
    pub fn remembering(self, directories: DirectoryCache) -> Self {
        Self { inside: self.inside.remembering(directories), ..self }
    }

    /// The whole file, if it has at most `max_bytes`.
    ///
    /// # Errors
    /// [`WorkspaceError`]: it leads out, is missing, is no file, or is too large.
    pub async fn read(&self, path: &WorkspacePath, max_bytes: u64) -> Result<FileContent, WorkspaceError> {
        self.blocking(path, move |inside, path| open_file::read(inside.root(), path, max_bytes)).await
    }

    /// Opens a file, to read it piece by piece.
    ///
    /// # Errors
    /// [`WorkspaceError`]: it leads out, is missing, or is no file.
    pub async fn open_file(&self, path: &WorkspacePath) -> Result<OpenFile, WorkspaceError> {
        let opened = self.blocking(path, |inside, path| open_file::open(inside.root(), path)).await?;
        Ok(OpenFile::new(opened, self.pool.clone()))
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
        self.blocking(path, move |inside, path| list::list(inside, path, &options)).await
    }

    /// Begins to write a file of up to `max_bytes` piece by piece, as [`Workspace::write_if`] does at once. The
    /// precondition is looked at now, to refuse early, and decides at the end.
    ///
    /// # Errors
    /// [`WorkspaceError`]; nothing was changed.
    pub async fn begin_write(
        &self,
        path: &WorkspacePath,
        precondition: Precondition,
        max_bytes: u64,
    ) -> Result<Upload, WorkspaceError> {
        Upload::begin(self.inside.clone(), path.clone(), precondition, max_bytes, self.pool.clone()).await
    }

    /// Makes the file's content `bytes`, atomically and durably: who reads sees the old content or the new, also after
    /// a crash. Missing parents are made. A link at `path` that stays inside is replaced.
    ///
    /// # Errors
    /// [`WorkspaceError`]; the old content stands.
    pub async fn write(
        &self,
        path: &WorkspacePath,
        bytes: impl Into<Bytes>,
    ) -> Result<Written, WorkspaceError> {
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
        bytes: impl Into<Bytes>,
        precondition: Precondition,
    ) -> Result<Written, WorkspaceError> {
        let mut upload = self.begin_write(path, precondition, Self::MAX_FILE_BYTES).await?;
        upload.append(bytes.into()).await?;
        upload.commit().await
    }

    /// Removes a file, a link (not what it leads to) or an empty directory, durably.
    ///
    /// # Errors
    /// [`WorkspaceError`]; nothing was removed.
    pub async fn remove(&self, path: &WorkspacePath) -> Result<(), WorkspaceError> {
        self.remove_if(path, Precondition::None).await
    }

    /// As [`Workspace::remove`], if the file is as `precondition` says.
    ///
    /// # Errors
    /// [`WorkspaceError::PreconditionFailed`], or as [`Workspace::remove`]; nothing was removed.
    pub async fn remove_if(
        &self,
        path: &WorkspacePath,
        precondition: Precondition,
    ) -> Result<(), WorkspaceError> {
        self.blocking(path, move |inside, path| write::remove(inside, path, &precondition)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        path: &WorkspacePath,
        work: impl FnOnce(&Inside, &WorkspacePath) -> Result<T, WorkspaceError> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let (inside, path) = (self.inside.clone(), path.clone());
        self.pool
            .run(move || {
                inside.check_open(&path)?;
                work(&inside, &path)
            })
            .await?
    }
}

/// Makes a directory for nobody but its owner, if there is none; its parent is there.
fn make_private(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(PRIVATE_DIRECTORY).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

//! The workspace and its operations, each on the blocking pool.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::entries::DirectoryCache;
use super::inside::Inside;
use super::list::{self, Entry, ListOptions, Listing};
use super::open_file::{self, FileContent, OpenFile};
use super::search::{self, Search, SearchOptions};
use super::upload::Upload;
use super::write::{self, Precondition, Written};
use super::{WorkspaceError, WorkspacePath};
use crate::pool::BlockingPool;

/// The permissions of a new directory: other local users must not read a project's files.
pub(super) const PRIVATE_DIRECTORY: u32 = 0o700;

/// A directory and everything below it. No path, link or race reaches anything else through it.
///
/// Work runs on the blocking pool. Cancel: dropping a future lets a started operation run to its end; a write is then
/// either complete or absent. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Workspace {
    inside: Inside,
    /// Where it is, for programs that run in it. Everything else goes through the capability.
    location: Arc<Path>,
    pool: BlockingPool,
}

impl Workspace {
    /// The largest file that [`Workspace::write`] accepts, because it is in memory: 64 MiB.
    pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

    /// Opens `root` and creates it with its parents if necessary. Only the owner can access a new directory; an
    /// existing one keeps its permissions. The path comes from the operator and is not checked.
    ///
    /// # Errors
    /// [`WorkspaceError::Io`] if it cannot be created or opened.
    pub async fn open(root: impl AsRef<Path>, pool: BlockingPool) -> Result<Self, WorkspaceError> {
        let root = root.as_ref().to_owned();
        let opened = pool.run(move || {
            if let Some(above) = root.parent() {
                Dir::create_ambient_dir_all(above, ambient_authority())?;
            }
            make_private(&root)?;
            let location = fs::canonicalize(&root)?;
            Ok((Dir::open_ambient_dir(&location, ambient_authority())?, location))
        });
        let (root, location) =
            opened.await?.map_err(|source| WorkspaceError::Io { doing: "open the workspace", source })?;
        Ok(Self { inside: Inside::new(root), location: location.into(), pool })
    }

    /// The same workspace without `path` and everything below it. A path or link into it is outside, and lists leave it
    /// out. Use it for data of the operator below the root that no user of the workspace may read.
    #[must_use]
    pub fn without(self, path: WorkspacePath) -> Self {
        Self { inside: self.inside.without(path), ..self }
    }

    /// The same workspace with a cache of directory listings. One cache can serve all workspaces of a process.
    #[must_use]
    pub fn remembering(self, directories: DirectoryCache) -> Self {
        Self { inside: self.inside.remembering(directories), ..self }
    }

    /// Reads the whole file if it has at most `max_bytes`.
    ///
    /// # Errors
    /// [`WorkspaceError`] if the path leaves the workspace, is missing, is not a file, or the file is too large.
    pub async fn read(&self, path: &WorkspacePath, max_bytes: u64) -> Result<FileContent, WorkspaceError> {
        self.blocking(path, move |inside, path| open_file::read(inside.root(), path, max_bytes)).await
    }

    /// Opens a file, to read it in parts.
    ///
    /// # Errors
    /// [`WorkspaceError`] if the path leaves the workspace, is missing, or is not a file.
    pub async fn open_file(&self, path: &WorkspacePath) -> Result<OpenFile, WorkspaceError> {
        let opened = self.blocking(path, |inside, path| open_file::open(inside.root(), path)).await?;
        Ok(OpenFile::new(opened, self.pool.clone()))
    }

    /// The entry at `path`.
    ///
    /// # Errors
    /// [`WorkspaceError`] if the path leaves the workspace or is missing.
    pub async fn entry(&self, path: &WorkspacePath) -> Result<Entry, WorkspaceError> {
        self.blocking(path, list::entry).await
    }

    /// The entries of the directory `path`, ordered by name.
    ///
    /// # Errors
    /// [`WorkspaceError`] if the path leaves the workspace, is missing, or is not a directory.
    pub async fn list(&self, path: &WorkspacePath, options: ListOptions) -> Result<Listing, WorkspaceError> {
        self.blocking(path, move |inside, path| list::list(inside, path, &options)).await
    }

    /// Searches the file `path`, or every file below the directory `path`, for text. It follows no link out of the
    /// workspace. Cancel: a started search runs to its end, 10 seconds at most.
    ///
    /// # Errors
    /// [`WorkspaceError`] if the path leaves the workspace or is missing.
    pub async fn search(
        &self,
        path: &WorkspacePath,
        options: SearchOptions,
    ) -> Result<Search, WorkspaceError> {
        let (inside, path) = (self.inside.clone(), path.clone());
        let searched = self.pool.run_long(move || {
            inside.check_open(&path)?;
            search::search(&inside, &path, &options)
        });
        searched.await?
    }

    /// Where the workspace is, and an open directory in it, to run a program there.
    ///
    /// # Errors
    /// [`WorkspaceError::Escape`] also if a part of the workspace is [closed](Workspace::without): a program is not kept
    /// out of it.
    pub(crate) async fn open_for_program(
        &self,
        path: &WorkspacePath,
    ) -> Result<(Arc<Path>, OwnedFd), WorkspaceError> {
        let opened = self.blocking(path, |inside, path| {
            let failed = |source| WorkspaceError::from_lookup("open the directory", path.as_str(), source);
            let is_directory = inside.root().metadata(path.as_path()).map_err(failed)?.is_dir();
            if inside.has_closed_part() {
                Err(WorkspaceError::Escape)
            } else if is_directory {
                let directory = inside.root().open_dir(path.as_path()).map_err(failed)?;
                Ok(OwnedFd::from(directory.into_std_file()))
            } else {
                Err(WorkspaceError::NotADirectory { path: path.to_string() })
            }
        });
        Ok((Arc::clone(&self.location), opened.await?))
    }

    /// Gives an open file to `work`, which may take seconds.
    pub(crate) async fn read_long<T: Send + 'static>(
        &self,
        path: &WorkspacePath,
        work: impl FnOnce(fs::File) -> T + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let (inside, path) = (self.inside.clone(), path.clone());
        let read = self.pool.run_long(move || {
            inside.check_open(&path)?;
            let (file, _) = open_file::open(inside.root(), &path)?;
            Ok(work(file))
        });
        read.await?
    }

    /// Begins to write a file of at most `max_bytes` in parts. [`Workspace::write_if`] does the same at once. The
    /// precondition is checked now, to fail early, and again at the end, which decides.
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

    /// Sets the file's content to `bytes`, atomically and durably. A reader sees either the old content or the new,
    /// even after a crash. Creates missing parent directories. Replaces a link at `path` that stays inside.
    ///
    /// # Errors
    /// [`WorkspaceError`]; the old content is unchanged.
    pub async fn write(
        &self,
        path: &WorkspacePath,
        bytes: impl Into<Bytes>,
    ) -> Result<Written, WorkspaceError> {
        self.write_if(path, bytes, Precondition::None).await
    }

    /// As [`Workspace::write`], if the precondition holds. Two such writes to one directory, even from two processes on
    /// one host, never both see the same state.
    ///
    /// # Errors
    /// [`WorkspaceError::PreconditionFailed`], or as [`Workspace::write`]; the old content is unchanged.
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

    /// Removes a file, a link (not its target) or an empty directory, durably.
    ///
    /// # Errors
    /// [`WorkspaceError`]; nothing was removed.
    pub async fn remove(&self, path: &WorkspacePath) -> Result<(), WorkspaceError> {
        self.remove_if(path, Precondition::None).await
    }

    /// As [`Workspace::remove`], if the precondition holds.
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

/// Creates a directory that only its owner can access, unless it exists. Its parent must exist.
fn make_private(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(PRIVATE_DIRECTORY).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

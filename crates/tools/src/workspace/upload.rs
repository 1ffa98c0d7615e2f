//! Uploads: a file is written in parts and appears when it is complete.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::inside::Inside;
use super::unfinished::Unfinished;
use super::write::{self, Precondition, Written};
use super::{WorkspaceError, WorkspacePath};
use crate::pool::BlockingPool;

/// A file that is being written and is invisible until [`Upload::commit`]. Dropping it leaves nothing behind. On Linux
/// the end of the process leaves nothing behind either.
#[derive(Debug)]
pub struct Upload {
    inside: Inside,
    path: WorkspacePath,
    precondition: Precondition,
    max_bytes: u64,
    size_bytes: u64,
    /// `false` while a part is being written, and after one failed.
    is_whole: bool,
    /// `None` only once it is committed or dropped.
    unfinished: Option<Arc<Unfinished>>,
    pool: BlockingPool,
}

impl Upload {
    pub(super) async fn begin(
        inside: Inside,
        path: WorkspacePath,
        precondition: Precondition,
        max_bytes: u64,
        pool: BlockingPool,
    ) -> Result<Self, WorkspaceError> {
        let begin = {
            let (inside, path, precondition) = (inside.clone(), path.clone(), precondition.clone());
            move || {
                inside.check_open(&path)?;
                write::begin(&inside, &path, &precondition)
            }
        };
        let unfinished = Some(Arc::new(pool.run(begin).await??));
        Ok(Self { inside, path, precondition, max_bytes, size_bytes: 0, is_whole: true, unfinished, pool })
    }

    /// The bytes written so far.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Appends `bytes`. Cancel: if a part was dropped before it was written, the upload can only be dropped.
    ///
    /// # Errors
    /// [`WorkspaceError::TooLarge`] if the file would exceed its limit, or [`WorkspaceError::Io`]. After an error the
    /// upload can only be dropped.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), WorkspaceError> {
        let unfinished = self.whole()?;
        self.is_whole = false;
        let offset = self.size_bytes;
        let size_bytes = offset.saturating_add(bytes.len() as u64);
        if size_bytes > self.max_bytes {
            return Err(WorkspaceError::TooLarge { limit_bytes: self.max_bytes });
        }
        let written = self.pool.run(move || unfinished.write_at(&bytes, offset)).await?;
        written.map_err(|source| WorkspaceError::from_io("write the file", self.path.as_str(), source))?;
        self.size_bytes = size_bytes;
        self.is_whole = true;
        Ok(())
    }

    /// Makes this the content of its file, atomically and durably, if the precondition holds. Creates missing parent
    /// directories. Replaces a link at the path that stays inside. A replaced file keeps its permissions. Cancel: the
    /// commit then either happened or did not.
    ///
    /// # Errors
    /// [`WorkspaceError`]; the old content is unchanged.
    pub async fn commit(mut self) -> Result<Written, WorkspaceError> {
        let unfinished = self.whole()?;
        self.unfinished = None;
        let (inside, path, precondition) =
            (self.inside.clone(), self.path.clone(), self.precondition.clone());
        let commit = move || {
            inside.check_open(&path)?;
            write::commit(&inside, &path, &unfinished, &precondition)
        };
        self.pool.run(commit).await?
    }

    fn whole(&self) -> Result<Arc<Unfinished>, WorkspaceError> {
        self.unfinished.clone().filter(|_| self.is_whole).ok_or_else(|| WorkspaceError::Io {
            doing: "continue the upload",
            source: io::Error::other("an earlier part could not be written"),
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Freeing the blocks of a large file takes a while.
        if let Some(unfinished) = self.unfinished.take() {
            self.pool.dispose(unfinished);
        }
    }
}

//! Errors of the workspace.

use std::io;

use gathering_domain::FailureKind;

use crate::pool::BlockingWorkPanicked;

/// Too many links. The standard library's kind for it is not stable yet.
const ELOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The path leaves the workspace, or would after decoding. All such errors have the same text, which reveals
    /// nothing about what exists.
    #[error("the path is outside of the workspace")]
    Escape,
    /// The path is inside but is not a valid file name.
    #[error("invalid path: {reason}")]
    InvalidPath {
        /// What is wrong.
        reason: &'static str,
    },
    /// The path does not exist.
    #[error("there is no file or directory `{path}`")]
    NotFound {
        /// The path within the workspace.
        path: String,
    },
    /// The path is not a file.
    #[error("`{path}` is not a file")]
    NotAFile {
        /// The path within the workspace.
        path: String,
    },
    /// The path is not a directory.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The path within the workspace.
        path: String,
    },
    /// Only empty directories can be removed.
    #[error("the directory `{path}` is not empty")]
    NotEmpty {
        /// The path within the workspace.
        path: String,
    },
    /// The content exceeds the limit of the caller or the workspace; nothing was changed.
    #[error("the file is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The precondition of a write does not hold; nothing was changed.
    #[error("`{path}` has changed or is not in the expected state")]
    PreconditionFailed {
        /// The path within the workspace.
        path: String,
    },
    /// The operating system failed. After a failed write, the old content is unchanged.
    #[error("cannot {doing}")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The operation panicked. After a write, the content is either the old or the new.
    #[error("the file operation panicked")]
    Panicked(#[from] BlockingWorkPanicked),
}

impl WorkspaceError {
    /// A short name of the cause, which is the same in all versions.
    pub const fn kind(&self) -> FailureKind {
        match self {
            WorkspaceError::Escape => FailureKind::Forbidden,
            WorkspaceError::InvalidPath { .. } => FailureKind::InvalidPath,
            WorkspaceError::NotFound { .. } => FailureKind::NotFound,
            WorkspaceError::NotAFile { .. } | WorkspaceError::NotADirectory { .. } => FailureKind::WrongKind,
            WorkspaceError::NotEmpty { .. } => FailureKind::NotEmpty,
            WorkspaceError::TooLarge { .. } => FailureKind::TooLarge,
            WorkspaceError::PreconditionFailed { .. } => FailureKind::PreconditionFailed,
            WorkspaceError::Io { .. } => FailureKind::Io,
            WorkspaceError::Panicked(_) => FailureKind::Panicked,
        }
    }

    /// Whether files may have changed nevertheless.
    pub const fn may_have_taken_place(&self) -> bool {
        matches!(self, WorkspaceError::Io { .. } | WorkspaceError::Panicked(_))
    }

    /// Whether the same operation may succeed later without a change of the files.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, WorkspaceError::Io { .. })
    }

    /// As [`WorkspaceError::from_io`], for an entry that should exist: nothing exists below a file.
    pub(super) fn from_lookup(doing: &'static str, path: &str, source: io::Error) -> Self {
        match Self::from_io(doing, path, source) {
            WorkspaceError::NotADirectory { path } => WorkspaceError::NotFound { path },
            other => other,
        }
    }

    /// The error for the operating system's answer about `path`.
    pub(super) fn from_io(doing: &'static str, path: &str, source: io::Error) -> Self {
        let path = || path.to_owned();
        match source.kind() {
            // cap-std reports "outside" with its own error; the system's refusals carry an errno.
            io::ErrorKind::PermissionDenied if source.raw_os_error().is_none() => WorkspaceError::Escape,
            // A circle of links leads nowhere inside.
            _ if source.raw_os_error() == Some(ELOOP) => WorkspaceError::Escape,
            io::ErrorKind::NotFound => WorkspaceError::NotFound { path: path() },
            io::ErrorKind::NotADirectory => WorkspaceError::NotADirectory { path: path() },
            io::ErrorKind::IsADirectory => WorkspaceError::NotAFile { path: path() },
            io::ErrorKind::DirectoryNotEmpty => WorkspaceError::NotEmpty { path: path() },
            _ => WorkspaceError::Io { doing, source },
        }
    }
}

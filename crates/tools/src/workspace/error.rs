//! How the workspace refuses and fails.

use std::io;

use crate::pool::BlockingWorkPanicked;

/// Too many links; the standard library's kind for it is not stable yet.
const ELOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };

/// Why a file operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The path leads out of the workspace, or would once decoded. The words are the same for all of them and say
    /// nothing of what is there.
    #[error("the path is outside of the workspace")]
    Escape,
    /// The path is inside, but no name for a file.
    #[error("the path cannot be used: {reason}")]
    InvalidPath {
        /// What would be right.
        reason: &'static str,
    },
    /// Nothing has this path.
    #[error("there is no file or directory `{path}`")]
    NotFound {
        /// The path within the workspace.
        path: String,
    },
    /// A file is needed.
    #[error("`{path}` is not a file")]
    NotAFile {
        /// The path within the workspace.
        path: String,
    },
    /// A directory is needed.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The path within the workspace.
        path: String,
    },
    /// Only empty directories are removed.
    #[error("the directory `{path}` is not empty")]
    NotEmpty {
        /// The path within the workspace.
        path: String,
    },
    /// The content is larger than the caller takes or the workspace holds; nothing was changed.
    #[error("the file is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The file is not in the state that a conditional write asks for; nothing was changed.
    #[error("`{path}` has been changed or is not in the expected state")]
    PreconditionFailed {
        /// The path within the workspace.
        path: String,
    },
    /// The operating system refused or failed; a write has left the old content.
    #[error("cannot {doing}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The operation panicked; a write has left either the old content or the new.
    #[error("the file operation ended abnormally")]
    Panicked(#[from] BlockingWorkPanicked),
}

impl WorkspaceError {
    /// A short word for the cause that does not change between versions.
    pub const fn kind(&self) -> &'static str {
        match self {
            WorkspaceError::Escape => "forbidden",
            WorkspaceError::InvalidPath { .. } => "invalid_path",
            WorkspaceError::NotFound { .. } => "not_found",
            WorkspaceError::NotAFile { .. } | WorkspaceError::NotADirectory { .. } => "wrong_kind",
            WorkspaceError::NotEmpty { .. } => "not_empty",
            WorkspaceError::TooLarge { .. } => "too_large",
            WorkspaceError::PreconditionFailed { .. } => "precondition_failed",
            WorkspaceError::Io { .. } => "io",
            WorkspaceError::Panicked(_) => "panicked",
        }
    }

    /// Whether the same operation may succeed later without anybody changing the files.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, WorkspaceError::Io { .. })
    }

    /// As [`WorkspaceError::from_io`], of something that should be there: what is beneath a file is not.
    pub(super) fn from_lookup(doing: &'static str, path: &str, source: io::Error) -> Self {
        match Self::from_io(doing, path, source) {
            WorkspaceError::NotADirectory { path } => WorkspaceError::NotFound { path },
            other => other,
        }
    }

    /// The error for what the operating system said about `path`.
    pub(super) fn from_io(doing: &'static str, path: &str, source: io::Error) -> Self {
        let path = || path.to_owned();
        match source.kind() {
            // cap-std says "outside" with an error of its own; the system's refusals carry an errno.
            io::ErrorKind::PermissionDenied if source.raw_os_error().is_none() => WorkspaceError::Escape,
            // A link that leads in circles leads nowhere inside.
            _ if source.raw_os_error() == Some(ELOOP) => WorkspaceError::Escape,
            io::ErrorKind::NotFound => WorkspaceError::NotFound { path: path() },
            io::ErrorKind::NotADirectory => WorkspaceError::NotADirectory { path: path() },
            io::ErrorKind::IsADirectory => WorkspaceError::NotAFile { path: path() },
            io::ErrorKind::DirectoryNotEmpty => WorkspaceError::NotEmpty { path: path() },
            _ => WorkspaceError::Io { doing, source },
        }
    }
}

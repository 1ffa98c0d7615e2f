//! The context of every operation: the capability, the closed part of the workspace, and the cached directories.

use std::path::Path;
use std::sync::Arc;

use cap_std::fs::Dir;

use super::entries::DirectoryCache;
use super::{WorkspaceError, WorkspacePath};

#[derive(Debug, Clone)]
pub(super) struct Inside {
    root: Arc<Dir>,
    /// A directory below the root that is not part of the workspace.
    closed: Option<Arc<WorkspacePath>>,
    directories: Option<DirectoryCache>,
}

impl Inside {
    pub(super) fn new(root: Dir) -> Self {
        Self { root: Arc::new(root), closed: None, directories: None }
    }

    pub(super) fn without(self, path: WorkspacePath) -> Self {
        Self { closed: Some(Arc::new(path)), ..self }
    }

    pub(super) fn remembering(self, directories: DirectoryCache) -> Self {
        Self { directories: Some(directories), ..self }
    }

    pub(super) fn root(&self) -> &Dir {
        &self.root
    }

    pub(super) fn directories(&self) -> Option<&DirectoryCache> {
        self.directories.as_ref()
    }

    /// Whether a part of the workspace is closed.
    pub(super) const fn has_closed_part(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether the path is the root of the closed part.
    pub(super) fn is_closed(&self, path: &WorkspacePath) -> bool {
        self.closed.as_deref() == Some(path)
    }

    /// Rejects a path that leads into the closed part, by its name or through links. A path that does not exist yet is
    /// judged by its nearest existing parent.
    pub(super) fn check_open(&self, path: &WorkspacePath) -> Result<(), WorkspaceError> {
        let Some(closed) = &self.closed else { return Ok(()) };
        if self.leads_into(closed, path) { Err(WorkspaceError::Escape) } else { Ok(()) }
    }

    fn leads_into(&self, closed: &WorkspacePath, path: &WorkspacePath) -> bool {
        if Path::new(path.as_str()).starts_with(closed.as_str()) {
            return true;
        }
        let mut existing = path.clone();
        loop {
            if let Ok(real) = self.root.canonicalize(existing.as_path()) {
                return real.starts_with(closed.as_str());
            }
            match existing.split() {
                Some((parent, _)) => existing = parent,
                None => return false,
            }
        }
    }

    /// A directory has just changed. Its listing is read again even if its timestamps do not show it.
    pub(super) fn forget_directory(&self, directory: &Dir) {
        if let Some(directories) = &self.directories {
            directories.forget(directory);
        }
    }
}

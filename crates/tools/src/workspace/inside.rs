//! What every operation works within: the capability, the part of it that is closed, the directories that are
//! remembered.

use std::path::Path;
use std::sync::Arc;

use cap_std::fs::Dir;

use super::entries::DirectoryCache;
use super::{WorkspaceError, WorkspacePath};

#[derive(Debug, Clone)]
pub(super) struct Inside {
    root: Arc<Dir>,
    /// A directory beneath the root that is no part of the workspace.
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

    /// Whether it is the root of the closed part.
    pub(super) fn is_closed(&self, path: &WorkspacePath) -> bool {
        self.closed.as_deref() == Some(path)
    }

    /// Refuses what leads into the closed part, by its name or through links. What does not exist yet is judged by its
    /// nearest parent that does.
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

    /// A directory has just been changed; its listing is read anew even where its times do not show it.
    pub(super) fn forget_directory(&self, directory: &Dir) {
        if let Some(directories) = &self.directories {
            directories.forget(directory);
        }
    }
}

//! What is in a directory, bounded and in order.

use cap_std::fs::{Dir, Metadata};
use chrono::{DateTime, Utc};

use super::directory::{FileVersion, modified_at};
use super::glob::Glob;
use super::path::UNFINISHED_PREFIX;
use super::{WorkspaceError, WorkspacePath};

/// More names than these are not looked at in one list, whatever the limit and the pattern: 100 000.
const MAX_LOOKED_AT: usize = 100_000;

/// What a list shows.
#[derive(Debug, Clone)]
pub struct ListOptions {
    recursive: bool,
    pattern: Option<Glob>,
    excluded: Vec<String>,
    limit: usize,
}

impl ListOptions {
    /// The most entries of one list.
    pub const MAX_LIMIT: usize = 10_000;

    /// What is in the directory itself; up to 1000 entries.
    pub fn flat() -> Self {
        Self { recursive: false, pattern: None, excluded: Vec::new(), limit: 1000 }
    }

    /// What is in the directory and in those beneath it; up to 1000 entries. Links are shown, not followed.
    pub fn recursive() -> Self {
        Self { recursive: true, ..Self::flat() }
    }

    /// Only entries that match: `*.md` against the name, `docs/**/*.md` against the path from the listed directory.
    #[must_use]
    pub fn matching(mut self, pattern: &str) -> Self {
        self.pattern = Some(Glob::new(pattern));
        self
    }

    /// Leaves out whatever has one of these names, with all that is in it.
    #[must_use]
    pub fn excluding(mut self, names: Vec<String>) -> Self {
        self.excluded = names;
        self
    }

    /// Up to `limit` entries; at least 1, at most [`ListOptions::MAX_LIMIT`].
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, Self::MAX_LIMIT);
        self
    }
}

/// The first entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, ordered name by name from the top.
    pub items: Vec<Entry>,
    /// Whether there is more than is shown.
    pub truncated: bool,
}

/// A file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where, from the workspace's root.
    pub path: WorkspacePath,
    /// Which of the two; a link counts as what it leads to.
    pub kind: EntryKind,
    /// The file's size in bytes; 0 for a directory.
    pub size_bytes: u64,
    /// When it was last written, by the file system's clock, in UTC.
    pub modified_at: DateTime<Utc>,
    /// Which content a file has.
    pub version: FileVersion,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// It has content.
    File,
    /// It has entries.
    Directory,
}

impl EntryKind {
    /// The word for it in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
        }
    }
}

pub(super) fn entry(root: &Dir, path: &WorkspacePath) -> Result<Entry, WorkspaceError> {
    let metadata = root
        .metadata(path.as_path())
        .map_err(|source| WorkspaceError::from_io("look at the file", path.as_str(), source))?;
    described(path.clone(), &metadata).ok_or_else(|| WorkspaceError::NotFound { path: path.to_string() })
}

/// `None` for what is neither: pipes, sockets, devices.
fn described(path: WorkspacePath, metadata: &Metadata) -> Option<Entry> {
    let (kind, size_bytes) = match (metadata.is_file(), metadata.is_dir()) {
        (true, _) => (EntryKind::File, metadata.len()),
        (_, true) => (EntryKind::Directory, 0),
        _ => return None,
    };
    Some(Entry {
        path,
        kind,
        size_bytes,
        modified_at: modified_at(metadata),
        version: FileVersion::of(metadata),
    })
}

pub(super) fn list(
    root: &Dir,
    path: &WorkspacePath,
    options: &ListOptions,
    closed: Option<&WorkspacePath>,
) -> Result<Listing, WorkspaceError> {
    let mut walk =
        Walk { root, base: path, options, closed, looked_at: 0, items: Vec::new(), truncated: false };
    walk.directory(path)?;
    Ok(Listing { items: walk.items, truncated: walk.truncated })
}

struct Walk<'a> {
    root: &'a Dir,
    base: &'a WorkspacePath,
    options: &'a ListOptions,
    closed: Option<&'a WorkspacePath>,
    looked_at: usize,
    items: Vec<Entry>,
    truncated: bool,
}

impl Walk<'_> {
    /// Depth first; the depth is bounded by the length of a path.
    fn directory(&mut self, path: &WorkspacePath) -> Result<(), WorkspaceError> {
        for name in self.names(path)? {
            if self.truncated {
                break;
            }
            let path = path.child(&name);
            if self.closed != Some(&path) {
                self.one(&path)?;
            }
        }
        Ok(())
    }

    fn names(&mut self, path: &WorkspacePath) -> Result<Vec<String>, WorkspaceError> {
        let failed = |source| WorkspaceError::from_io("list the directory", path.as_str(), source);
        let mut names = Vec::new();
        for entry in self.root.read_dir(path.as_path()).map_err(failed)? {
            self.looked_at += 1;
            if self.looked_at > MAX_LOOKED_AT {
                self.truncated = true;
                break;
            }
            // A name that is no text has no path here, so nobody could ask for it.
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.retain(|name| !name.starts_with(UNFINISHED_PREFIX) && !self.options.excluded.contains(name));
        names.sort_unstable();
        Ok(names)
    }

    fn one(&mut self, path: &WorkspacePath) -> Result<(), WorkspaceError> {
        // What is gone by now, leads out or cannot be read is not in the list.
        let Ok(metadata) = self.root.metadata(path.as_path()) else { return Ok(()) };
        let is_link = self.root.symlink_metadata(path.as_path()).is_ok_and(|own| own.is_symlink());
        let Some(entry) = described(path.clone(), &metadata) else { return Ok(()) };
        let enter = self.options.recursive && entry.kind == EntryKind::Directory && !is_link;
        if self.matches(path) {
            if self.items.len() >= self.options.limit {
                self.truncated = true;
                return Ok(());
            }
            self.items.push(entry);
        }
        if !enter {
            return Ok(());
        }
        match self.directory(path) {
            Err(
                WorkspaceError::NotFound { .. }
                | WorkspaceError::NotADirectory { .. }
                | WorkspaceError::Escape,
            ) => Ok(()),
            ended => ended,
        }
    }

    fn matches(&self, path: &WorkspacePath) -> bool {
        let Some(pattern) = &self.options.pattern else { return true };
        let base = self.base.as_str();
        let relative = path.as_str().strip_prefix(base).unwrap_or(path.as_str());
        pattern.matches(relative.strip_prefix('/').unwrap_or(relative))
    }
}

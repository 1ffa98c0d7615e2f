//! The entries of a directory and its subdirectories, bounded and in order.

use std::cmp::Ordering;
use std::io;

use cap_std::fs::Metadata;
use chrono::{DateTime, Utc};

use super::entries::{self, Seen};
use super::glob::Glob;
use super::inside::Inside;
use super::version::{Facts, FileVersion};
use super::{WorkspaceError, WorkspacePath};

/// One list examines at most this many entries, whatever its limit and pattern.
const MAX_LOOKED_AT: usize = 100_000;

/// The options of a list.
#[derive(Debug, Clone)]
pub struct ListOptions {
    recursive: bool,
    pattern: Option<Glob>,
    excluded: Vec<String>,
    after: Option<WorkspacePath>,
    limit: usize,
}

impl ListOptions {
    /// The most entries of one list.
    pub const MAX_LIMIT: usize = 10_000;

    /// The entries of the directory itself; at most 1000.
    pub fn flat() -> Self {
        Self { recursive: false, pattern: None, excluded: Vec::new(), after: None, limit: 1000 }
    }

    /// The entries of the directory and its subdirectories; at most 1000. Links are listed, not followed.
    pub fn recursive() -> Self {
        Self { recursive: true, ..Self::flat() }
    }

    /// Lists only matching entries. `*.md` matches the name, `docs/**/*.md` the path relative to the listed directory.
    #[must_use]
    pub fn matching(mut self, pattern: &str) -> Self {
        self.pattern = Some(Glob::new(pattern));
        self
    }

    /// Leaves out the entries with one of these names, and everything below them.
    #[must_use]
    pub fn excluding(mut self, names: Vec<String>) -> Self {
        self.excluded = names;
        self
    }

    /// Lists only entries after `path` in the order of the list, whether or not `path` still exists. Pass
    /// [`Listing::next`] of the previous page.
    #[must_use]
    pub fn after(mut self, path: WorkspacePath) -> Self {
        self.after = Some(path);
        self
    }

    /// Lists at most `limit` entries; at least 1, at most [`ListOptions::MAX_LIMIT`].
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, Self::MAX_LIMIT);
        self
    }
}

/// A page of the entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, ordered name by name from the top. An entry whose name is not a valid [`WorkspacePath`] is left
    /// out, because nobody could request it.
    pub items: Vec<Entry>,
    /// The path after which the next page begins; `None` on the last page. An entry that exists throughout is on
    /// exactly one page, whatever is created or removed in between.
    pub next: Option<WorkspacePath>,
}

/// A file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path relative to the workspace's root.
    pub path: WorkspacePath,
    /// Its kind. A link counts as its target.
    pub kind: EntryKind,
    /// The file's size in bytes; 0 for a directory.
    pub size_bytes: u64,
    /// The time of the last write, in UTC.
    pub modified_at: DateTime<Utc>,
    /// The version of a file's content.
    pub version: FileVersion,
}

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

impl EntryKind {
    /// The kind's name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
        }
    }
}

pub(super) fn entry(inside: &Inside, path: &WorkspacePath) -> Result<Entry, WorkspaceError> {
    let metadata = inside
        .root()
        .metadata(path.as_path())
        .map_err(|source| WorkspaceError::from_lookup("read the metadata", path.as_str(), source))?;
    described(path.clone(), &metadata).ok_or_else(|| WorkspaceError::NotFound { path: path.to_string() })
}

/// `None` for anything else: pipes, sockets, devices.
fn described(path: WorkspacePath, metadata: &Metadata) -> Option<Entry> {
    let facts = Facts::of(metadata);
    match (metadata.is_file(), metadata.is_dir()) {
        (true, _) => Some(Entry::of(path, EntryKind::File, facts)),
        (_, true) => Some(Entry { size_bytes: 0, ..Entry::of(path, EntryKind::Directory, facts) }),
        _ => None,
    }
}

impl Entry {
    fn of(path: WorkspacePath, kind: EntryKind, facts: Facts) -> Self {
        let (size_bytes, modified_at, version) = (facts.size_bytes, facts.modified_at(), facts.version());
        Self { path, kind, size_bytes, modified_at, version }
    }
}

pub(super) fn list(
    inside: &Inside,
    path: &WorkspacePath,
    options: &ListOptions,
) -> Result<Listing, WorkspaceError> {
    let mut walk = Walk { inside, base: path, options, n_looked_at: 0, items: Vec::new(), reached: None };
    let end = walk.directory(path)?;
    Ok(Listing { items: walk.items, next: if end == End::Full { walk.reached } else { None } })
}

struct Walk<'a> {
    inside: &'a Inside,
    base: &'a WorkspacePath,
    options: &'a ListOptions,
    n_looked_at: usize,
    items: Vec<Entry>,
    /// Every entry up to here was examined.
    reached: Option<WorkspacePath>,
}

/// Whether the walk continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// This directory has no more entries.
    Complete,
    /// The page is full, or the walk has examined enough.
    Full,
}

impl Walk<'_> {
    /// Walks depth first. The length of a path bounds the depth. A very large directory is read in pieces.
    fn directory(&mut self, path: &WorkspacePath) -> Result<End, WorkspaceError> {
        let failed = |source| WorkspaceError::from_io("list the directory", path.as_str(), source);
        let after = self.options.after.as_ref();
        let mut first: Option<Box<str>> = after.and_then(|after| after.name_beneath(path)).map(Into::into);
        let mut last_seen: Option<Box<str>> = None;
        loop {
            let directory = self.inside.root().open_dir(path.as_path()).map_err(failed)?;
            let most = ListOptions::MAX_LIMIT + 1;
            let found = entries::read(&directory, first.as_deref(), most, self.inside.directories());
            let found = found.map_err(failed)?;
            // Only one directory is open at a time, however deep the walk is.
            drop(directory);
            for seen in &*found.entries {
                let is_before = first.as_deref().is_some_and(|first| *seen.name < *first);
                if is_before || last_seen.as_deref() == Some(&*seen.name) {
                    continue;
                }
                let Some(child) = self.visible_child(path, &seen.name) else { continue };
                if self.one(seen, child)? == End::Full {
                    return Ok(End::Full);
                }
            }
            match found.entries.last() {
                Some(last) if found.more => {
                    last_seen = Some(last.name.clone());
                    first.clone_from(&last_seen);
                }
                _ => return Ok(End::Complete),
            }
        }
    }

    fn visible_child(&self, path: &WorkspacePath, name: &str) -> Option<WorkspacePath> {
        let child = path.child(name);
        let is_excluded = self.options.excluded.iter().any(|excluded| excluded == name);
        // Also ends a walk that is deeper than the longest path.
        let can_be_asked_for = || child.as_str().parse::<WorkspacePath>().is_ok_and(|path| path == child);
        (!is_excluded && !self.inside.is_closed(&child) && can_be_asked_for()).then_some(child)
    }

    fn one(&mut self, seen: &Seen, path: WorkspacePath) -> Result<End, WorkspaceError> {
        let order = self.options.after.as_ref().map_or(Ordering::Greater, |after| path.cmp_by_name(after));
        let is_on_the_way = order != Ordering::Greater
            && self
                .options
                .after
                .as_ref()
                .is_some_and(|after| after.name_beneath(&path).is_some() || *after == path);
        if order != Ordering::Greater && !is_on_the_way {
            return Ok(End::Complete);
        }
        if self.n_looked_at >= MAX_LOOKED_AT {
            return Ok(End::Full);
        }
        let (entry, enter) = match seen.file {
            Some(facts) => (Entry::of(path.clone(), EntryKind::File, facts), false),
            None => match self.look(&path) {
                Some(looked) => looked,
                None => return Ok(End::Complete),
            },
        };
        if order == Ordering::Greater {
            if self.matches(&path) {
                if self.items.len() >= self.options.limit {
                    return Ok(End::Full);
                }
                self.items.push(entry);
            }
            self.n_looked_at += 1;
            self.reached = Some(path.clone());
        }
        if enter { self.enter(&path) } else { Ok(End::Complete) }
    }

    /// The entry at `path`, and whether to enter it. An entry that has vanished, leads outside or cannot be read is
    /// left out.
    fn look(&self, path: &WorkspacePath) -> Option<(Entry, bool)> {
        let root = self.inside.root();
        let own = root.symlink_metadata(path.as_path()).ok()?;
        let is_link = own.is_symlink();
        let metadata = if is_link { root.metadata(path.as_path()).ok()? } else { own };
        let entry = described(path.clone(), &metadata)?;
        let enter = self.options.recursive && entry.kind == EntryKind::Directory && !is_link;
        Some((entry, enter))
    }

    fn enter(&mut self, path: &WorkspacePath) -> Result<End, WorkspaceError> {
        match self.directory(path) {
            Err(
                WorkspaceError::NotFound { .. }
                | WorkspaceError::NotADirectory { .. }
                | WorkspaceError::Escape,
            ) => Ok(End::Complete),
            Err(WorkspaceError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Ok(End::Complete)
            }
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

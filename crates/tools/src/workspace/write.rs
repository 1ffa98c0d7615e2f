//! Atomic changes of files.

use std::io;

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, Metadata};

use super::directory::PRIVATE_DIRECTORY;
use super::inside::Inside;
use super::unfinished::{self, Place, Unfinished};
use super::version::FileVersion;
use super::{WorkspaceError, WorkspacePath};

/// How often a write starts over when others remove its directory at the same time.
const MAX_ATTEMPTS: usize = 20;

/// The condition under which a file is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// None.
    None,
    /// The file does not exist (`If-None-Match: *`).
    Absent,
    /// The file exists (`If-Match: *`).
    Present,
    /// The file has one of these versions (`If-Match`).
    Version(Vec<FileVersion>),
}

impl Precondition {
    fn check(&self, path: &WorkspacePath, current: Option<&Metadata>) -> Result<(), WorkspaceError> {
        let holds = match self {
            Precondition::None => true,
            Precondition::Absent => current.is_none(),
            Precondition::Present => current.is_some(),
            Precondition::Version(versions) => {
                current.is_some_and(|current| versions.contains(&FileVersion::of(current)))
            }
        };
        if holds { Ok(()) } else { Err(WorkspaceError::PreconditionFailed { path: path.to_string() }) }
    }
}

/// A completed, durable write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Whether the file is new.
    pub created: bool,
    /// The version of the new content.
    pub version: FileVersion,
}

/// Creates an unfinished file for `path` in the nearest existing directory above it. Missing directories are created
/// together with the file. Fails early for what the commit would reject.
pub(super) fn begin(
    inside: &Inside,
    path: &WorkspacePath,
    precondition: &Precondition,
) -> Result<Unfinished, WorkspaceError> {
    again_where_directories_vanish(|| {
        let failed = |source| WorkspaceError::from_io("write the file", path.as_str(), source);
        let (parent, name) = split(path)?;
        let (nearest, directory) = nearest_directory(inside.root(), &parent).map_err(failed)?;
        let current = if nearest == parent { look(inside, &directory, path, name)? } else { None };
        precondition.check(path, current.as_ref())?;
        Unfinished::create(&directory).map_err(failed)
    })
}

/// Gives a complete file its name.
pub(super) fn commit(
    inside: &Inside,
    path: &WorkspacePath,
    unfinished: &Unfinished,
    precondition: &Precondition,
) -> Result<Written, WorkspaceError> {
    let failed = |source| WorkspaceError::from_io("write the file", path.as_str(), source);
    // The slow part comes before the lock.
    unfinished.finish().map_err(failed)?;
    let (parent, name) = split(path)?;
    let mut made_directories = false;
    again_where_directories_vanish(|| {
        let directory = open_or_make(inside.root(), &parent, &mut made_directories)?;
        // Held until the end, so that no other writer comes between the check and the rename.
        let lock = readable(&directory).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let current = look(inside, &directory, path, name)?;
        precondition.check(path, current.as_ref())?;
        if let Some(current) = &current {
            unfinished.take_mode_of(current).map_err(failed)?;
        }
        let place = if *precondition == Precondition::Absent { Place::Free } else { Place::Any };
        match unfinished.publish(&directory, name, place) {
            // A program that takes no locks was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && place == Place::Free => {
                return Err(WorkspaceError::PreconditionFailed { path: path.to_string() });
            }
            published => published.map_err(failed)?,
        }
        inside.forget_directory(&directory);
        lock.sync_all().map_err(failed)?;
        if made_directories {
            // Only now: a new directory is empty, and others may remove it, until it contains the file.
            sync_above(inside.root(), &parent).map_err(failed)?;
        }
        let version = FileVersion::of(&unfinished.metadata().map_err(failed)?);
        Ok(Written { created: current.is_none(), version })
    })
}

/// Starts over when a directory that was just found or created has vanished, because others remove empty directories.
fn again_where_directories_vanish<T>(
    mut attempt: impl FnMut() -> Result<T, WorkspaceError>,
) -> Result<T, WorkspaceError> {
    for _ in 1..MAX_ATTEMPTS {
        match attempt() {
            Err(WorkspaceError::NotFound { .. }) => {}
            ended => return ended,
        }
    }
    attempt()
}

/// Removes a file, a link or an empty directory if the precondition holds.
pub(super) fn remove(
    inside: &Inside,
    path: &WorkspacePath,
    precondition: &Precondition,
) -> Result<(), WorkspaceError> {
    let failed = |source| WorkspaceError::from_lookup("remove the file", path.as_str(), source);
    let Some((parent, name)) = path.split() else {
        return Err(WorkspaceError::InvalidPath { reason: "the root of the workspace cannot be removed" });
    };
    let directory = inside.root().open_dir(parent.as_path()).map_err(failed)?;
    let lock = readable(&directory).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let own = directory.symlink_metadata(name).map_err(failed)?;
    if *precondition != Precondition::None {
        let current = if own.is_dir() { Some(own.clone()) } else { look(inside, &directory, path, name)? };
        precondition.check(path, current.as_ref())?;
    }
    if own.is_dir() {
        remove_directory(inside, &directory, name).map_err(failed)?;
    } else {
        directory.remove_file(name).map_err(failed)?;
    }
    inside.forget_directory(&directory);
    lock.sync_all().map_err(failed)
}

fn remove_directory(inside: &Inside, parent: &Dir, name: &str) -> io::Result<()> {
    let removed = parent.open_dir(name)?;
    match parent.remove_dir(name) {
        // Invisible files must not block the removal.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            unfinished::sweep(&removed)?;
            parent.remove_dir(name)?;
        }
        ended => ended?,
    }
    inside.forget_directory(&removed);
    Ok(())
}

fn split(path: &WorkspacePath) -> Result<(WorkspacePath, &str), WorkspaceError> {
    path.split().ok_or_else(|| WorkspaceError::NotAFile { path: path.to_string() })
}

/// The current file, if it would be replaced. Follows only links, and only within the root.
fn look(
    inside: &Inside,
    directory: &Dir,
    path: &WorkspacePath,
    name: &str,
) -> Result<Option<Metadata>, WorkspaceError> {
    let own = directory.symlink_metadata(name);
    let found = match own {
        Ok(own) if own.is_symlink() => inside.root().metadata(path.as_path()),
        own => own,
    };
    match found {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(_) => Err(WorkspaceError::NotAFile { path: path.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(WorkspaceError::from_io("read the metadata", path.as_str(), error)),
    }
}

/// The directory `path`, or the nearest existing one above it.
fn nearest_directory(root: &Dir, path: &WorkspacePath) -> io::Result<(WorkspacePath, Dir)> {
    let mut nearest = path.clone();
    loop {
        match (root.open_dir(nearest.as_path()), nearest.split()) {
            (Ok(directory), _) => return Ok((nearest, directory)),
            (Err(error), Some((above, _))) if error.kind() == io::ErrorKind::NotFound => nearest = above,
            (Err(error), _) => return Err(error),
        }
    }
}

fn open_or_make(root: &Dir, path: &WorkspacePath, made: &mut bool) -> Result<Dir, WorkspaceError> {
    let failed = |source| WorkspaceError::from_io("create the directory", path.as_str(), source);
    match root.open_dir(path.as_path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            *made = true;
            make_directories(root, path).map_err(failed)?;
            root.open_dir(path.as_path()).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

fn make_directories(root: &Dir, path: &WorkspacePath) -> io::Result<()> {
    let mut private = DirBuilder::new();
    private.mode(PRIVATE_DIRECTORY);
    for directory in path.steps_down() {
        match root.create_dir_with(directory, &private) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the names of `path` and of the directories above it durable.
fn sync_above(root: &Dir, path: &WorkspacePath) -> io::Result<()> {
    let mut path = path.clone();
    while let Some((above, _)) = path.split() {
        match root.open_dir(above.as_path()).and_then(|directory| readable(&directory)) {
            // It was moved by somebody else, who is responsible for its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            directory => directory?.sync_all()?,
        }
        path = above;
    }
    Ok(())
}

/// Opens the directory as a file that can be locked and synced; its own handle is for paths only.
fn readable(directory: &Dir) -> io::Result<std::fs::File> {
    directory.open(".").map(cap_std::fs::File::into_std)
}

//! Changes that are whole or not there.

use std::io::{self, Write as _};

use cap_std::fs::{Dir, OpenOptions};
use uuid::Uuid;

use super::directory::{FileVersion, Workspace};
use super::path::UNFINISHED_PREFIX;
use super::{WorkspaceError, WorkspacePath};

/// What a file must be for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Anything.
    None,
    /// There is none (`If-None-Match: *`).
    Absent,
    /// There is one (`If-Match: *`).
    Present,
    /// It is one of these versions (`If-Match`).
    Version(Vec<FileVersion>),
}

/// A write that is done and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Whether there was no file before.
    pub created: bool,
    /// Which content is there now.
    pub version: FileVersion,
}

pub(super) fn write(
    root: &Dir,
    path: &WorkspacePath,
    bytes: &[u8],
    precondition: &Precondition,
) -> Result<Written, WorkspaceError> {
    if bytes.len() as u64 > Workspace::MAX_FILE_BYTES {
        return Err(WorkspaceError::TooLarge { limit_bytes: Workspace::MAX_FILE_BYTES });
    }
    let failed = |source| WorkspaceError::from_io("write the file", path.as_str(), source);
    let Some((parent, name)) = path.split() else {
        return Err(WorkspaceError::NotAFile { path: path.to_string() });
    };
    make_directories(root, &parent)?;
    let directory = root.open_dir(parent.as_path()).map_err(failed)?;
    // Held until the end of the function: between the look and the rename nobody else writes here.
    let lock = readable(&directory).map_err(failed)?;
    lock.lock().map_err(failed)?;

    let current = current_version(root, path)?;
    if !holds(precondition, current.as_ref()) {
        return Err(WorkspaceError::PreconditionFailed { path: path.to_string() });
    }
    let unfinished = Unfinished::create(&directory).map_err(failed)?;
    let version = unfinished.fill(bytes).map_err(failed)?;
    unfinished.publish(name).map_err(failed)?;
    lock.sync_all().map_err(failed)?;
    Ok(Written { created: current.is_none(), version })
}

pub(super) fn remove(root: &Dir, path: &WorkspacePath) -> Result<(), WorkspaceError> {
    let failed = |source| WorkspaceError::from_io("remove the file", path.as_str(), source);
    let Some((parent, name)) = path.split() else {
        return Err(WorkspaceError::InvalidPath { reason: "the root of the workspace cannot be removed" });
    };
    let directory = root.open_dir(parent.as_path()).map_err(failed)?;
    let lock = readable(&directory).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if directory.symlink_metadata(name).map_err(failed)?.is_dir() {
        directory.remove_dir(name).map_err(failed)?;
    } else {
        directory.remove_file(name).map_err(failed)?;
    }
    lock.sync_all().map_err(failed)
}

fn current_version(root: &Dir, path: &WorkspacePath) -> Result<Option<FileVersion>, WorkspaceError> {
    match root.metadata(path.as_path()) {
        Ok(metadata) if metadata.is_file() => Ok(Some(FileVersion::of(&metadata))),
        Ok(_) => Err(WorkspaceError::NotAFile { path: path.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(WorkspaceError::from_io("look at the file", path.as_str(), error)),
    }
}

fn holds(precondition: &Precondition, current: Option<&FileVersion>) -> bool {
    match precondition {
        Precondition::None => true,
        Precondition::Absent => current.is_none(),
        Precondition::Present => current.is_some(),
        Precondition::Version(versions) => current.is_some_and(|current| versions.contains(current)),
    }
}

/// Makes `path` and its parents, each durable before the next.
fn make_directories(root: &Dir, path: &WorkspacePath) -> Result<(), WorkspaceError> {
    let failed = |source| WorkspaceError::from_io("make the directory", path.as_str(), source);
    for directory in path.steps_down() {
        match root.create_dir(directory) {
            Ok(()) => {
                let parent = directory.rsplit_once('/').map_or(".", |(parent, _)| parent);
                let parent = root.open_dir(parent).map_err(failed)?;
                readable(&parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The directory as a file that can be locked and synced, which its handle (opened for paths only) cannot.
fn readable(directory: &Dir) -> io::Result<std::fs::File> {
    directory.open(".").map(cap_std::fs::File::into_std)
}

/// A file that nobody sees yet; it goes away unless it is published.
struct Unfinished<'a> {
    directory: &'a Dir,
    name: String,
    file: cap_std::fs::File,
    published: bool,
}

impl<'a> Unfinished<'a> {
    fn create(directory: &'a Dir) -> io::Result<Self> {
        let name = format!("{UNFINISHED_PREFIX}{}", Uuid::now_v7().simple());
        let file = directory.open_with(&name, OpenOptions::new().write(true).create_new(true))?;
        Ok(Self { directory, name, file, published: false })
    }

    fn fill(&self, bytes: &[u8]) -> io::Result<FileVersion> {
        let mut file = &self.file;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(FileVersion::of(&file.metadata()?))
    }

    fn publish(mut self, name: &str) -> io::Result<()> {
        self.directory.rename(&self.name, self.directory, name)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = self.directory.remove_file(&self.name) {
            tracing::warn!(error = %error, "an unfinished file stays behind: {}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    #[test]
    fn an_unfinished_file_is_hidden_by_its_name_and_goes_away_when_the_write_fails() {
        let root = tempfile::tempdir().unwrap();
        let directory = Dir::open_ambient_dir(root.path(), ambient_authority()).unwrap();
        directory.create_dir("taken").unwrap();
        let names = || {
            std::fs::read_dir(root.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect::<Vec<_>>()
        };

        let unfinished = Unfinished::create(&directory).unwrap();
        unfinished.fill(b"half").unwrap();
        assert!(names().iter().any(|name| name.to_string_lossy().starts_with(UNFINISHED_PREFIX)));
        assert!(unfinished.publish("taken").is_err(), "a file cannot take the place of a directory");
        assert_eq!(names(), ["taken"]);
    }
}

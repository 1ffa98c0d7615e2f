//! Files that stay invisible until they are complete.
//!
//! On Linux an unfinished file has no name, so a killed process leaves nothing behind. The file gets a temporary name
//! only while it replaces another file, and each directory has only one such name. A writer that holds the directory's
//! lock and finds that name knows that its owner is dead. On file systems without unnamed files, each unfinished file
//! has its own name. Its owner locks it while it lives, and the next writer removes it after that.
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use uuid::Uuid;

use super::path::UNFINISHED_PREFIX;

/// The handles of this process. An unnamed file is linked from here.
const OWN_HANDLES: &str = "/proc/self/fd";

/// The owner of a younger named file may not have locked it yet.
const YOUNG: Duration = Duration::from_secs(60);

/// Only its owner can access a new file: other local users must not read a project's files.
const OWNERS: u32 = 0o600;

/// A sweep examines at most this many names.
const MAX_SWEPT_OVER: usize = 10_000;

/// The temporary name of a file that is about to replace another.
fn replacing() -> String {
    format!("{UNFINISHED_PREFIX}replacing")
}

/// What may exist where a file is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing. An existing entry stays, and publishing fails.
    Free,
    /// Nothing, or a file, which is replaced.
    Any,
}

/// An invisible file. It disappears unless it is published.
#[derive(Debug)]
pub(super) struct Unfinished {
    file: File,
    named: Option<Named>,
}

#[derive(Debug)]
struct Named {
    directory: Dir,
    name: String,
    published: AtomicBool,
}

impl Unfinished {
    /// Creates an empty file on the file system of `directory`.
    pub(super) fn create(directory: &Dir) -> io::Result<Self> {
        match unnamed(directory)? {
            Some(file) => {
                // For the moment in which it has a name.
                file.lock()?;
                Ok(Self { file, named: None })
            }
            None => {
                sweep(directory)?;
                Self::named(directory)
            }
        }
    }

    fn named(directory: &Dir) -> io::Result<Self> {
        let name = format!("{UNFINISHED_PREFIX}{}", Uuid::now_v7().simple());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(OWNERS);
        let file = directory.open_with(&name, &options)?.into_std();
        let named = Named { directory: directory.try_clone()?, name, published: AtomicBool::new(false) };
        let unfinished = Self { file, named: Some(named) };
        unfinished.file.lock()?;
        Ok(unfinished)
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Sets the file's time stamps and makes its content durable.
    pub(super) fn finish(&self) -> io::Result<()> {
        // To the nanosecond: some systems stamp files with a coarser clock, so two writes within one tick would look
        // equal.
        self.file.set_modified(SystemTime::now())?;
        self.file.sync_all()
    }

    /// Copies the permissions of the file that it replaces.
    pub(super) fn take_mode_of(&self, replaced: &Metadata) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.file, Mode::from_raw_mode(replaced.mode() & 0o777))?)
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        Metadata::from_file(&self.file)
    }

    /// Gives the file its name, atomically. The caller holds the directory's lock.
    ///
    /// # Errors
    /// `AlreadyExists` if an entry exists that must not be replaced. After any error the earlier entry is unchanged.
    pub(super) fn publish(&self, directory: &Dir, name: &str, place: Place) -> io::Result<()> {
        match &self.named {
            None => self.publish_unnamed(directory, name, place),
            Some(named) => named.publish(directory, name, place),
        }
    }

    fn publish_unnamed(&self, directory: &Dir, name: &str, place: Place) -> io::Result<()> {
        match self.link(directory, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && place == Place::Any => {}
            linked => return linked,
        }
        let waiting = replacing();
        match self.link(directory, &waiting) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                directory.remove_file(&waiting)?;
                self.link(directory, &waiting)?;
            }
            linked => linked?,
        }
        directory.rename(&waiting, directory, name).inspect_err(|_| {
            let _ = directory.remove_file(&waiting);
        })
    }

    fn link(&self, directory: &Dir, name: &str) -> io::Result<()> {
        let own = format!("{OWN_HANDLES}/{}", self.file.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, own, directory, name, AtFlags::SYMLINK_FOLLOW)?)
    }
}

impl Named {
    fn publish(&self, directory: &Dir, name: &str, place: Place) -> io::Result<()> {
        match place {
            // A hard link fails if the name exists; a rename would replace it.
            Place::Free => {
                self.directory.hard_link(&self.name, directory, name)?;
                self.directory.remove_file(&self.name)?;
            }
            Place::Any => self.directory.rename(&self.name, directory, name)?,
        }
        self.published.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if *self.published.get_mut() {
            return;
        }
        if let Err(error) = self.directory.remove_file(&self.name) {
            tracing::warn!(error = %error, "cannot remove the unfinished file {}", self.name);
        }
    }
}

/// Creates a file without a name where the system supports it.
#[cfg(target_os = "linux")]
fn unnamed(directory: &Dir) -> io::Result<Option<File>> {
    use rustix::fs::Access;
    use rustix::io::Errno;

    if rustix::fs::access(OWN_HANDLES, Access::EXISTS).is_err() {
        return Ok(None);
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, ".", flags, Mode::from_raw_mode(OWNERS)) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
        // The error of ext4 for a directory that was removed after it was opened.
        Err(Errno::PERM) if directory.dir_metadata().is_ok_and(|gone| gone.nlink() == 0) => {
            Err(io::ErrorKind::NotFound.into())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_directory: &Dir) -> io::Result<Option<File>> {
    Ok(None)
}

/// Removes the unfinished files of dead processes.
pub(super) fn sweep(directory: &Dir) -> io::Result<()> {
    for entry in directory.entries()?.take(MAX_SWEPT_OVER) {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if name.starts_with(UNFINISHED_PREFIX) && is_abandoned(directory, &name) {
            match directory.remove_file(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => tracing::info!("removed an unfinished file of a dead process: {name}"),
            }
        }
    }
    Ok(())
}

/// Whether its owner is dead. A living owner keeps it locked.
fn is_abandoned(directory: &Dir, name: &str) -> bool {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(flags.bits().cast_signed());
    let Ok(file) = directory.open_with(name, &options).map(cap_std::fs::File::into_std) else { return false };
    let is_old = || {
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > YOUNG))
    };
    (name == replacing() || is_old()) && file.try_lock().is_ok()
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;
    use tempfile::TempDir;

    use super::*;

    fn directory() -> (TempDir, Dir) {
        let root = tempfile::tempdir().unwrap();
        let directory = Dir::open_ambient_dir(root.path(), ambient_authority()).unwrap();
        (root, directory)
    }

    fn names(root: &TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(root.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Both kinds: an unnamed file where the system supports it, and a named one.
    fn both(directory: &Dir) -> [Unfinished; 2] {
        [Unfinished::create(directory).unwrap(), Unfinished::named(directory).unwrap()]
    }

    #[test]
    fn a_published_file_exists_and_a_dropped_one_does_not() {
        let (root, directory) = directory();
        for (at, unfinished) in both(&directory).into_iter().enumerate() {
            unfinished.write_at(b"whole", 0).unwrap();
            unfinished.finish().unwrap();
            unfinished.publish(&directory, &format!("new-{at}"), Place::Free).unwrap();
        }
        for unfinished in both(&directory) {
            unfinished.write_at(b"half", 0).unwrap();
        }
        assert_eq!(names(&root), ["new-0", "new-1"]);
        assert_eq!(std::fs::read(root.path().join("new-1")).unwrap(), b"whole");
    }

    #[test]
    fn each_file_has_a_unique_time_stamp_even_on_a_coarse_clock() {
        let (_root, directory) = directory();
        for unfinished in both(&directory) {
            let stamps: Vec<_> = (0..10)
                .map(|_| {
                    unfinished.finish().unwrap();
                    unfinished.metadata().unwrap().modified().unwrap()
                })
                .collect();
            assert!(stamps.is_sorted_by(|one, next| one < next), "{stamps:?}");
        }
    }

    #[test]
    fn a_file_replaces_another_only_where_allowed_and_never_a_directory() {
        let (root, directory) = directory();
        std::fs::write(root.path().join("old"), "old").unwrap();
        std::fs::create_dir(root.path().join("taken")).unwrap();
        for unfinished in both(&directory) {
            let refused = unfinished.publish(&directory, "old", Place::Free).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(root.path().join("old")).unwrap(), b"old");
            assert!(unfinished.publish(&directory, "taken", Place::Any).is_err());
        }
        for unfinished in both(&directory) {
            unfinished.write_at(b"new", 0).unwrap();
            unfinished.publish(&directory, "old", Place::Any).unwrap();
            assert_eq!(std::fs::read(root.path().join("old")).unwrap(), b"new");
            std::fs::write(root.path().join("old"), "old").unwrap();
        }
        assert_eq!(names(&root), ["old", "taken"]);
    }

    #[test]
    fn a_replacement_killed_half_way_blocks_nobody() {
        let (root, directory) = directory();
        std::fs::write(root.path().join("old"), "old").unwrap();
        std::fs::write(root.path().join(replacing()), "of a dead process").unwrap();
        let unfinished = Unfinished::create(&directory).unwrap();
        unfinished.publish(&directory, "old", Place::Any).unwrap();
        assert_eq!(std::fs::read(root.path().join("old")).unwrap(), b"");
        drop(unfinished);
        sweep(&directory).unwrap();
        assert_eq!(names(&root), ["old"]);
    }

    #[test]
    fn a_sweep_removes_only_what_dead_processes_left() {
        let (root, directory) = directory();
        let leave = |name: &str, age: Duration| {
            let file = File::create(root.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        let alive = Unfinished::named(&directory).unwrap();
        alive.file.set_modified(SystemTime::now() - YOUNG * 2).unwrap();
        leave(&format!("{UNFINISHED_PREFIX}dead"), YOUNG * 2);
        leave(&replacing(), Duration::ZERO);
        leave(&format!("{UNFINISHED_PREFIX}young"), Duration::ZERO);
        leave("a file", YOUNG * 2);
        sweep(&directory).unwrap();
        let mut expected = vec!["a file".to_owned(), format!("{UNFINISHED_PREFIX}young")];
        expected.push(alive.named.as_ref().unwrap().name.clone());
        expected.sort();
        assert_eq!(names(&root), expected);
    }
}

//! Files that nobody sees until they are whole.
//!
//! On Linux such a file has no name at all, so that nothing stays behind when the process is killed. It gets one only
//! for the moment in which it takes the place of another file, and there is one such name in each directory: whoever
//! holds the directory's lock and finds it taken knows that its owner is dead. On file systems that know no files
//! without names each has a name of its own, is locked while its owner lives, and is swept by the next one.

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

/// Where the handles of this process are; what has no name is linked from there.
const OWN_HANDLES: &str = "/proc/self/fd";

/// A named file that is younger may not have been locked by its owner yet.
const YOUNG: Duration = Duration::from_secs(60);

/// A file that takes no other's place is its owner's alone: what a project holds is no other local user's.
const OWNERS: u32 = 0o600;

/// More names than these are not looked at in one sweep.
const MAX_SWEPT_OVER: usize = 10_000;

/// The name under which a file waits to take the place of another.
fn replacing() -> String {
    format!("{UNFINISHED_PREFIX}replacing")
}

/// What may be at the place where a file is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing; if there is something after all, it stays.
    Free,
    /// Nothing or a file, which is replaced.
    Any,
}

/// A file that nobody sees yet; it goes away unless it is published.
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
    /// A new, empty file on the file system of `directory`.
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

    /// Stamps the file and makes its content durable.
    pub(super) fn finish(&self) -> io::Result<()> {
        // To the nanosecond: the kernel's own clock for files is coarser on some systems, and two writes within one of
        // its ticks would look the same.
        self.file.set_modified(SystemTime::now())?;
        self.file.sync_all()
    }

    /// Who may read, write and execute it shall be as it was for the file whose place it takes.
    pub(super) fn take_mode_of(&self, replaced: &Metadata) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.file, Mode::from_raw_mode(replaced.mode() & 0o777))?)
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        Metadata::from_file(&self.file)
    }

    /// Gives it its name, atomically. The caller holds the directory's lock.
    ///
    /// # Errors
    /// `AlreadyExists` where the place should be free and is not; in any case what was there stands.
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
            // A second name is refused where there is one, which a rename is not.
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
            tracing::warn!(error = %error, "an unfinished file stays behind: {}", self.name);
        }
    }
}

/// A file without a name, where the system knows such.
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
        // What ext4 says of a directory that was removed after it was opened.
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

/// Removes the unfinished files of processes that are gone.
pub(super) fn sweep(directory: &Dir) -> io::Result<()> {
    for entry in directory.entries()?.take(MAX_SWEPT_OVER) {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if name.starts_with(UNFINISHED_PREFIX) && is_abandoned(directory, &name) {
            match directory.remove_file(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => tracing::info!("an unfinished file of a process that is gone was removed: {name}"),
            }
        }
    }
    Ok(())
}

/// Whether nobody holds it any more. Its owner locks it for as long as it lives.
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

    /// Both kinds: without a name where the system knows that, and with one.
    fn both(directory: &Dir) -> [Unfinished; 2] {
        [Unfinished::create(directory).unwrap(), Unfinished::named(directory).unwrap()]
    }

    #[test]
    fn what_is_published_is_there_and_what_is_dropped_is_not() {
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
    fn each_file_has_a_stamp_of_its_own_whatever_the_clock_of_the_file_system() {
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
    fn a_file_takes_the_place_of_another_only_where_it_may_and_never_that_of_a_directory() {
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
    fn a_replacement_that_was_killed_half_way_is_in_nobodys_way() {
        let (root, directory) = directory();
        std::fs::write(root.path().join("old"), "old").unwrap();
        std::fs::write(root.path().join(replacing()), "of a process that is gone").unwrap();
        let unfinished = Unfinished::create(&directory).unwrap();
        unfinished.publish(&directory, "old", Place::Any).unwrap();
        assert_eq!(std::fs::read(root.path().join("old")).unwrap(), b"");
        drop(unfinished);
        sweep(&directory).unwrap();
        assert_eq!(names(&root), ["old"]);
    }

    #[test]
    fn a_sweep_takes_what_dead_processes_left_and_nothing_else() {
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

//! The entries of one directory, from the disk or from the cache.
//!
//! Owns the rule for when a cached listing may be used. Never knows who may see its entries.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use gathering_cache::{BoundedCache, CacheStatistics};

use super::path::UNFINISHED_PREFIX;
use super::version::{Facts, nanoseconds};

/// A larger directory is not cached.
const MAX_REMEMBERED: usize = 1000;

/// A directory that changed more recently is not cached, because another change within the same tick of the file
/// system's clock would go unnoticed.
const SETTLED: Duration = Duration::from_secs(1);

/// A change of a file in place does not change its directory, so a listing expires after this time.
const MAX_AGE: Duration = Duration::from_secs(2);

/// A short-lived cache of directory listings, shared by all workspaces of a process. It saves reading each file's
/// metadata again. A listing is used only while its directory is unchanged, and for 2 seconds. Clones are cheap and
/// share the cache.
#[derive(Debug, Clone)]
pub struct DirectoryCache(BoundedCache<Identity, Arc<Remembered>>);

/// Identifies a directory, whatever path leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
}

/// Changes whenever an entry is created, removed or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified_ns: i64,
    changed_ns: i64,
}

#[derive(Debug)]
struct Remembered {
    stamp: Stamp,
    read_at: Instant,
    entries: Arc<[Seen]>,
}

/// A name in a directory.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) name: Box<str>,
    /// The metadata of a file; `None` for anything else, which must be examined.
    pub(super) file: Option<Facts>,
}

/// The entries found in a directory, in the order of their names.
pub(super) struct Found {
    pub(super) entries: Arc<[Seen]>,
    /// Whether more entries follow.
    pub(super) more: bool,
}

impl DirectoryCache {
    /// A cache of at most `n_directories` directories.
    pub fn new(n_directories: u64) -> Self {
        Self(BoundedCache::new("directories", n_directories))
    }

    /// The counts so far and the current size.
    pub fn statistics(&self) -> CacheStatistics {
        self.0.statistics()
    }

    pub(super) fn forget(&self, directory: &Dir) {
        if let Ok(metadata) = directory.dir_metadata() {
            self.0.remove(&Identity::of(&metadata));
        }
    }

    fn find(&self, metadata: &Metadata) -> Option<Arc<[Seen]>> {
        let remembered = self.0.get(&Identity::of(metadata))?;
        let is_current = remembered.stamp == Stamp::of(metadata) && remembered.read_at.elapsed() < MAX_AGE;
        is_current.then(|| Arc::clone(&remembered.entries))
    }

    fn keep(&self, metadata: &Metadata, read_at: Instant, entries: Arc<[Seen]>) {
        let remembered = Remembered { stamp: Stamp::of(metadata), read_at, entries };
        self.0.insert(Identity::of(metadata), Arc::new(remembered));
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the next change, from `now` on, certainly has another time stamp.
    fn is_settled(self, now: SystemTime) -> bool {
        let Ok(now) = now.duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let now_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let settled_ns = i64::try_from(SETTLED.as_nanos()).unwrap_or(i64::MAX);
        now_ns.saturating_sub(self.modified_ns.max(self.changed_ns)) > settled_ns
    }
}

/// The entries of `directory`: the first `most` names from `first` on, or all of them if they are few.
pub(super) fn read(
    directory: &Dir,
    first: Option<&str>,
    most: usize,
    cache: Option<&DirectoryCache>,
) -> io::Result<Found> {
    let Some(cache) = cache else { return names(directory, first, most).map(Names::without_facts) };
    let before = directory.dir_metadata()?;
    if let Some(entries) = cache.find(&before) {
        return Ok(Found { entries, more: false });
    }
    let (now, read_at) = (SystemTime::now(), Instant::now());
    let names = names(directory, first, most)?;
    if !names.all || !Stamp::of(&before).is_settled(now) {
        return Ok(names.without_facts());
    }
    let mut entries = Vec::with_capacity(names.sorted.len());
    for name in names.sorted {
        // Links are not followed here: their targets can change without a trace in this directory.
        let own = directory.symlink_metadata(&*name).ok();
        let file = own.filter(Metadata::is_file).map(|own| Facts::of(&own));
        entries.push(Seen { name, file });
    }
    let entries: Arc<[Seen]> = entries.into();
    if Stamp::of(&directory.dir_metadata()?) == Stamp::of(&before) {
        cache.keep(&before, read_at, Arc::clone(&entries));
    }
    Ok(Found { entries, more: false })
}

struct Names {
    sorted: Vec<Box<str>>,
    /// Whether these are all names of the directory.
    all: bool,
    more: bool,
}

impl Names {
    fn without_facts(self) -> Found {
        let entries = self.sorted.into_iter().map(|name| Seen { name, file: None }).collect();
        Found { entries, more: self.more }
    }
}

/// Keeps about twice `most` names in memory, however many the directory has.
fn names(directory: &Dir, first: Option<&str>, most: usize) -> io::Result<Names> {
    let mut names: Vec<Box<str>> = Vec::new();
    let (mut n_names, mut more) = (0_usize, false);
    let mut keep_the_first = |names: &mut Vec<Box<str>>| {
        names.retain(|name| first.is_none_or(|first| &**name >= first));
        if names.len() > most {
            names.sort_unstable();
            names.truncate(most);
            more = true;
        }
    };
    for entry in directory.entries()? {
        // A name that is not valid UTF-8 has no path here, so nobody could request it.
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if name.starts_with(UNFINISHED_PREFIX) {
            continue;
        }
        n_names += 1;
        names.push(name.into_boxed_str());
        if names.len() >= most.saturating_mul(2).max(MAX_REMEMBERED + 1) {
            keep_the_first(&mut names);
        }
    }
    let all = n_names <= MAX_REMEMBERED;
    if !all {
        keep_the_first(&mut names);
    }
    names.sort_unstable();
    Ok(Names { sorted: names, all, more })
}

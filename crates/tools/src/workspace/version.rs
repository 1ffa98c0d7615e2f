//! The metadata of a file, and its version, which is derived from it.

use cap_std::fs::{Metadata, MetadataExt as _};
use chrono::{DateTime, Utc};

/// Identifies the content of a file. Each write changes it. It is suitable for a strong `ETag` (without its quotes).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileVersion(String);

impl FileVersion {
    /// The version as text: letters, digits and `-`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        Facts::of(metadata).version()
    }
}

impl From<String> for FileVersion {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// The metadata that identifies a file's content, and the metadata that lists show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    inode: u64,
    pub(super) size_bytes: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Facts {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// GatheRing replaces a file when it writes it and stamps it to the nanosecond, so inode and time differ. A change
    /// in place by another program changes the status-change time, whatever it does to the modification time.
    pub(super) fn version(self) -> FileVersion {
        let Self { inode, size_bytes, modified_ns, changed_ns } = self;
        FileVersion(format!("{inode:x}-{size_bytes:x}-{modified_ns:x}-{changed_ns:x}"))
    }

    pub(super) const fn modified_at(self) -> DateTime<Utc> {
        DateTime::from_timestamp_nanos(self.modified_ns)
    }
}

/// Nanoseconds since 1970; they fit until the year 2262.
pub(super) const fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

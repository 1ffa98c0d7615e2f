//! A key ring in a file: made once, then loaded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gathering_domain::ExposeSecret as _;

use crate::keys::{InvalidKey, KeyRing};

/// The file of the keys of access tokens.
const TOKENS: &str = "token.key";
/// The file of the keys that encrypt the secrets of projects.
const SECRETS: &str = "secrets.key";

/// The key ring in a file of a directory, which only its owner may read: `token.key` or `secrets.key`.
///
/// ```
/// use gathering_auth::KeyFile;
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let made = KeyFile::load_or_create(directory)?;
/// let loaded = KeyFile::load_or_create(directory)?;
/// assert!(made.is_new && !loaded.is_new);
/// assert_eq!(made.keys, loaded.keys);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct KeyFile {
    /// The keys.
    pub keys: KeyRing,
    /// The path of the file.
    pub path: PathBuf,
    /// Whether this call made the file: no other instance knows its key yet.
    pub is_new: bool,
}

/// Why there is no key ring in a file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read, or not be made.
    #[error("the key in {} can neither be read nor made", path.display())]
    Inaccessible {
        /// The path of the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its content is no key ring, or there is no randomness for a new one.
    #[error("the key in {} cannot be used", path.display())]
    Invalid {
        /// The path of the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: InvalidKey,
    },
}

impl KeyFile {
    /// Loads the file of the keys of access tokens, or makes it and the directory with one new key. Of several processes
    /// that do so at once, all get the same key. Blocks.
    ///
    /// # Errors
    /// [`KeyFileError`]; a file that was there is unchanged.
    pub fn load_or_create(directory: &Path) -> Result<Self, KeyFileError> {
        Self::load_or_create_named(directory, TOKENS)
    }

    /// As [`KeyFile::load_or_create`], for the file of the keys that encrypt the secrets of projects.
    ///
    /// # Errors
    /// [`KeyFileError`]; a file that was there is unchanged.
    pub fn load_or_create_of_secrets(directory: &Path) -> Result<Self, KeyFileError> {
        Self::load_or_create_named(directory, SECRETS)
    }

    fn load_or_create_named(directory: &Path, name: &str) -> Result<Self, KeyFileError> {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Self::of(path, &text, false),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::create(directory, path),
            Err(source) => Err(KeyFileError::Inaccessible { path, source }),
        }
    }

    fn create(directory: &Path, path: PathBuf) -> Result<Self, KeyFileError> {
        let keys = match KeyRing::generate() {
            Ok(keys) => keys,
            Err(source) => return Err(KeyFileError::Invalid { path, source }),
        };
        let written = write_unless_present(directory, &path, &keys)
            .and_then(|is_new| fs::read_to_string(&path).map(|text| (is_new, text)));
        match written {
            Ok((is_new, text)) => Self::of(path, &text, is_new),
            Err(source) => Err(KeyFileError::Inaccessible { path, source }),
        }
    }

    fn of(path: PathBuf, text: &str, is_new: bool) -> Result<Self, KeyFileError> {
        match KeyRing::parse(text) {
            Ok(keys) => Ok(Self { keys, path, is_new }),
            Err(source) => Err(KeyFileError::Invalid { path, source }),
        }
    }
}

/// Writes a whole file beside and links it to its name, so that of two processes that start at once both read the key
/// of the first, and a crash leaves no partial key. Returns whether this process was the first.
fn write_unless_present(directory: &Path, path: &Path, keys: &KeyRing) -> io::Result<bool> {
    fs::create_dir_all(directory)?;
    let draft = directory.join(format!(".key.{}", uuid::Uuid::now_v7()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(keys.to_text().expose_secret().as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => File::open(directory)?.sync_all().map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let first = KeyFile::load_or_create(&data_dir).unwrap();
        let second = KeyFile::load_or_create(&data_dir).unwrap();
        assert_eq!(first.keys, second.keys);
        assert!(first.is_new && !second.is_new);
        let mode = fs::metadata(data_dir.join(TOKENS)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);
    }

    #[test]
    fn processes_that_start_at_once_get_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let load = || KeyFile::load_or_create(directory.path()).unwrap();
        let loaded: Vec<KeyFile> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(loaded.iter().all(|file| file.keys == loaded[0].keys));
        assert_eq!(loaded.iter().filter(|file| file.is_new).count(), 1);
    }

    #[test]
    fn a_file_without_a_key_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOKENS);
        fs::write(&path, "hunter2").unwrap();
        let refused = KeyFile::load_or_create(directory.path()).unwrap_err();
        assert!(matches!(&refused, KeyFileError::Invalid { .. }), "{refused:?}");
        assert_eq!(refused.to_string(), format!("the key in {} cannot be used", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "hunter2");
    }
}

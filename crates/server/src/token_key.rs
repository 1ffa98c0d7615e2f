//! The key ring of this installation: from the settings, or generated once in the data directory.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use gathering_auth::KeyRing;
use gathering_domain::ExposeSecret as _;

use crate::config::Config;

const FILE: &str = "token.key";

/// The key ring that this instance shares with the others. Blocks.
///
/// # Errors
/// In words for the operator.
pub(crate) fn load_or_create(config: &Config) -> anyhow::Result<KeyRing> {
    if let Some(key) = &config.token_key {
        return KeyRing::parse(key.expose_secret()).context("GATHERING_TOKEN_KEY cannot be used");
    }
    let path = config.data_dir.join(FILE);
    let context = || format!("the token key in {} cannot be used", path.display());
    match fs::read_to_string(&path) {
        Ok(text) => KeyRing::parse(&text).with_context(context),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let keys = create(&config.data_dir, &path).with_context(context)?;
            if config.database_url.is_some() {
                tracing::warn!(
                    path = %path.display(),
                    "a token key was made; instances of this database on other hosts need the same GATHERING_TOKEN_KEY"
                );
            }
            Ok(keys)
        }
        Err(error) => Err(error).with_context(context),
    }
}

/// Writes a whole file beside and links it to its name, so that of two processes that start at once both read the key
/// of the first, and a crash leaves no partial key.
fn create(directory: &Path, path: &Path) -> anyhow::Result<KeyRing> {
    fs::create_dir_all(directory)?;
    let draft = directory.join(format!(".{FILE}.{}", uuid::Uuid::now_v7()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(KeyRing::generate()?.to_text().expose_secret().as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => fs::File::open(directory)?.sync_all()?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    Ok(KeyRing::parse(&fs::read_to_string(path)?)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let config = Config::from_sources(None, |name| {
            (name == "GATHERING_DATA_DIR").then(|| data_dir.display().to_string())
        });
        let config = config.unwrap();
        let first = load_or_create(&config).unwrap().to_text();
        let second = load_or_create(&config).unwrap().to_text();
        assert_eq!(first.expose_secret(), second.expose_secret());
        let mode = fs::metadata(data_dir.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);
    }
}

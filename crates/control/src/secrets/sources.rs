//! Secrets that the operator gives by other ways than the API: as environment variables, for all projects, and as files,
//! for all projects or for one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gathering_domain::{ProjectId, Secret, SecretName};

use super::{MAX_SECRET_BYTES, MAX_SECRETS, MIN_SECRET_BYTES};
use crate::ControlError;

/// What the operator gives. `Debug` shows no value.
#[derive(Debug, Clone, Default)]
pub struct SecretSources {
    environment: BTreeMap<SecretName, Secret>,
    directory: Option<PathBuf>,
}

impl SecretSources {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Also these environment variables, which have been allowed, each as its name and its value. One that cannot be a
    /// secret is left out, and logged by its name.
    #[must_use]
    pub fn with_environment(self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let secrets = variables.into_iter().filter_map(|(name, value)| match secret_of(&name, value) {
            Ok(secret) => Some(secret),
            Err(why) => {
                tracing::warn!("no secret is made of the environment variable for `{name}`: {why}");
                None
            }
        });
        Self { environment: secrets.take(MAX_SECRETS).collect(), ..self }
    }

    /// Also the files of this directory: `NAME` for all projects, `<project id>/NAME` for one. They are read when a node
    /// needs them, so a container platform may replace them.
    #[must_use]
    pub fn with_directory(self, directory: PathBuf) -> Self {
        Self { directory: Some(directory), ..self }
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = (&SecretName, &Secret)> {
        self.environment.iter()
    }

    /// The secrets in files as they are now. Those of the project win.
    pub(super) async fn read_files(
        &self,
        project: ProjectId,
    ) -> Result<BTreeMap<SecretName, Secret>, ControlError> {
        let Some(directory) = self.directory.clone() else { return Ok(BTreeMap::new()) };
        let read = move || {
            let mut secrets = read_directory(&directory)?;
            match read_directory(&directory.join(project.to_string())) {
                Ok(of_project) => secrets.extend(of_project),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            Ok(secrets)
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten();
        read.map_err(|error| {
            tracing::error!(error = %error, "cannot read the directory of secrets: {error}");
            ControlError::Unavailable(error.into())
        })
    }
}

fn read_directory(directory: &Path) -> std::io::Result<BTreeMap<SecretName, Secret>> {
    let mut secrets = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // Everything else is none of ours: directories of projects, and what a platform keeps beside the files.
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if name.parse::<SecretName>().is_err() || !entry.path().is_file() {
            continue;
        }
        if secrets.len() >= MAX_SECRETS {
            tracing::warn!("the directory of secrets has more than {MAX_SECRETS}: `{name}` is left out");
            continue;
        }
        if entry.path().metadata()?.len() > MAX_SECRET_BYTES as u64 + 1 {
            tracing::warn!("no secret is made of the file `{name}`: it is too large");
            continue;
        }
        let Ok(mut text) = std::fs::read_to_string(entry.path()) else {
            tracing::warn!("no secret is made of the file `{name}`: it cannot be read as text");
            continue;
        };
        // Most editors and `echo` end a file with a line end, which is no part of the value.
        if text.ends_with('\n') {
            text.pop();
        }
        match secret_of(&name, text) {
            Ok((name, secret)) => drop(secrets.insert(name, secret)),
            Err(why) => tracing::warn!("no secret is made of the file `{name}`: {why}"),
        }
    }
    Ok(secrets)
}

fn secret_of(name: &str, value: String) -> Result<(SecretName, Secret), String> {
    let name: SecretName = name.parse().map_err(|error| format!("{error}"))?;
    if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&value.len()) {
        return Err(format!("a value has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"));
    }
    Ok((name, Secret::from(value)))
}

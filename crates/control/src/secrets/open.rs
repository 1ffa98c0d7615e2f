//! How nodes come to the secrets of their project.
//!
//! An instance keeps the values of the projects whose nodes it runs. A node that uses secrets has them checked by one
//! small query, so it gets the value of this moment. For a node that uses none, what is kept is checked every few
//! seconds: it serves only to take values out of results.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gathering_auth::SealedValue;
use gathering_dag_engine::StoreError;
use gathering_domain::{ExposeSecret as _, ProjectId, RunId, Secret, SecretName};
use gathering_nodes::{KnownSecrets, ProjectSecrets};

use super::{SecretControl, context};
use crate::ControlError;

/// How old what is known may be for a node that uses no secret.
const FRESH_ENOUGH: Duration = Duration::from_secs(5);

/// The secrets of a project as a store has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredSecrets {
    /// Grows with every change.
    pub version: i64,
    /// All of them; `None` if the version is the one that the caller knows.
    pub secrets: Option<Vec<(SecretName, SealedValue)>>,
}

/// The secrets of a project as this instance knows them.
pub(super) struct Opened {
    known: Arc<KnownSecrets>,
    version: i64,
    /// Those of the database, decrypted.
    stored: BTreeMap<SecretName, Result<Secret, String>>,
    /// Those of files.
    files: BTreeMap<SecretName, Secret>,
    checked_at: Instant,
}

impl SecretControl {
    async fn open_now(&self, project: ProjectId) -> Result<Arc<KnownSecrets>, ControlError> {
        let before = self.opened.get(&project);
        let known_version = before.as_ref().map(|opened| opened.version);
        let checked_at = Instant::now();
        let found = self.store.find_secrets(project, known_version).await?;
        let files = self.sources.read_files(project).await?;
        let stored = match (found.secrets, &before) {
            (Some(secrets), _) => self.decrypt(project, secrets),
            (None, Some(before)) if same(&before.files, &files) => {
                let known = Arc::clone(&before.known);
                let Opened { version, stored, files, .. } = &**before;
                let (version, stored, files) = (*version, stored.clone(), files.clone());
                self.opened.insert(
                    project,
                    Arc::new(Opened { known: Arc::clone(&known), version, stored, files, checked_at }),
                );
                return Ok(known);
            }
            (None, Some(before)) => before.stored.clone(),
            (None, None) => BTreeMap::new(),
        };
        // The later of one name wins: what the project has itself, then what the operator gives.
        let given = self.sources.environment().chain(&files);
        let mut values: BTreeMap<_, _> =
            given.map(|(name, value)| (name.clone(), Ok(value.clone()))).collect();
        values.extend(stored.iter().map(|(name, value)| (name.clone(), value.clone())));
        let known = Arc::new(KnownSecrets::new(values));
        let opened = Opened { known: Arc::clone(&known), version: found.version, stored, files, checked_at };
        self.opened.insert(project, Arc::new(opened));
        Ok(known)
    }

    fn decrypt(
        &self,
        project: ProjectId,
        secrets: Vec<(SecretName, SealedValue)>,
    ) -> BTreeMap<SecretName, Result<Secret, String>> {
        let opened = secrets.into_iter().map(|(name, sealed)| {
            let value = self.keys.open(&sealed, &context(project, &name)).map_err(|error| {
                tracing::warn!(project.id = %project, secret.name = %name, "cannot read secret {name}: {error}");
                error.to_string()
            });
            (name, value)
        });
        opened.collect()
    }
}

fn same(one: &BTreeMap<SecretName, Secret>, other: &BTreeMap<SecretName, Secret>) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((name, value), (other_name, other))| {
            name == other_name && value.expose_secret() == other.expose_secret()
        })
}

#[async_trait]
impl ProjectSecrets for SecretControl {
    async fn open(&self, project: ProjectId, are_used: bool) -> Result<Arc<KnownSecrets>, StoreError> {
        if !are_used
            && let Some(opened) = self.opened.get(&project)
            && opened.checked_at.elapsed() < FRESH_ENOUGH
        {
            return Ok(Arc::clone(&opened.known));
        }
        self.open_now(project).await.map_err(ControlError::into_store_error)
    }

    fn note_use(&self, project: ProjectId, run: RunId, names: &BTreeSet<SecretName>) {
        self.uses.add(project, run, names);
    }
}

//! Secrets in memory.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_auth::{AuditEvent, SealedValue};
use gathering_domain::{ProjectId, SecretId, SecretName};

use super::MemoryControl;
use super::state::State;
use crate::{
    ControlError, OtherSecrets, PlannedSecret, ProjectSecret, ResealedBatch, Scoped, SealRule, SealedSecret,
    SecretStore, SecretUse, StoredSecrets, right,
};

pub(super) struct StoredSecret {
    id: SecretId,
    sealed: SealedValue,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

impl State {
    /// Checks the right again.
    pub(super) fn may_still_change(
        &self,
        project: &Scoped<ProjectId, right::Write>,
    ) -> Result<(), ControlError> {
        let stored = self.projects.get(project.thing()).ok_or(ControlError::NotFound)?;
        if let Some(user) = project.user() {
            project.check_again(&self.access(stored, user))?;
        }
        Ok(())
    }

    fn others(&self, project: ProjectId, name: &SecretName) -> OtherSecrets {
        let of_project = self.secrets.iter().filter(|((of, other), _)| *of == project && other != name);
        of_project.fold(OtherSecrets::default(), |sum, (_, stored)| OtherSecrets {
            n_secrets: sum.n_secrets + 1,
            size_bytes: sum.size_bytes + stored.sealed.size_bytes(),
        })
    }
}

#[async_trait]
impl SecretStore for MemoryControl {
    async fn set_secret(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        secret: &PlannedSecret,
    ) -> Result<bool, ControlError> {
        let mut state = self.lock();
        state.may_still_change(project)?;
        let (id, now) = (*project.thing(), Utc::now());
        secret.check(state.others(id, &secret.name))?;
        *state.secret_versions.entry(id).or_default() += 1;
        state.audit.push(secret.audit.clone());
        let sealed = secret.sealed.clone();
        match state.secrets.get_mut(&(id, secret.name.clone())) {
            Some(stored) => {
                (stored.sealed, stored.updated_at) = (sealed, now);
                Ok(false)
            }
            None => {
                let stored = StoredSecret {
                    id: secret.id,
                    sealed,
                    created_at: now,
                    updated_at: now,
                    last_used_at: None,
                };
                state.secrets.insert((id, secret.name.clone()), stored);
                Ok(true)
            }
        }
    }

    async fn delete_secret(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        name: &SecretName,
        audit: &AuditEvent,
    ) -> Result<(), ControlError> {
        let mut state = self.lock();
        state.may_still_change(project)?;
        let id = *project.thing();
        state.secrets.remove(&(id, name.clone())).ok_or(ControlError::NotFound)?;
        *state.secret_versions.entry(id).or_default() += 1;
        state.audit.push(audit.clone());
        Ok(())
    }

    async fn list_secrets(
        &self,
        project: &Scoped<ProjectId, right::Read>,
        after: Option<SecretId>,
        limit: usize,
    ) -> Result<Vec<ProjectSecret>, ControlError> {
        let state = self.lock();
        let of_project = state.secrets.iter().filter(|((of, _), _)| of == project.thing());
        let mut secrets: Vec<_> = of_project
            .map(|((_, name), stored)| ProjectSecret {
                id: stored.id,
                name: name.clone(),
                key_id: stored.sealed.key_id.clone(),
                created_at: stored.created_at,
                updated_at: stored.updated_at,
                last_used_at: stored.last_used_at,
            })
            .filter(|secret| after.is_none_or(|after| secret.id > after))
            .collect();
        secrets.sort_by_key(|secret| secret.id);
        secrets.truncate(limit);
        Ok(secrets)
    }

    async fn find_secrets(
        &self,
        project: ProjectId,
        known: Option<i64>,
    ) -> Result<StoredSecrets, ControlError> {
        let state = self.lock();
        let version = state.secret_versions.get(&project).copied().unwrap_or_default();
        if known == Some(version) {
            return Ok(StoredSecrets { version, secrets: None });
        }
        let of_project = state.secrets.iter().filter(|((of, _), _)| *of == project);
        let secrets = of_project.map(|((_, name), stored)| (name.clone(), stored.sealed.clone())).collect();
        Ok(StoredSecrets { version, secrets: Some(secrets) })
    }

    async fn note_secret_uses(&self, uses: &[SecretUse]) -> Result<(), ControlError> {
        let mut state = self.lock();
        for of_run in uses {
            if let Some(stored) = state.secrets.get_mut(&(of_run.project, of_run.name.clone())) {
                stored.last_used_at = Some(Utc::now());
            }
            state.audit.push(of_run.audit_event());
        }
        Ok(())
    }

    async fn reseal_secrets(
        &self,
        key_id: &str,
        after: Option<SecretId>,
        limit: usize,
        seal: &SealRule<'_>,
    ) -> Result<ResealedBatch, ControlError> {
        let mut state = self.lock();
        let mut others: Vec<_> = state.secrets.iter_mut().collect();
        others.retain(|(_, stored)| {
            stored.sealed.key_id != key_id && after.is_none_or(|after| stored.id > after)
        });
        others.sort_by_key(|(_, stored)| stored.id);
        let mut batch = ResealedBatch::default();
        for ((project, name), stored) in others.into_iter().take(limit) {
            let (id, sealed) = (stored.id, stored.sealed.clone());
            batch.last = Some(id);
            if let Some(sealed) = seal(&SealedSecret { id, project: *project, name: name.clone(), sealed }) {
                stored.sealed = sealed;
                batch.n_resealed += 1;
            }
        }
        Ok(batch)
    }
}

//! The port in memory.

mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::Utc;
use gathering_domain::{ApiKeyId, Digest, Email, UserId};

use super::InspectAccounts;
use crate::{
    Account, AccountChange, AccountRecord, AccountStore, ApiKey, AuditEvent, AuditFilter, AuditRecord,
    Charge, Charged, KeyStatus, NewAccount, NewApiKey, NewProject, NewSession, Origin, PasswordChange,
    PasswordHash, RefreshRotation, Role, RoleAtCreation, Rotation, SessionEnd, SessionId, StoreError,
    TokenId, TokenStatus,
};
use state::{KeyRow, RefreshRow, State};

/// Accounts in memory, for tests and demonstrations only.
///
/// It ends with the process, serves one process, and has no bound except for the login budgets: every account, session
/// and audit event stays until the end. Lookups by e-mail and lists scan everything.
#[derive(Debug, Default)]
pub struct MemoryAccounts {
    state: Mutex<State>,
}

impl MemoryAccounts {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The default projects, each with its owner.
    pub fn projects(&self) -> Vec<(UserId, NewProject)> {
        self.locked().projects.clone()
    }

    /// Held only for the length of a method, never across an await.
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AccountStore for MemoryAccounts {
    async fn create_account(
        &self,
        new: NewAccount,
        project: NewProject,
        audit: AuditEvent,
    ) -> Result<Account, StoreError> {
        let mut state = self.locked();
        if state.find_by_email(&new.email).is_some() {
            return Err(StoreError::AccountExists);
        }
        let role = match new.role {
            RoleAtCreation::Given(role) => role,
            RoleAtCreation::AdminIfFirst if state.accounts.is_empty() => Role::Admin,
            RoleAtCreation::AdminIfFirst => Role::Member,
        };
        let NewAccount { id, email, name, password_hash, .. } = new;
        let account = Account { id, email, name, role, is_active: true, created_at: Utc::now() };
        state.accounts.insert(id, AccountRecord { account: account.clone(), password_hash });
        state.projects.push((id, project));
        state.record(audit);
        Ok(account)
    }

    async fn find_account_by_email(&self, email: &Email) -> Result<Option<AccountRecord>, StoreError> {
        Ok(self.locked().find_by_email(email).cloned())
    }

    async fn find_account(&self, user: UserId) -> Result<Option<AccountRecord>, StoreError> {
        Ok(self.locked().accounts.get(&user).cloned())
    }

    async fn list_accounts(&self, before: Option<UserId>, limit: usize) -> Result<Vec<Account>, StoreError> {
        let state = self.locked();
        let accounts = state.accounts.values().map(|record| &record.account);
        let mut page: Vec<Account> =
            accounts.filter(|account| before.is_none_or(|before| account.id < before)).cloned().collect();
        page.sort_by_key(|account| std::cmp::Reverse(account.id));
        page.truncate(limit);
        Ok(page)
    }

    async fn update_account(
        &self,
        user: UserId,
        change: AccountChange,
        origin: Origin,
    ) -> Result<Account, StoreError> {
        let mut state = self.locked();
        AccountChange::permitted(state.accounts.get(&change.by).map(|by| &by.account))?;
        let before = state.accounts.get(&user).ok_or(StoreError::NoAccount)?.account.clone();
        let after = change.of(&before);
        let was_active_admin = before.is_active && before.role == Role::Admin;
        if was_active_admin && !state.has_active_admin_with(&after) {
            return Err(StoreError::LastAdmin);
        }
        if let Some(record) = state.accounts.get_mut(&user) {
            record.account = after.clone();
        }
        if !after.is_active {
            state.revoke_sessions(user, None);
        }
        for event in change.audit_events(&before, origin) {
            state.record(event);
        }
        Ok(after)
    }

    async fn change_password(&self, change: PasswordChange, audit: AuditEvent) -> Result<bool, StoreError> {
        let mut state = self.locked();
        match state.accounts.get_mut(&change.user) {
            Some(record) if record.password_hash == change.expected => record.password_hash = change.hash,
            _ => return Ok(false),
        }
        state.revoke_sessions(change.user, Some(change.keep));
        state.refund(&change.refund);
        state.record(audit);
        Ok(true)
    }

    async fn replace_password_hash(
        &self,
        user: UserId,
        expected: PasswordHash,
        hash: PasswordHash,
    ) -> Result<(), StoreError> {
        let mut state = self.locked();
        if let Some(record) = state.accounts.get_mut(&user).filter(|record| record.password_hash == expected)
        {
            record.password_hash = hash;
        }
        Ok(())
    }

    async fn charge(&self, charges: &[Charge]) -> Result<Charged, StoreError> {
        Ok(self.locked().charge(charges))
    }

    async fn begin_session(
        &self,
        session: NewSession,
        refund: &[Charge],
        audit: AuditEvent,
    ) -> Result<(), StoreError> {
        let row = RefreshRow {
            user: session.user,
            session: session.id,
            expires_at: Utc::now() + session.lifetime,
            is_spent: false,
        };
        let mut state = self.locked();
        state.refresh_tokens.insert(session.refresh_token, row);
        state.refund(refund);
        state.record(audit);
        Ok(())
    }

    async fn rotate_refresh_token(
        &self,
        rotation: RefreshRotation,
        origin: Origin,
    ) -> Result<Rotation, StoreError> {
        let mut state = self.locked();
        let outcome = state.rotate(&rotation);
        state.record(outcome.audit_event(origin));
        Ok(outcome)
    }

    async fn end_session(&self, end: SessionEnd, audit: AuditEvent) -> Result<(), StoreError> {
        let mut state = self.locked();
        let named = end.refresh_token.and_then(|digest| state.refresh_tokens.get(&digest));
        let named = named.filter(|row| row.user == end.user).map(|row| row.session);
        state.revoked_sessions.extend([end.session].into_iter().chain(named));
        let forget_at = Utc::now() + end.token.remaining;
        state.revoked_tokens.insert(end.token.id, forget_at);
        state.record(match named.filter(|named| *named != end.session) {
            Some(other) => audit.with_other_session(other),
            None => audit,
        });
        Ok(())
    }

    async fn find_token_status(
        &self,
        user: UserId,
        session: SessionId,
        token: TokenId,
    ) -> Result<Option<TokenStatus>, StoreError> {
        let state = self.locked();
        let is_revoked = state.is_revoked(session, token);
        Ok(state.accounts.get(&user).map(|record| TokenStatus {
            role: record.account.role,
            is_active: record.account.is_active,
            is_revoked,
        }))
    }

    async fn create_api_key(&self, new: NewApiKey, audit: AuditEvent) -> Result<ApiKey, StoreError> {
        let mut state = self.locked();
        let is_active = state.accounts.get(&new.user).ok_or(StoreError::NoAccount)?.account.is_active;
        if !is_active || state.is_revoked(new.session, new.token) {
            return Err(StoreError::Revoked);
        }
        let once = new.once.map(|once| ((new.user, once.key.as_str().to_owned()), once.digest));
        match once.as_ref().and_then(|(key, digest)| Some((digest, state.idempotency_keys.get(key)?))) {
            Some((digest, (stored, id))) if digest == stored => {
                return Err(StoreError::KeyCreatedBefore(*id));
            }
            Some(_) => return Err(StoreError::OtherRequest),
            None => {}
        }
        if state.keys_of(new.user).count() >= ApiKey::MAX_PER_ACCOUNT {
            return Err(StoreError::TooManyKeys);
        }
        let NewApiKey { id, user, name, secret, scopes, expires_at, .. } = new;
        state.idempotency_keys.extend(once.map(|(key, digest)| (key, (digest, id))));
        let key = ApiKey { id, name, scopes, created_at: Utc::now(), expires_at, last_used_at: None };
        state.api_keys.insert(secret, KeyRow { user, key: key.clone(), is_revoked: false });
        state.record(audit);
        Ok(key)
    }

    async fn list_api_keys(&self, user: UserId) -> Result<Vec<ApiKey>, StoreError> {
        let mut keys: Vec<ApiKey> = self.locked().keys_of(user).map(|row| row.key.clone()).collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.id));
        Ok(keys)
    }

    async fn revoke_api_key(
        &self,
        user: UserId,
        key: ApiKeyId,
        audit: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut state = self.locked();
        let row =
            state.api_keys.values_mut().find(|row| row.user == user && row.key.id == key && !row.is_revoked);
        let Some(row) = row else { return Ok(false) };
        row.is_revoked = true;
        state.record(audit);
        Ok(true)
    }

    async fn find_key_status(&self, secret: Digest) -> Result<Option<KeyStatus>, StoreError> {
        let mut state = self.locked();
        let now = Utc::now();
        let Some(row) = state.api_keys.get_mut(&secret) else { return Ok(None) };
        let is_over = row.is_revoked || row.key.expires_at.is_some_and(|expires_at| expires_at <= now);
        row.key.last_used_at = Some(now);
        let (id, user, scopes) = (row.key.id, row.user, row.key.scopes);
        Ok(state.accounts.get(&user).map(|record| KeyStatus {
            id,
            user,
            role: record.account.role,
            is_active: record.account.is_active,
            is_over,
            scopes,
        }))
    }

    async fn record_audit(&self, audit: AuditEvent) -> Result<(), StoreError> {
        self.locked().record(audit);
        Ok(())
    }

    async fn list_audit_events(
        &self,
        filter: &AuditFilter,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let state = self.locked();
        let passes = |record: &&AuditRecord| {
            filter.user.is_none_or(|user| record.event.user == Some(user))
                && filter.kind.is_none_or(|kind| record.event.kind == kind)
                && filter.from.is_none_or(|from| record.at >= from)
                && filter.to.is_none_or(|to| record.at < to)
                && filter.before.is_none_or(|before| record.id < before)
        };
        Ok(state.audit.iter().rev().filter(passes).take(limit).cloned().collect())
    }
}

#[async_trait]
impl InspectAccounts for MemoryAccounts {
    async fn audit_trail(&self) -> Vec<AuditEvent> {
        self.locked().audit.iter().map(|record| record.event.clone()).collect()
    }
}

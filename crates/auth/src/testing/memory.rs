//! The port in memory, gone with the process.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{Digest, Email, UserId};

use super::InspectAccounts;
use crate::{
    Account, AccountRecord, AccountStore, AuditEvent, NewAccount, NewProject, NewSession, Origin,
    RefreshRefusal, RefreshRotation, RefreshTokenState, Role, RoleAtCreation, Rotation, SessionEnd,
    SessionId, Standing, StoreError, TokenId,
};

/// Accounts in memory. Grows without bound: for tests and demonstrations only.
#[derive(Debug, Default)]
pub struct MemoryAccounts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<UserId, AccountRecord>,
    projects: Vec<(UserId, NewProject)>,
    refresh_tokens: HashMap<Digest, RefreshRow>,
    revoked_sessions: HashSet<SessionId>,
    revoked_tokens: HashMap<TokenId, DateTime<Utc>>,
    audit: Vec<AuditEvent>,
}

#[derive(Debug, Clone)]
struct RefreshRow {
    user: UserId,
    session: SessionId,
    expires_at: DateTime<Utc>,
    is_spent: bool,
}

impl MemoryAccounts {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The default projects that were created, each with its owner.
    pub fn projects(&self) -> Vec<(UserId, NewProject)> {
        self.locked().projects.clone()
    }

    /// Held only for the length of a method, never across an await.
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find_by_email(&self, email: &Email) -> Option<&AccountRecord> {
        self.accounts.values().find(|record| record.account.email == *email)
    }

    fn refresh_state(&self, row: &RefreshRow) -> RefreshTokenState {
        RefreshTokenState {
            is_revoked: self.revoked_sessions.contains(&row.session),
            is_spent: row.is_spent,
            is_expired: row.expires_at <= Utc::now(),
            account_is_active: self.accounts.get(&row.user).is_some_and(|record| record.account.is_active),
        }
    }

    fn rotate(&mut self, rotation: &RefreshRotation) -> Rotation {
        let Some(row) = self.refresh_tokens.get(&rotation.spent).cloned() else {
            return Rotation::Refused { user: None, refusal: RefreshRefusal::Unknown };
        };
        let refusal = self.refresh_state(&row).refusal();
        let account = self.accounts.get(&row.user).map(|record| record.account.clone());
        match (refusal, account) {
            (None, Some(account)) => {
                let expires_at = Utc::now() + rotation.lifetime;
                self.refresh_tokens.insert(rotation.next, RefreshRow { expires_at, ..row.clone() });
                let session = row.session;
                self.refresh_tokens.insert(rotation.spent, RefreshRow { is_spent: true, ..row });
                Rotation::Rotated { account, session }
            }
            (refusal, _) => {
                let refusal = refusal.unwrap_or(RefreshRefusal::Unknown);
                if refusal == RefreshRefusal::Reused {
                    self.revoked_sessions.insert(row.session);
                }
                Rotation::Refused { user: Some(row.user), refusal }
            }
        }
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
        state.audit.push(audit);
        Ok(account)
    }

    async fn find_account_by_email(&self, email: &Email) -> Result<Option<AccountRecord>, StoreError> {
        Ok(self.locked().find_by_email(email).cloned())
    }

    async fn find_account(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        Ok(self.locked().accounts.get(&user).map(|record| record.account.clone()))
    }

    async fn begin_session(&self, session: NewSession, audit: AuditEvent) -> Result<(), StoreError> {
        let row = RefreshRow {
            user: session.user,
            session: session.id,
            expires_at: Utc::now() + session.lifetime,
            is_spent: false,
        };
        let mut state = self.locked();
        state.refresh_tokens.insert(session.refresh_token, row);
        state.audit.push(audit);
        Ok(())
    }

    async fn rotate_refresh_token(
        &self,
        rotation: RefreshRotation,
        origin: Origin,
    ) -> Result<Rotation, StoreError> {
        let mut state = self.locked();
        let outcome = state.rotate(&rotation);
        state.audit.push(outcome.audit_event(origin));
        Ok(outcome)
    }

    async fn end_session(&self, end: SessionEnd, audit: AuditEvent) -> Result<(), StoreError> {
        let mut state = self.locked();
        let named = end.refresh_token.and_then(|digest| state.refresh_tokens.get(&digest));
        let named = named.filter(|row| row.user == end.user).map(|row| row.session);
        state.revoked_sessions.extend([end.session].into_iter().chain(named));
        let forget_at = Utc::now() + end.token.remaining;
        state.revoked_tokens.insert(end.token.id, forget_at);
        state.audit.push(audit);
        Ok(())
    }

    async fn find_standing(
        &self,
        user: UserId,
        session: SessionId,
        token: TokenId,
    ) -> Result<Option<Standing>, StoreError> {
        let state = self.locked();
        let token_is_revoked =
            state.revoked_tokens.get(&token).is_some_and(|forget_at| Utc::now() < *forget_at);
        let is_revoked = token_is_revoked || state.revoked_sessions.contains(&session);
        Ok(state.accounts.get(&user).map(|record| Standing {
            role: record.account.role,
            is_active: record.account.is_active,
            is_revoked,
        }))
    }

    async fn record_audit(&self, audit: AuditEvent) -> Result<(), StoreError> {
        self.locked().audit.push(audit);
        Ok(())
    }
}

#[async_trait]
impl InspectAccounts for MemoryAccounts {
    async fn audit_trail(&self) -> Vec<AuditEvent> {
        self.locked().audit.clone()
    }

    async fn disable_account(&self, user: UserId) {
        if let Some(record) = self.locked().accounts.get_mut(&user) {
            record.account.is_active = false;
        }
    }
}

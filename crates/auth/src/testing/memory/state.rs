//! The content of the in-memory store, and the decisions made while it is locked.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gathering_domain::{ApiKeyId, AuditEventId, Digest, Email, UserId};

use crate::{
    Account, AccountRecord, ApiKey, AuditEvent, AuditRecord, Charge, Charged, NewProject, RefreshRefusal,
    RefreshRotation, RefreshTokenState, Role, Rotation, SessionId, TokenId,
};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) accounts: HashMap<UserId, AccountRecord>,
    pub(super) projects: Vec<(UserId, NewProject)>,
    pub(super) refresh_tokens: HashMap<Digest, RefreshRow>,
    pub(super) revoked_sessions: HashSet<SessionId>,
    pub(super) revoked_tokens: HashMap<TokenId, DateTime<Utc>>,
    pub(super) api_keys: HashMap<Digest, KeyRow>,
    /// The request that used an account's idempotency key, and the API key that it created.
    pub(super) idempotency_keys: HashMap<(UserId, String), (Digest, ApiKeyId)>,
    /// The time until which the budget of a key is used up.
    budgets: HashMap<Digest, DateTime<Utc>>,
    pub(super) audit: Vec<AuditRecord>,
}

#[derive(Debug, Clone)]
pub(super) struct RefreshRow {
    pub(super) user: UserId,
    pub(super) session: SessionId,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) is_spent: bool,
}

#[derive(Debug, Clone)]
pub(super) struct KeyRow {
    pub(super) user: UserId,
    pub(super) key: ApiKey,
    pub(super) is_revoked: bool,
}

impl State {
    pub(super) fn find_by_email(&self, email: &Email) -> Option<&AccountRecord> {
        self.accounts.values().find(|record| record.account.email == *email)
    }

    pub(super) fn record(&mut self, event: AuditEvent) {
        self.audit.push(AuditRecord { id: AuditEventId::new(), event, at: Utc::now() });
    }

    /// Whether an active admin would remain if `changed` replaced the account with its id.
    pub(super) fn has_active_admin_with(&self, changed: &Account) -> bool {
        let others =
            self.accounts.values().map(|record| &record.account).filter(|other| other.id != changed.id);
        others.chain([changed]).any(|account| account.is_active && account.role == Role::Admin)
    }

    pub(super) fn revoke_sessions(&mut self, user: UserId, keep: Option<SessionId>) {
        let sessions = self.refresh_tokens.values().filter(|row| row.user == user).map(|row| row.session);
        self.revoked_sessions.extend(sessions.filter(|session| Some(*session) != keep));
    }

    pub(super) fn is_revoked(&self, session: SessionId, token: TokenId) -> bool {
        let token_is_revoked =
            self.revoked_tokens.get(&token).is_some_and(|forget_at| Utc::now() < *forget_at);
        token_is_revoked || self.revoked_sessions.contains(&session)
    }

    pub(super) fn keys_of(&self, user: UserId) -> impl Iterator<Item = &KeyRow> {
        self.api_keys.values().filter(move |row| row.user == user && !row.is_revoked)
    }

    pub(super) fn charge(&mut self, charges: &[Charge]) -> Charged {
        let now = Utc::now();
        // A budget that is full again needs no entry.
        self.budgets.retain(|_, spent_until| *spent_until > now);
        let spent_until = |charge: &Charge| {
            self.budgets.get(&charge.key).copied().unwrap_or(now).max(now) + charge.interval
        };
        let missing =
            charges.iter().map(|charge| spent_until(charge) - (now + charge.interval * charge.burst));
        match missing.max().filter(|missing| *missing > TimeDelta::zero()) {
            Some(missing) => Charged::Refused { retry_after: missing.to_std().unwrap_or(Duration::ZERO) },
            None => {
                let paid: Vec<_> = charges.iter().map(|charge| (charge.key, spent_until(charge))).collect();
                self.budgets.extend(paid);
                Charged::Paid
            }
        }
    }

    pub(super) fn refund(&mut self, charges: &[Charge]) {
        for charge in charges {
            if let Some(spent_until) = self.budgets.get_mut(&charge.key) {
                *spent_until -= charge.interval;
            }
        }
    }

    pub(super) fn rotate(&mut self, rotation: &RefreshRotation) -> Rotation {
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

    fn refresh_state(&self, row: &RefreshRow) -> RefreshTokenState {
        RefreshTokenState {
            is_revoked: self.revoked_sessions.contains(&row.session),
            is_spent: row.is_spent,
            is_expired: row.expires_at <= Utc::now(),
            account_is_active: self.accounts.get(&row.user).is_some_and(|record| record.account.is_active),
        }
    }
}

//! Accounts.

use std::fmt;

use chrono::{DateTime, Utc};
use gathering_domain::{Email, ProjectId, UserId};
use serde_json::json;

use crate::{AuditEvent, AuditKind, Charge, Origin, Role, SessionId, StoreError};

/// A person or program that can log in, as others may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: UserId,
    /// The e-mail address to log in with, unique.
    pub email: Email,
    /// The display name.
    pub name: String,
    /// The role on the whole server.
    pub role: Role,
    /// `false` after an admin disabled it: it can neither log in nor use earlier credentials.
    pub is_active: bool,
    /// The time of creation, in UTC, by the store's clock.
    pub created_at: DateTime<Utc>,
}

/// An account with the data that a login needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// The account.
    pub account: Account,
    /// The hash of its password.
    pub password_hash: PasswordHash,
}

/// An account to be created.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Its id, chosen here so that the audit event can name it.
    pub id: UserId,
    /// The e-mail address to log in with.
    pub email: Email,
    /// The display name.
    pub name: String,
    /// The hash of its password.
    pub password_hash: PasswordHash,
    /// The rule for its role.
    pub role: RoleAtCreation,
}

/// The rule for the role of a new account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleAtCreation {
    /// Admin if there is no account yet, else member. The store decides in the transaction that inserts the account, so
    /// that of two concurrent first accounts one becomes admin.
    AdminIfFirst,
    /// This role.
    Given(Role),
}

/// The default project of a new account: the account owns it, and requests without a project use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProject {
    /// Its id.
    pub id: ProjectId,
    /// The display name.
    pub name: String,
}

/// An admin's change of an account. Absent fields stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountChange {
    /// The new role.
    pub role: Option<Role>,
    /// Whether the account may log in and use its credentials.
    pub is_active: Option<bool>,
    /// The admin who makes the change.
    pub by: UserId,
}

impl AccountChange {
    /// The account after the change.
    #[must_use]
    pub fn of(&self, account: &Account) -> Account {
        Account {
            role: self.role.unwrap_or(account.role),
            is_active: self.is_active.unwrap_or(account.is_active),
            ..account.clone()
        }
    }

    /// Whether `by` may make the change, judged by that account at the moment of the change.
    ///
    /// # Errors
    /// [`StoreError::Revoked`] if the account is disabled or gone, [`StoreError::Denied`] if it is no longer an admin.
    pub fn permitted(by: Option<&Account>) -> Result<(), StoreError> {
        match by.filter(|by| by.is_active) {
            None => Err(StoreError::Revoked),
            Some(by) if by.role == Role::Admin => Ok(()),
            Some(_) => Err(StoreError::Denied),
        }
    }

    /// The events that the store writes with the change: one for each field that really changed.
    pub fn audit_events(&self, before: &Account, origin: Origin) -> Vec<AuditEvent> {
        let after = self.of(before);
        let event = |kind| AuditEvent::new(kind, Some(before.id), origin);
        let mut events = Vec::new();
        if after.role != before.role {
            let detail =
                json!({ "from": before.role.as_str(), "to": after.role.as_str(), "by": self.by.as_uuid() });
            events.push(event(AuditKind::RoleChanged).with_detail(detail));
        }
        if after.is_active != before.is_active {
            let kind = if after.is_active { AuditKind::AccountEnabled } else { AuditKind::AccountDisabled };
            events.push(event(kind).with_detail(json!({ "by": self.by.as_uuid() })));
        }
        events
    }
}

/// A new password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordChange {
    /// The account.
    pub user: UserId,
    /// The hash against which the current password was verified.
    pub expected: PasswordHash,
    /// The hash of the new password.
    pub hash: PasswordHash,
    /// The session that continues; the others end.
    pub keep: SessionId,
    /// The charges of the attempt, to be refunded.
    pub refund: Vec<Charge>,
}

/// A bcrypt hash in its modular crypt form (60 ASCII characters). `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The hash as it is stored. Do not log or send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for PasswordHash {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

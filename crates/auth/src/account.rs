//! Accounts: what is known of one, and what a new one needs.

use std::fmt;

use chrono::{DateTime, Utc};
use gathering_domain::{Email, ProjectId, UserId};
use serde_json::json;

use crate::{AuditEvent, AuditKind, Charge, Origin, Role, SessionId, StoreError};

/// A person or program that can log in, as others may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub id: UserId,
    /// The name to log in with; no two accounts share one.
    pub email: Email,
    /// What people call them.
    pub name: String,
    /// What they may do on the whole server.
    pub role: Role,
    /// `false` once an admin disabled it: it can neither log in nor use what it was given before.
    pub is_active: bool,
    /// Since when, in UTC, by the store's clock.
    pub created_at: DateTime<Utc>,
}

/// An account together with what a login needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// The account.
    pub account: Account,
    /// What its password is verified against.
    pub password_hash: PasswordHash,
}

/// An account to be created.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Its id, so that the audit event beside it can name it.
    pub id: UserId,
    /// The name to log in with.
    pub email: Email,
    /// What people call them.
    pub name: String,
    /// What the password will be verified against.
    pub password_hash: PasswordHash,
    /// How its role is found.
    pub role: RoleAtCreation,
}

/// How the role of a new account is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleAtCreation {
    /// Admin if there is no account yet, else member. The store decides it in the transaction that inserts the
    /// account, so that of two first ones at the same time one becomes admin.
    AdminIfFirst,
    /// This one.
    Given(Role),
}

/// The project that an account is born with: its owner, and where creates without a project land.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProject {
    /// Its id.
    pub id: ProjectId,
    /// What people call it.
    pub name: String,
}

/// What an admin changes of an account; what is absent stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountChange {
    /// The new role.
    pub role: Option<Role>,
    /// Whether it may log in and use what it was given.
    pub is_active: Option<bool>,
    /// The admin who does it.
    pub by: UserId,
}

impl AccountChange {
    /// The account with the change.
    #[must_use]
    pub fn of(&self, account: &Account) -> Account {
        Account {
            role: self.role.unwrap_or(account.role),
            is_active: self.is_active.unwrap_or(account.is_active),
            ..account.clone()
        }
    }

    /// Whether the admin who does it still may, by their account as it stands when the store makes the change.
    ///
    /// # Errors
    /// [`StoreError::Revoked`] if it is disabled or gone, [`StoreError::Denied`] if it is no admin's any more.
    pub fn permitted(by: Option<&Account>) -> Result<(), StoreError> {
        match by.filter(|by| by.is_active) {
            None => Err(StoreError::Revoked),
            Some(by) if by.role == Role::Admin => Ok(()),
            Some(_) => Err(StoreError::Denied),
        }
    }

    /// The events that the store writes with it: one for each thing that is another one afterwards.
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
    /// Whose.
    pub user: UserId,
    /// The hash that the current password was verified against.
    pub expected: PasswordHash,
    /// The hash of the new one.
    pub hash: PasswordHash,
    /// The session that goes on; the others end.
    pub keep: SessionId,
    /// What the attempt was charged, to be given back.
    pub refund: Vec<Charge>,
}

/// A bcrypt hash in its modular crypt form (60 ASCII characters). Not shown in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The hash as it is stored. Not for logs or answers.
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

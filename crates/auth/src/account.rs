//! Accounts: what is known of one, and what a new one needs.

use std::fmt;

use chrono::{DateTime, Utc};
use gathering_domain::{Email, ProjectId, UserId};

use crate::Role;

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

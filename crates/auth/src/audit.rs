//! The record of what concerned security: who, what, from where.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use gathering_domain::{AuditEventId, RequestId, UserId};
use serde_json::{Map, Value, json};

use crate::SessionId;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; absent when it was no network request.
    pub address: Option<IpAddr>,
    /// The request; absent outside one.
    pub request_id: Option<RequestId>,
}

/// Something to be recorded for good. The store adds its sequence and the time, by its own clock.
///
/// The record outlives the account, so it holds ids and reasons, never a password, a token or the e-mail of somebody
/// who has no account.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// What happened.
    pub kind: AuditKind,
    /// The account that it concerns; absent when it is unknown.
    pub user: Option<UserId>,
    /// From where.
    pub origin: Origin,
    /// What else is worth knowing: a JSON object.
    pub detail: Value,
}

/// Which events to list; what is absent does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// About this account.
    pub user: Option<UserId>,
    /// Of this kind.
    pub kind: Option<AuditKind>,
    /// Not before this time (UTC).
    pub from: Option<DateTime<Utc>>,
    /// Before this time (UTC).
    pub to: Option<DateTime<Utc>>,
    /// Older than this one: the last of the page before.
    pub before: Option<AuditEventId>,
}

/// An audit event as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Its id; sorts by time.
    pub id: AuditEventId,
    /// What happened.
    pub event: AuditEvent,
    /// When, by the store's clock, in UTC.
    pub at: DateTime<Utc>,
}

macro_rules! audit_kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What can be recorded. The words are stable: they are stored and asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum AuditKind { $($(#[$doc])* $name,)* }

        impl AuditKind {
            /// Every kind.
            pub const ALL: &[AuditKind] = &[$(AuditKind::$name,)*];

            /// The word for it in SQL and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(AuditKind::$name => $word,)* }
            }
        }
    };
}

audit_kinds! {
    /// An account was created.
    AccountRegistered = "account_registered",
    /// An account was asked for and not created.
    RegistrationFailed = "registration_failed",
    /// A password was right and tokens were given.
    LoginSucceeded = "login_succeeded",
    /// A login was refused; the reason is in the detail.
    LoginFailed = "login_failed",
    /// A refresh token was spent for new tokens.
    TokenRefreshed = "token_refreshed",
    /// A refresh was refused; the reason is in the detail.
    RefreshFailed = "refresh_failed",
    /// A refresh token came a second time, so its session was revoked.
    RefreshTokenReused = "refresh_token_reused",
    /// A session was ended by its owner.
    LoggedOut = "logged_out",
    /// A password was changed; the account's other sessions ended.
    PasswordChanged = "password_changed",
    /// A change of password was refused; the reason is in the detail.
    PasswordChangeFailed = "password_change_failed",
    /// An account's global role was changed by an admin.
    RoleChanged = "role_changed",
    /// An account was disabled by an admin; its sessions ended.
    AccountDisabled = "account_disabled",
    /// An account was enabled by an admin.
    AccountEnabled = "account_enabled",
    /// An API key was created.
    ApiKeyCreated = "api_key_created",
    /// An API key was revoked by its owner.
    ApiKeyRevoked = "api_key_revoked",
    /// A project was created.
    ProjectCreated = "project_created",
    /// A project was deleted.
    ProjectDeleted = "project_deleted",
    /// An account became member of a project.
    MemberAdded = "member_added",
    /// A member got another role.
    MemberRoleChanged = "member_role_changed",
    /// A membership ended.
    MemberRemoved = "member_removed",
    /// A project's budget was set.
    BudgetSet = "budget_set",
    /// A run was allowed to spend more than its project's budget.
    BudgetToppedUp = "budget_topped_up",
}

impl AuditEvent {
    /// An event without detail.
    pub fn new(kind: AuditKind, user: Option<UserId>, origin: Origin) -> Self {
        Self { kind, user, origin, detail: Value::Object(Map::new()) }
    }

    /// The event with the reason for a refusal.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> Self {
        self.detail = json!({ "reason": reason });
        self
    }

    /// The event of a session's end, with the other session that ended with it.
    #[must_use]
    pub fn with_other_session(mut self, session: SessionId) -> Self {
        if let Some(detail) = self.detail.as_object_mut() {
            detail.insert("other_session".to_owned(), json!(session));
        }
        self
    }

    /// The event with this detail instead of what it had.
    #[must_use]
    pub fn with_detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuditKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = AuditKind::ALL.iter().copied().find(|kind| kind.as_str() == text);
        named.ok_or_else(|| {
            let known: Vec<&str> = AuditKind::ALL.iter().map(|kind| kind.as_str()).collect();
            let text: String = text.chars().take(32).collect();
            format!("`{text}` is no kind of audit event: use one of {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_words_do_not_change() {
        let words: Vec<&str> = AuditKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(
            words,
            [
                "account_registered",
                "registration_failed",
                "login_succeeded",
                "login_failed",
                "token_refreshed",
                "refresh_failed",
                "refresh_token_reused",
                "logged_out",
                "password_changed",
                "password_change_failed",
                "role_changed",
                "account_disabled",
                "account_enabled",
                "api_key_created",
                "api_key_revoked",
                "project_created",
                "project_deleted",
                "member_added",
                "member_role_changed",
                "member_removed",
                "budget_set",
                "budget_topped_up",
            ]
        );
        assert!(AuditKind::ALL.iter().all(|kind| kind.as_str().parse() == Ok(*kind)));
    }
}

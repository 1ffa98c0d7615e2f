//! The audit record: who did what, and from where.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use gathering_domain::{AuditEventId, RequestId, UserId};
use serde_json::{Map, Value, json};

use crate::SessionId;

/// The origin of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; absent if it was not a network request.
    pub address: Option<IpAddr>,
    /// The request's id; absent outside a request.
    pub request_id: Option<RequestId>,
}

/// An event for the audit record. The store adds a sequence number and the time, by its own clock.
///
/// The record outlives the account. It contains ids and reasons, never a password, a token or the e-mail of somebody
/// without an account.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// What happened.
    pub kind: AuditKind,
    /// The account concerned; absent if unknown.
    pub user: Option<UserId>,
    /// The origin of the request.
    pub origin: Origin,
    /// Details, a JSON object.
    pub detail: Value,
}

/// A filter for events. An absent field does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Events of this account.
    pub user: Option<UserId>,
    /// Events of this kind.
    pub kind: Option<AuditKind>,
    /// Events at or after this time (UTC).
    pub from: Option<DateTime<Utc>>,
    /// Events before this time (UTC).
    pub to: Option<DateTime<Utc>>,
    /// Events before this one, the last of the previous page.
    pub before: Option<AuditEventId>,
}

/// An audit event as the store recorded it.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Its id, which sorts by time.
    pub id: AuditEventId,
    /// What happened.
    pub event: AuditEvent,
    /// The time, by the store's clock, in UTC.
    pub at: DateTime<Utc>,
}

macro_rules! audit_kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// The kinds of events. Their names are stored and queried, so they never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum AuditKind { $($(#[$doc])* $name,)* }

        impl AuditKind {
            /// Every kind.
            pub const ALL: &[AuditKind] = &[$(AuditKind::$name,)*];

            /// The kind's name in SQL and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(AuditKind::$name => $word,)* }
            }
        }
    };
}

audit_kinds! {
    /// An account was created.
    AccountRegistered = "account_registered",
    /// A registration was refused.
    RegistrationFailed = "registration_failed",
    /// A login succeeded and issued tokens.
    LoginSucceeded = "login_succeeded",
    /// A login was refused; the detail has the reason.
    LoginFailed = "login_failed",
    /// A refresh token was exchanged for new tokens.
    TokenRefreshed = "token_refreshed",
    /// A refresh was refused; the detail has the reason.
    RefreshFailed = "refresh_failed",
    /// A refresh token was used a second time, so its session was revoked.
    RefreshTokenReused = "refresh_token_reused",
    /// The owner ended a session.
    LoggedOut = "logged_out",
    /// A password was changed; the account's other sessions ended.
    PasswordChanged = "password_changed",
    /// A password change was refused; the detail has the reason.
    PasswordChangeFailed = "password_change_failed",
    /// An admin changed an account's global role.
    RoleChanged = "role_changed",
    /// An admin disabled an account; its sessions ended.
    AccountDisabled = "account_disabled",
    /// An admin enabled an account.
    AccountEnabled = "account_enabled",
    /// An API key was created.
    ApiKeyCreated = "api_key_created",
    /// The owner revoked an API key.
    ApiKeyRevoked = "api_key_revoked",
    /// A project was created.
    ProjectCreated = "project_created",
    /// A project was deleted.
    ProjectDeleted = "project_deleted",
    /// An account became a member of a project.
    MemberAdded = "member_added",
    /// A member's role changed.
    MemberRoleChanged = "member_role_changed",
    /// A membership ended.
    MemberRemoved = "member_removed",
    /// A project's budget was set.
    BudgetSet = "budget_set",
    /// A run got an allowance beyond its project's budget.
    BudgetToppedUp = "budget_topped_up",
    /// A hook was created: an address that starts runs or posts events without a login.
    HookCreated = "hook_created",
    /// The way in which calls of a hook are verified changed, or its secret.
    HookVerificationChanged = "hook_verification_changed",
    /// A hook was deleted.
    HookDeleted = "hook_deleted",
    /// A secret of a project was set. The value is never in the record.
    SecretSet = "secret_set",
    /// A secret of a project was deleted.
    SecretDeleted = "secret_deleted",
    /// A run used a secret of its project, for the first time in that run.
    SecretUsed = "secret_used",
    /// An MCP server was mounted in a project, with the definitions of its tools.
    McpServerMounted = "mcp_server_mounted",
    /// Other definitions of the tools of a mounted MCP server were accepted.
    McpToolsAccepted = "mcp_tools_accepted",
    /// An MCP server was unmounted.
    McpServerUnmounted = "mcp_server_unmounted",
}

impl AuditEvent {
    /// An event without details.
    pub fn new(kind: AuditKind, user: Option<UserId>, origin: Origin) -> Self {
        Self { kind, user, origin, detail: Value::Object(Map::new()) }
    }

    /// Adds the reason for a refusal.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> Self {
        self.detail = json!({ "reason": reason });
        self
    }

    /// Adds the other session that ended with this one.
    #[must_use]
    pub fn with_other_session(mut self, session: SessionId) -> Self {
        if let Some(detail) = self.detail.as_object_mut() {
            detail.insert("other_session".to_owned(), json!(session));
        }
        self
    }

    /// Replaces the details.
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
            format!("unknown kind of audit event `{text}`: use one of {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_names_never_change() {
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
                "hook_created",
                "hook_verification_changed",
                "hook_deleted",
                "secret_set",
                "secret_deleted",
                "secret_used",
                "mcp_server_mounted",
                "mcp_tools_accepted",
                "mcp_server_unmounted",
            ]
        );
        assert!(AuditKind::ALL.iter().all(|kind| kind.as_str().parse() == Ok(*kind)));
    }
}

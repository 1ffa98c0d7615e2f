//! Permissions: global roles, roles in a project, and the decision that combines them.

use std::fmt;
use std::str::FromStr;

use crate::Caller;

/// The role of an account on the whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Works in the projects of which the account is a member.
    Member,
    /// May do everything, in every project.
    Admin,
}

/// The role of a member in one project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProjectRole {
    /// Reads.
    Viewer,
    /// Also changes what is in the project, and runs it.
    Editor,
    /// Also manages the project itself and its members.
    Owner,
}

/// What a caller wants to do in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read its content and files, and follow runs.
    Read,
    /// Create, change and delete agents, pipelines, schedules, files and similar.
    Write,
    /// Start, cancel and rerun runs, give tasks, decide approvals.
    Run,
    /// Change members, secrets and budgets; change or delete the project.
    Manage,
}

/// Why permission is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// The caller is not a member and must not learn that the project exists.
    #[error("the project is not visible to the caller")]
    Invisible,
    /// The caller is a member, but the role does not allow this.
    #[error("the caller's role does not allow this")]
    Forbidden,
}

/// A text that is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown role `{text}`: use one of {known}")]
pub struct UnknownRole {
    text: String,
    known: &'static str,
}

/// A text that is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope `{text}`: use one of read, write, run, manage, admin")]
pub struct UnknownScope {
    text: String,
}

impl UnknownScope {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.chars().take(32).collect() }
    }
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: [Role; 2] = [Role::Member, Role::Admin];

    /// The role's name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Member => "member",
            Role::Admin => "admin",
        }
    }
}

impl ProjectRole {
    /// Every role, the weakest first.
    pub const ALL: [ProjectRole; 3] = [ProjectRole::Viewer, ProjectRole::Editor, ProjectRole::Owner];

    /// Whether this role allows `action`.
    pub const fn allows(self, action: Action) -> bool {
        match action {
            Action::Read => true,
            Action::Write | Action::Run => matches!(self, ProjectRole::Editor | ProjectRole::Owner),
            Action::Manage => matches!(self, ProjectRole::Owner),
        }
    }

    /// The role's name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProjectRole::Viewer => "viewer",
            ProjectRole::Editor => "editor",
            ProjectRole::Owner => "owner",
        }
    }
}

/// Decides whether `caller`, whose role in the project is `membership`, may do `action` there.
///
/// An admin may do everything. Anybody else has the permissions of the membership. An API key has at most the
/// permissions of its scopes.
///
/// # Errors
/// [`Denied::Invisible`] for a caller who is not a member, so that the answer does not reveal that the project exists;
/// [`Denied::Forbidden`] for a member whose role is too weak.
pub fn authorize(caller: &Caller, membership: Option<ProjectRole>, action: Action) -> Result<(), Denied> {
    let may = match (caller.role, membership) {
        (Role::Admin, _) => true,
        (Role::Member, None) => return Err(Denied::Invisible),
        (Role::Member, Some(role)) => role.allows(action),
    };
    if may && caller.credential.allows(action) { Ok(()) } else { Err(Denied::Forbidden) }
}

/// Decides whether `caller` may manage the whole server: accounts, the audit record, instances.
///
/// # Errors
/// [`Denied::Forbidden`] for a caller who is not an admin, or who uses an API key without the scope `admin`.
pub fn authorize_admin(caller: &Caller) -> Result<(), Denied> {
    match caller.role {
        Role::Admin => Ok(()),
        Role::Member => Err(Denied::Forbidden),
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ProjectRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let named = Role::ALL.into_iter().find(|role| role.as_str() == text);
        named.ok_or_else(|| UnknownRole { text: text.chars().take(32).collect(), known: "member, admin" })
    }
}

impl FromStr for ProjectRole {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let named = ProjectRole::ALL.into_iter().find(|role| role.as_str() == text);
        named.ok_or_else(|| UnknownRole {
            text: text.chars().take(32).collect(),
            known: "viewer, editor, owner",
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use gathering_domain::UserId;

    use super::*;
    use crate::{Credential, Origin, SessionId, TokenId};

    fn caller(role: Role) -> Caller {
        let credential =
            Credential::Session { session: SessionId::new(), token: TokenId::new(), expires_at: Utc::now() };
        Caller { user: UserId::new(), role, credential, origin: Origin::default() }
    }

    #[test]
    fn the_permission_table_is_exactly_this() {
        let actions = [Action::Read, Action::Write, Action::Run, Action::Manage];
        let mut table = Vec::new();
        for role in Role::ALL {
            for membership in [None].into_iter().chain(ProjectRole::ALL.map(Some)) {
                let answers = actions.map(|action| match authorize(&caller(role), membership, action) {
                    Ok(()) => "yes",
                    Err(Denied::Forbidden) => "no",
                    Err(Denied::Invisible) => "hidden",
                });
                let member = membership.map_or("nobody", ProjectRole::as_str);
                table.push(format!("{role} {member}: {}", answers.join(" ")));
            }
        }
        assert_eq!(
            table,
            [
                "member nobody: hidden hidden hidden hidden",
                "member viewer: yes no no no",
                "member editor: yes yes yes no",
                "member owner: yes yes yes yes",
                "admin nobody: yes yes yes yes",
                "admin viewer: yes yes yes yes",
                "admin editor: yes yes yes yes",
                "admin owner: yes yes yes yes",
            ]
        );
    }

    #[test]
    fn names_survive_a_round_trip() {
        assert!(Role::ALL.into_iter().all(|role| role.as_str().parse() == Ok(role)));
        assert!(ProjectRole::ALL.into_iter().all(|role| role.as_str().parse() == Ok(role)));
        assert_eq!(
            "boss".parse::<Role>().unwrap_err().to_string(),
            "unknown role `boss`: use one of member, admin"
        );
    }
}

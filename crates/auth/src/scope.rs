//! Scopes: the part of its owner's permissions that an API key has.

use std::fmt;
use std::str::FromStr;

use crate::{Action, UnknownScope};

/// A part of an account's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read.
    Read,
    /// Create, change and delete what is in projects. Implies `read`.
    Write,
    /// Start, cancel and rerun runs, decide approvals. Implies `read`.
    Run,
    /// Change projects and their members. Implies `read`.
    Manage,
    /// Everything. Only with this scope does the owner's global role `admin` count.
    Admin,
}

impl Scope {
    /// Every scope, the weakest first.
    pub const ALL: [Scope; 5] = [Scope::Read, Scope::Write, Scope::Run, Scope::Manage, Scope::Admin];

    /// The scope's name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Run => "run",
            Scope::Manage => "manage",
            Scope::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether the set contains `scope` itself.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether it is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of the scopes allows `action`.
    pub const fn allows(self, action: Action) -> bool {
        let needed = match action {
            Action::Read => return !self.is_empty(),
            Action::Write => Scope::Write,
            Action::Run => Scope::Run,
            Action::Manage => Scope::Manage,
        };
        self.contains(needed) || self.contains(Scope::Admin)
    }

    /// The scopes of the set, the weakest first.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let named = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        named.ok_or_else(|| UnknownScope::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_allows_its_own_action_and_reading() {
        let actions = [Action::Read, Action::Write, Action::Run, Action::Manage];
        let table: Vec<String> = Scope::ALL
            .into_iter()
            .map(|scope| {
                let scopes = Scopes::from_iter([scope]);
                let allowed = actions.map(|action| if scopes.allows(action) { "yes" } else { "no" });
                format!("{scope}: {}", allowed.join(" "))
            })
            .collect();
        assert_eq!(
            table,
            [
                "read: yes no no no",
                "write: yes yes no no",
                "run: yes no yes no",
                "manage: yes no no yes",
                "admin: yes yes yes yes"
            ]
        );
        assert!(actions.into_iter().all(|action| !Scopes::default().allows(action)));
    }

    #[test]
    fn names_survive_a_round_trip() {
        assert!(Scope::ALL.into_iter().all(|scope| scope.as_str().parse() == Ok(scope)));
        assert!("everything".parse::<Scope>().is_err());
        let all: Scopes = Scope::ALL.into_iter().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), Scope::ALL);
    }
}

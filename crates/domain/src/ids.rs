//! Typed ids. Each id is a UUIDv7 in a type of its own, so a run's id cannot be passed for a project's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Digest;

/// A text that is not a valid id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind} id: it must be {expected}")]
pub struct InvalidId {
    kind: &'static str,
    expected: &'static str,
    text: String,
}

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, greater than every earlier one of this process (UUIDv7, RFC 9562).
            #[expect(clippy::new_without_default, reason = "a default id would be a different one each time")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id as the database stores it.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId {
                    kind: $kind,
                    expected: "a UUID",
                    text: text.chars().take(64).collect(),
                })
            }
        }
    )*};
}

uuid_ids! {
    /// A person or program with an account.
    UserId, "user";
    /// A project: it owns agents, pipelines, runs and files, and has members.
    ProjectId, "project";
    /// An agent: instructions, a model and tools.
    AgentId, "agent";
    /// A piece of work given to a circle.
    TaskId, "task";
    /// A named pipeline with versions of its definition.
    PipelineId, "pipeline";
    /// One execution of a graph.
    RunId, "run";
    /// A rule for when to start runs.
    ScheduleId, "schedule";
    /// A hook: an address that other programs call.
    HookId, "hook";
    /// One call of a hook.
    DeliveryId, "delivery";
    /// A question of a tool to people.
    QuestionId, "question";
    /// A secret of a project.
    SecretId, "secret";
    /// A server process; a restarted server is another instance.
    InstanceId, "instance";
    /// A long-lived credential of a program.
    ApiKeyId, "API key";
    /// A login session: a family of refresh tokens and the access tokens issued with them.
    SessionId, "session";
    /// One access token.
    TokenId, "token";
    /// One HTTP request.
    RequestId, "request";
    /// An event of the audit record.
    AuditEventId, "audit event";
}

impl RunId {
    /// The id of something that this run causes. The same name always gives the same id. The id has this run's time, so
    /// both sort together; the rest is a digest, so a collision is as unlikely as with a random id.
    #[must_use]
    pub fn derived(self, name: &str) -> Self {
        let mut bytes = *self.0.as_bytes();
        let digest = Digest::of(&[bytes.as_slice(), name.as_bytes()].concat());
        bytes[6..].copy_from_slice(&digest.as_bytes()[..10]);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(Uuid::from_bytes(bytes))
    }
}

/// A node's id, unique within its graph: 1 to 64 characters of `a-z A-Z 0-9 _ -`, beginning with a letter.
///
/// The narrow alphabet keeps `nodes.<id>` a valid expression and makes the id safe in paths, logs and keys. An
/// expression reads an id with `-` as `nodes["<id>"]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(std::sync::Arc<str>);

impl NodeId {
    /// The longest node id, in characters.
    pub const MAX_LEN: usize = 64;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = text.bytes();
        let well_formed = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            && text.len() <= Self::MAX_LEN;
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId {
                kind: "node",
                expected: "1 to 64 letters, digits, `_` or `-`, beginning with a letter",
                text: text.chars().take(64).collect(),
            })
        }
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_creation_time() {
        let first = RunId::new();
        let second = RunId::new();
        assert!(first < second);
    }

    #[test]
    fn a_derived_id_is_deterministic_and_a_uuid_v7_of_the_same_time() {
        let parent = RunId::new();
        let child = parent.derived("a/0/1");
        assert_eq!(child, parent.derived("a/0/1"));
        assert_ne!(child, parent.derived("a/0/2"));
        assert_ne!(child, RunId::new().derived("a/0/1"));
        assert_eq!(child.as_uuid().get_version_num(), 7);
        assert_eq!(child.as_uuid().get_variant(), uuid::Variant::RFC4122);
        assert_eq!(child.as_uuid().as_bytes()[..6], parent.as_uuid().as_bytes()[..6]);
    }

    #[test]
    fn an_invalid_id_names_its_kind() {
        let error = "x".parse::<RunId>().unwrap_err();
        assert_eq!(error.to_string(), "`x` is not a run id: it must be a UUID");
    }

    #[test]
    fn node_ids_use_a_narrow_alphabet() {
        for good in ["a", "fetch_2", "A-b", &"x".repeat(64)] {
            assert!(good.parse::<NodeId>().is_ok(), "{good}");
        }
        for bad in ["", "2a", "_a", "a.b", "a/b", "ä", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}

//! Values of bodies and views that are more than a JSON type: words of an enum, lines of text, any JSON object.

use std::fmt::Display;
use std::str::FromStr;

use gathering_auth::{ProjectRole, Role, Scope};
use gathering_dag_engine::NodeState;
use gathering_domain::{RunState, WaitingFor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A word that names a value of the enum `T`. Its schema is named at the field, such as `value_type = RoleSchema`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<T>(pub(crate) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Reads a text without the white space around it.
///
/// # Errors
/// If the value is no string.
pub(crate) fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(String::deserialize(deserializer)?.trim().to_owned())
}

/// A text on one line: at least one visible character, and no control character inside. Python, Rust and browsers read
/// the pattern alike.
pub(crate) const ONE_LINE: &str = r"^\s*[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?\s*$";

/// The schema of a text of 1 to `MOST` characters on one line.
pub(crate) fn one_line<const MOST: usize>() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MOST));
    text.pattern(Some(ONE_LINE)).into()
}

/// The schema of an enum: a component with its words.
macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident $component:literal: $words:expr;)*) => {$(
        $(#[doc = $doc])*
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let description = concat!($($doc),*).trim();
                let words = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
                words.enum_values(Some($words)).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                $component.into()
            }
        }
    )*};
}

words! {
    /// What an account may do on the whole server.
    RoleSchema "Role": Role::ALL.map(Role::as_str);
    /// What a member may do in a project.
    ProjectRoleSchema "ProjectRole": ProjectRole::ALL.map(ProjectRole::as_str);
    /// What an API key may do where its owner may. Each implies `read`; `admin` implies all.
    ScopeSchema "Scope": Scope::ALL.map(Scope::as_str);
    /// The state of a run.
    RunStateSchema "RunState": RunState::ALL.map(RunState::as_str);
    /// What a waiting run waits for.
    WaitingForSchema "WaitingFor": [
        WaitingFor::Timer, WaitingFor::Approval, WaitingFor::Child, WaitingFor::BudgetExceeded,
    ].map(WaitingFor::as_str);
    /// The state of a node in a run.
    NodeStateSchema "NodeState": [
        NodeState::Pending, NodeState::Running, NodeState::Retrying, NodeState::Waiting, NodeState::Succeeded,
        NodeState::Failed, NodeState::Skipped, NodeState::Cancelled, NodeState::TimedOut,
    ].map(NodeState::as_str);
    /// The kind of an entry of a workspace.
    FileKindSchema "FileKind": ["file", "directory"];
    /// The state of an instance.
    InstanceStateSchema "InstanceState": ["active", "draining"];
    /// The kind of a security event.
    AuditKindSchema "AuditKind": gathering_auth::AuditKind::ALL.iter().map(|kind| kind.as_str());
}

/// A JSON object with any fields, in the document.
pub(crate) struct AnyObject;

impl PartialSchema for AnyObject {
    fn schema() -> RefOr<Schema> {
        let any = Some(AdditionalProperties::FreeForm(true));
        let object = ObjectBuilder::new().schema_type(Type::Object).additional_properties(any);
        object.description(Some("A JSON object with any fields.")).into()
    }
}

impl ToSchema for AnyObject {
    fn name() -> std::borrow::Cow<'static, str> {
        "JsonObject".into()
    }
}

/// The bytes of a file, in the document.
pub(crate) struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let format = utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Binary {}

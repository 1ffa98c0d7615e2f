//! Bodies against their schemas.

use chrono::{DateTime, Utc};
use gathering_auth::{Role, Scope};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::*;
use crate::values::{Word, one_line, trimmed};

crate::enum_schemas! {
    /// What an account may do on the whole server.
    RoleSchema "Role": Role::ALL.map(Role::as_str);
    /// What an API key may do where its owner may.
    ScopeSchema "Scope": Scope::ALL.map(Scope::as_str);
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Everything {
    #[schema(schema_with = one_line::<5>)]
    #[serde(deserialize_with = "trimmed")]
    name: String,
    #[schema(value_type = RoleSchema)]
    role: Word<Role>,
    #[schema(value_type = Option<RoleSchema>, required = false)]
    other: Option<Word<Role>>,
    #[schema(value_type = Vec<ScopeSchema>, min_items = 1, max_items = 5)]
    scopes: Vec<Word<Scope>>,
    #[schema(required = false, minimum = 1, maximum = 10)]
    priority: Option<i32>,
    #[schema(required = false)]
    at: Option<DateTime<Utc>>,
    #[schema(required = false)]
    id: Option<Uuid>,
    #[schema(required = false)]
    is_active: Option<bool>,
    #[schema(required = false, max_length = 3)]
    comment: Option<String>,
    #[schema(required = false)]
    nested: Option<Nested>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nested {
    #[schema(minimum = 0)]
    amount: i64,
}

impl Input for Everything {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        if object.get("name").is_some_and(|name| name == "root") {
            problems.add(Pointer::root().join("name"), "is reserved");
        }
    }
}

fn problems(value: Value) -> Vec<String> {
    let problem = read::<Everything>(value).unwrap_err();
    assert_eq!(problem.status(), 422);
    problem.errors.into_iter().map(|error| format!("{}: {}", error.pointer, error.message)).collect()
}

#[test]
fn a_value_that_fits_is_read() {
    let read: Everything = read(json!({
        "name": " a b\n", "role": "admin", "other": null, "scopes": ["run"], "priority": 5.0,
        "at": "2026-11-23T08:30:00+02:00", "nested": {"amount": 7}
    }))
    .unwrap();
    assert_eq!((read.name.as_str(), read.role, read.priority), ("a b", Word(Role::Admin), Some(5)));
    assert_eq!((read.other, read.scopes, read.id), (None, vec![Word(Scope::Run)], None));
    assert_eq!(read.at.map(|at| at.to_rfc3339()).as_deref(), Some("2026-11-23T06:30:00+00:00"));
    assert_eq!(
        (read.is_active, read.comment, read.nested.map(|nested| nested.amount)),
        (None, None, Some(7))
    );
}

#[test]
fn everything_that_is_wrong_is_named_at_once_in_plain_words() {
    let value = json!({
        "name": "a\u{7}", "role": null, "other": "king", "scopes": ["fly", 3, "run", "run"], "priority": 11,
        "at": "soon", "id": "7", "is_active": "yes", "comment": "long", "nested": {"amount": -1, "more": 1}, "x/y": 1
    });
    assert_eq!(
        problems(value),
        [
            "/at: must be a time such as 2026-11-23T08:30:00Z (RFC 3339)",
            "/comment: must be a text of at most 3 characters",
            "/id: must be a UUID",
            "/is_active: must be true or false",
            "/name: must be a text of 1 to 5 characters, none of them a control character",
            "/nested/amount: must be a whole number from 0",
            "/nested/more: is unknown: the fields are amount",
            "/other: must be one of member, admin",
            "/priority: must be a whole number from 1 to 10",
            "/role: is missing: it must be one of member, admin",
            "/scopes/0: must be one of read, write, run, manage, admin",
            "/scopes/1: must be one of read, write, run, manage, admin",
            "/x~1y: is unknown: the fields are at, comment, id, is_active, name, nested, other, priority, role, scopes",
        ]
    );
}

#[test]
fn what_is_missing_is_described_and_hides_nothing_else() {
    assert_eq!(
        problems(json!({"scopes": []})),
        [
            "/name: is missing: it must be a text of 1 to 5 characters, none of them a control character",
            "/role: is missing: it must be one of member, admin",
            "/scopes: must be a list of 1 to 5 items",
        ]
    );
    assert_eq!(problems(json!([])), [": must be an object"]);
    assert_eq!(problems(json!({"name": "root", "role": "admin", "scopes": ["run"]})), ["/name: is reserved"]);
    assert_eq!(
        problems(json!({"name": "root"})).len(),
        3,
        "the judge is asked even when the schema complains"
    );
}

#[test]
fn a_text_on_one_line_has_something_visible_and_no_control_character() {
    let fits =
        |name: &str| read::<Everything>(json!({"name": name, "role": "admin", "scopes": ["run"]})).is_ok();
    for name in ["a", " a ", "a b", "ä", "日本", "a\n"] {
        assert!(fits(name), "{name:?}");
    }
    for name in ["", " ", "\n", "a\nb", "a\u{0}", "a\u{7f}b", "a\u{85}b", "abcdef"] {
        assert!(!fits(name), "{name:?}");
    }
}

#[test]
fn a_year_that_rfc_3339_cannot_write_is_refused() {
    let fits = |at: &str| {
        read::<Everything>(json!({"name": "a", "role": "admin", "scopes": ["run"], "at": at})).is_ok()
    };
    assert!(fits("9999-12-31T23:59:59Z"));
    assert!(!fits("9999-12-31T23:59:59-01:00"));
}

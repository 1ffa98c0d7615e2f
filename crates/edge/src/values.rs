//! Values of bodies and views that are more than a JSON type: words of an enum, lines of text, any JSON object.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// A word that names a value of the enum `T`. Its schema is named at the field, such as `value_type = RoleSchema`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<T>(pub T);

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
pub fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(String::deserialize(deserializer)?.trim().to_owned())
}

/// Reads a text that may be null, without the white space around it.
///
/// # Errors
/// If the value is neither a string nor null.
pub fn trimmed_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(|text| text.trim().to_owned()))
}

/// A text on one line: at least one visible character, and no control character inside. Python, Rust and browsers read
/// the pattern alike.
pub const ONE_LINE: &str = r"^\s*[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?\s*$";

/// The schema of a text of 1 to `MOST` characters on one line.
pub fn one_line<const MOST: usize>() -> RefOr<Schema> {
    line_of::<MOST>(Type::String.into())
}

/// The schema of a text as that of [`one_line`], or null.
pub fn one_line_or_null<const MOST: usize>() -> RefOr<Schema> {
    line_of::<MOST>(SchemaType::from_iter([Type::String, Type::Null]))
}

fn line_of<const MOST: usize>(schema_type: SchemaType) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(schema_type).min_length(Some(1)).max_length(Some(MOST));
    text.pattern(Some(ONE_LINE)).into()
}

/// The schema of a text of at most `MOST` characters, or null. It may have line breaks, but no NUL, which the database
/// cannot store.
pub fn prose_or_null<const MOST: usize>() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    text.max_length(Some(MOST)).pattern(Some(r"^[^\u0000]*$")).into()
}

/// Declares the schemas of enums: each a component with its words.
///
/// `/// The state of a run.` and `RunStateSchema "RunState": RunState::ALL.map(RunState::as_str);` make the type
/// `RunStateSchema`, to be named at a field, and the component `RunState` with this description.
#[macro_export]
macro_rules! enum_schemas {
    ($($(#[doc = $doc:literal])* $name:ident $component:literal: $words:expr;)*) => {$(
        $(#[doc = $doc])*
        pub(crate) struct $name;

        impl $crate::utoipa::PartialSchema for $name {
            fn schema() -> $crate::utoipa::openapi::RefOr<$crate::utoipa::openapi::Schema> {
                let description = concat!($($doc),*).trim();
                let text = $crate::utoipa::openapi::schema::Type::String;
                let words = $crate::utoipa::openapi::ObjectBuilder::new().schema_type(text);
                words.description(Some(description)).enum_values(Some($words)).into()
            }
        }

        impl $crate::utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                $component.into()
            }
        }
    )*};
}

/// A JSON object with any fields, in the document.
pub struct AnyObject;

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
pub struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let format = utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Binary {}

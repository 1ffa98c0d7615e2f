//! The fields of an agent in requests. Their schema is that of a definition, so that both always say the same.

use gathering_agents::AgentDefinition;
use gathering_edge::input::Input;
use gathering_edge::values::AnyObject;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

/// An agent to be created.
#[derive(Debug, Deserialize)]
pub(crate) struct CreateAgent {
    pub(super) project_id: Option<Uuid>,
    #[serde(flatten)]
    pub(super) definition: Map<String, Value>,
}

impl Input for CreateAgent {}

impl PartialSchema for CreateAgent {
    fn schema() -> RefOr<Schema> {
        let mut schema = of_definition();
        schema["required"] = json!(["name", "provider"]);
        schema["description"] = json!("An agent to be created.");
        schema["properties"]["project_id"] = json!({
            "type": ["string", "null"], "format": "uuid",
            "description": "The project that it belongs to; the caller's default project if absent."
        });
        read(schema)
    }
}

impl ToSchema for CreateAgent {
    fn name() -> std::borrow::Cow<'static, str> {
        "CreateAgent".into()
    }
}

/// What to change of an agent; what is absent stays.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct ChangeAgent(pub(super) Map<String, Value>);

impl Input for ChangeAgent {}

impl PartialSchema for ChangeAgent {
    fn schema() -> RefOr<Schema> {
        let mut schema = of_definition();
        schema["description"] =
            json!("What to change of an agent; what is absent stays, and `null` takes a field away.");
        if let Some(fields) = schema.as_object_mut() {
            fields.remove("required");
        }
        for (_, field) in schema["properties"].as_object_mut().into_iter().flatten() {
            if let Some(one) = field["type"].as_str().map(str::to_owned) {
                field["type"] = json!([one, "null"]);
            }
        }
        read(schema)
    }
}

impl ToSchema for ChangeAgent {
    fn name() -> std::borrow::Cow<'static, str> {
        "ChangeAgent".into()
    }
}

/// The schema of a definition, whose name is a line.
fn of_definition() -> Value {
    let mut schema = AgentDefinition::schema().clone();
    if let Some(name) = schema["properties"]["name"].as_object_mut() {
        name.insert("minLength".to_owned(), json!(1));
        name.insert("pattern".to_owned(), json!(gathering_edge::values::ONE_LINE));
    }
    schema
}

/// A schema for the document. A test shows that it can be read.
fn read(schema: Value) -> RefOr<Schema> {
    serde_json::from_value(schema).map_or_else(|_| AnyObject::schema(), RefOr::T)
}

#[cfg(test)]
mod tests {
    use gathering_edge::input;

    use super::*;

    #[test]
    fn the_document_describes_the_fields_of_an_agent_as_they_are_checked() {
        for schema in [CreateAgent::schema(), ChangeAgent::schema()] {
            let schema = serde_json::to_value(schema).unwrap();
            assert_eq!(schema["additionalProperties"], json!(false), "{schema}");
            assert_eq!(
                schema["properties"]["limits"]["properties"]["max_steps"]["minimum"],
                json!(1),
                "{schema}"
            );
            assert_eq!(schema["properties"]["tools"]["items"]["maxLength"], json!(64), "{schema}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let read: CreateAgent =
            input::read(json!({"name": "a", "provider": "scripted", "tools": ["now"]})).unwrap();
        assert_eq!((read.project_id, read.definition.len()), (None, 3));
        let wrong =
            json!({"name": "", "model": 1, "colour": "red", "limits": {"max_steps": 0}, "project_id": "x"});
        let problem = input::read::<CreateAgent>(wrong).unwrap_err();
        let places: Vec<&str> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(places, ["/colour", "/limits/max_steps", "/model", "/name", "/project_id", "/provider"]);
        let read: ChangeAgent = input::read(json!({"role": null, "temperature": 0.5})).unwrap();
        assert_eq!(read.0.len(), 2);
        assert_eq!(input::read::<ChangeAgent>(json!({"project_id": null})).unwrap_err().status(), 422);
    }
}

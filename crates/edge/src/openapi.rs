//! The OpenAPI 3.1 document, made of the table of routes and of the documentation at the handlers.
//!
//! Owns what the table implies, so that no handler repeats it: the security of an operation, the answers of the layers
//! in front of the handler, the form of an error, and the extension `x-gathering` with access, scope, tier and body
//! limit.

use std::collections::BTreeSet;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web;
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::limits::Tier;
use crate::problem::{FieldError, PROBLEM_JSON, ProblemView};
use crate::route::{Access, BodyLimit, Route};
use crate::values::AnyObject;

/// Where references to component schemas point.
const SCHEMAS: &str = "#/components/schemas/";

/// The document as text.
pub struct Document(String);

impl Document {
    /// Writes the document of these routes: indented, keys sorted, always the same for one version. `base` has what no
    /// route knows: the title, the version, the tags.
    ///
    /// # Errors
    /// If a schema cannot be written as JSON.
    pub fn of(base: OpenApi, routes: &[Route]) -> serde_json::Result<Self> {
        let mut document = document(base, routes)?;
        document.sort_all_objects();
        Ok(Self(format!("{}\n", serde_json::to_string_pretty(&document)?)))
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "health", operation_id = "openapi", responses(
    (status = 200, body = AnyObject, content_type = "application/json"),
))]
pub async fn openapi_json(document: web::Data<Document>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(document.0.clone())
}

fn document(base: OpenApi, routes: &[Route]) -> serde_json::Result<Value> {
    let mut document = serde_json::to_value(with_security(base))?;
    let (mut paths, mut schemas, mut bodies) = (Map::new(), Map::new(), BTreeSet::new());
    schemas.insert("Problem".to_owned(), serde_json::to_value(ProblemView::schema())?);
    schemas.insert("FieldError".to_owned(), serde_json::to_value(FieldError::schema())?);
    for route in routes {
        let description = (route.describe)();
        for (name, schema) in description.schemas {
            schemas.insert(name, serde_json::to_value(schema)?);
        }
        let mut operation = serde_json::to_value(description.operation)?;
        complete(&mut operation, route);
        collect_bodies(&operation, &mut bodies);
        let item = paths.entry(documented_path(route.path)).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    refer_to_items(&mut schemas);
    // The server refuses unknown fields of a body.
    for body in &bodies {
        schemas[body]["additionalProperties"] = json!(false);
    }
    document["paths"] = Value::Object(paths);
    document["components"]["responses"] = shared_responses();
    document["components"]["schemas"] = Value::Object(schemas);
    remove_unused_schemas(&mut document);
    Ok(document)
}

fn with_security(mut base: OpenApi) -> OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An access token, or an API key"))
        .build();
    let components = base.components.get_or_insert_with(Components::new);
    components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    base
}

/// Adds the components that the body of the operation has the form of, but for those that allow any field.
fn collect_bodies(operation: &Value, bodies: &mut BTreeSet<String>) {
    let content = operation["requestBody"]["content"].as_object();
    for media_type in content.into_iter().flat_map(Map::values) {
        let name = media_type["schema"]["$ref"].as_str().and_then(|name| name.strip_prefix(SCHEMAS));
        bodies.extend(name.filter(|name| *name != AnyObject::name()).map(str::to_owned));
    }
}

/// A pattern as OpenAPI writes it, which has no way to say that a parameter goes on behind a `/`.
pub fn documented_path(pattern: &str) -> String {
    pattern.replace(":.*}", "}")
}

/// Adds what the table says about the operation.
fn complete(operation: &mut Value, route: &Route) {
    operation["x-gathering"] = json!({
        "access": route.access.as_str(),
        "scope": route.access.scope(),
        "tier": route.tier.as_str(),
        "body_limit_bytes": route.body.bytes(),
    });
    if route.access == Access::Public {
        operation["security"] = json!([]);
    }
    let has_query = operation["parameters"]
        .as_array()
        .is_some_and(|parameters| parameters.iter().any(|parameter| parameter["in"] == "query"));
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for status in implied_statuses(route, has_query) {
        let name = status.as_str().to_owned();
        responses.entry(name).or_insert_with(|| json!({ "$ref": reference_to(status) }));
    }
    for (status, response) in responses.iter_mut() {
        describe_response(status, response);
    }
}

/// The answers of the layers in front of the handler.
fn implied_statuses(route: &Route, has_query: bool) -> BTreeSet<StatusCode> {
    let mut statuses = BTreeSet::new();
    if route.access != Access::Public {
        statuses.insert(StatusCode::UNAUTHORIZED);
        if route.access != Access::Account {
            statuses.insert(StatusCode::FORBIDDEN);
        }
    }
    if route.body != BodyLimit::None {
        statuses.extend([
            StatusCode::BAD_REQUEST,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ]);
    }
    if route.path.contains('{') {
        statuses.insert(StatusCode::NOT_FOUND);
    }
    if has_query || matches!(route.body, BodyLimit::Small | BodyLimit::Large) {
        statuses.insert(StatusCode::UNPROCESSABLE_ENTITY);
    }
    if route.tier != Tier::Health {
        statuses.insert(StatusCode::TOO_MANY_REQUESTS);
    }
    if route.access != Access::Public || route.tier == Tier::Auth {
        statuses.insert(StatusCode::SERVICE_UNAVAILABLE);
    }
    statuses
}

/// Fills in what a response lacks: OpenAPI demands a description, and an error is a problem document unless the handler
/// says otherwise.
fn describe_response(status: &str, response: &mut Value) {
    if response.get("$ref").is_some() {
        return;
    }
    let code = status.parse().ok().and_then(|status: u16| StatusCode::from_u16(status).ok());
    if response["description"].as_str().is_none_or(str::is_empty) {
        let words = code.map_or("", |code| words_for(code).unwrap_or_default());
        response["description"] = json!(words);
    }
    let is_error = code.is_some_and(|code| code.is_client_error() || code.is_server_error());
    if is_error && response.get("content").is_none() {
        response["content"] = problem_content();
    }
}

/// What an answer with this status means where nothing more specific is documented.
fn words_for(status: StatusCode) -> Option<&'static str> {
    Some(match status {
        StatusCode::BAD_REQUEST => {
            "The request is malformed: a body that is neither JSON nor YAML, or a bad header"
        }
        StatusCode::UNAUTHORIZED => "The request has no valid access token or API key",
        StatusCode::FORBIDDEN => "The caller's role, or the scopes of the API key, do not allow this",
        StatusCode::NOT_FOUND => "No such resource, or the caller has no access to it",
        StatusCode::REQUEST_TIMEOUT => "The body arrived too slowly",
        StatusCode::PRECONDITION_FAILED => {
            "The resource is not in a version that `If-Match` or `If-None-Match` allows"
        }
        StatusCode::PAYLOAD_TOO_LARGE => "The body is larger than this operation accepts",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "The media type or the content encoding is not supported",
        StatusCode::RANGE_NOT_SATISFIABLE => "The file has no bytes in this range",
        StatusCode::UNPROCESSABLE_ENTITY => {
            "The request is invalid; `errors` lists every problem with its place"
        }
        StatusCode::TOO_MANY_REQUESTS => {
            "The caller has used up a rate limit; `Retry-After` says when to come back"
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            "The database is unavailable or the server is shutting down; try again"
        }
        _ => return status.canonical_reason(),
    })
}

/// The statuses that need no words at a handler, with the names of their components.
const SHARED: [(StatusCode, &str); 10] = [
    (StatusCode::BAD_REQUEST, "Malformed"),
    (StatusCode::UNAUTHORIZED, "NotAuthenticated"),
    (StatusCode::FORBIDDEN, "Forbidden"),
    (StatusCode::NOT_FOUND, "NotFound"),
    (StatusCode::REQUEST_TIMEOUT, "RequestTimeout"),
    (StatusCode::PAYLOAD_TOO_LARGE, "TooLarge"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
    (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
    (StatusCode::TOO_MANY_REQUESTS, "RateLimited"),
    (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
];

fn reference_to(status: StatusCode) -> String {
    let name = SHARED.iter().find(|(shared, _)| *shared == status).map_or("", |(_, name)| name);
    format!("#/components/responses/{name}")
}

fn shared_responses() -> Value {
    let response = |status| json!({ "description": words_for(status), "content": problem_content() });
    SHARED.iter().map(|(status, name)| ((*name).to_owned(), response(*status))).collect::<Map<_, _>>().into()
}

fn problem_content() -> Value {
    json!({ PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } })
}

/// Makes the items of a page a reference to their component: utoipa writes the schema of a generic's argument out.
fn refer_to_items(schemas: &mut Map<String, Value>) {
    let names: Vec<String> =
        schemas.keys().filter_map(|name| name.strip_prefix("Page_")).map(str::to_owned).collect();
    for name in names.iter().filter(|name| schemas.contains_key(*name)).cloned().collect::<Vec<_>>() {
        if let Some(page) = schemas.get_mut(&format!("Page_{name}")) {
            page["properties"]["items"]["items"] = json!({ "$ref": format!("#/components/schemas/{name}") });
        }
    }
}

/// Removes components that nothing refers to, such as those of a written-out generic.
fn remove_unused_schemas(document: &mut Value) {
    let mut used = BTreeSet::new();
    let mut pending = vec![document["paths"].clone(), document["components"]["responses"].clone()];
    while let Some(value) = pending.pop() {
        let mut names = BTreeSet::new();
        collect_references(&value, &mut names);
        for name in names {
            if used.insert(name.clone()) {
                pending.push(document["components"]["schemas"][&name].clone());
            }
        }
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.retain(|name, _| used.contains(name));
    }
}

fn collect_references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str);
            names.extend(name.and_then(|name| name.strip_prefix(SCHEMAS)).map(str::to_owned));
            fields.values().for_each(|value| collect_references(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, names)),
        _ => {}
    }
}

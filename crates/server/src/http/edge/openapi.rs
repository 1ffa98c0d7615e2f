//! The OpenAPI 3.1 document, generated from the handlers and views; and which paths and methods it has.

use std::sync::LazyLock;

use actix_web::dev::{ResourceDef, ServiceRequest};
use actix_web::{App, HttpResponse, get};
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, PathItem};
use utoipa_actix_web::AppExt as _;

use crate::http::edge::problem::Problem;
use crate::http::server;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "GatheRing", description = "Runs teams of AI agents as durable workflows on PostgreSQL."),
    security(("bearer" = [])),
    tags(
        (name = "auth", description = "Sessions, passwords and API keys"),
        (name = "users", description = "Accounts, for admins"),
        (name = "audit", description = "What concerned security, for admins"),
        (name = "projects", description = "What owns everything else, and its members"),
        (name = "files", description = "The workspaces of projects"),
        (name = "pipelines", description = "Named graphs in versions"),
        (name = "runs", description = "Executions of graphs"),
        (name = "health", description = "How the server is"),
        (name = "system", description = "The instances, for admins"),
    )
)]
struct Base;

/// The document, made once.
static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(|| {
    let (_, mut api) =
        App::new().into_utoipa_app().openapi(Base::openapi()).configure(server::routes).split_for_parts();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An access token, or an API key"))
        .build();
    let components = api.components.get_or_insert_with(Components::new);
    components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    api
});

/// The path patterns with the methods that they answer.
static ROUTES: LazyLock<Vec<(ResourceDef, String)>> = LazyLock::new(|| {
    let routes = DOCUMENT.paths.paths.iter();
    routes.map(|(path, item)| (pattern(path), methods(item).join(", "))).collect()
});

/// The document has no way to say that a file's path goes on behind a `/`.
fn pattern(path: &str) -> ResourceDef {
    ResourceDef::new(path.replace("/files/{path}", "/files/{path:.*}"))
}

fn methods(item: &PathItem) -> Vec<&'static str> {
    let operations = [
        ("GET", &item.get),
        ("HEAD", &item.get),
        ("PUT", &item.put),
        ("POST", &item.post),
        ("DELETE", &item.delete),
        ("PATCH", &item.patch),
    ];
    operations.into_iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| method).collect()
}

/// The document as JSON: indented, keys sorted, always the same for one version.
///
/// # Errors
/// If the document cannot be written as JSON.
pub(crate) fn openapi_text() -> serde_json::Result<String> {
    let mut value = serde_json::to_value(&*DOCUMENT)?;
    value.sort_all_objects();
    Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
}

/// This document.
#[utoipa::path(tag = "health", operation_id = "openapi", security(()), responses((status = 200, content_type = "application/json")))]
#[get("/api/openapi.json")]
pub(crate) async fn openapi_json() -> Result<HttpResponse, Problem> {
    static TEXT: LazyLock<Option<String>> = LazyLock::new(|| openapi_text().ok());
    let text = TEXT.as_deref().ok_or_else(|| Problem::internal("the document cannot be written"))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}

/// What a request that no handler took is answered with: 405 where another method would be, else 404.
pub(crate) async fn nothing_here(
    request: ServiceRequest,
) -> Result<actix_web::dev::ServiceResponse, actix_web::Error> {
    let route = ROUTES.iter().find(|(pattern, _)| pattern.is_match(request.path()));
    let problem = match route {
        Some((_, allowed)) => Problem::method_not_allowed(allowed),
        None => Problem::not_found(),
    };
    Ok(request.error_response(problem))
}

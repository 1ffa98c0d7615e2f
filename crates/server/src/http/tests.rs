//! The table of routes against the document and the application that are made of it.

use actix_web::dev::Service as _;
use actix_web::test::{TestRequest, init_service};
use gathering_edge::openapi::documented_path;
use gathering_edge::server::application;
use serde_json::Value;

use super::routes::{ROUTES, document};

fn openapi_text() -> serde_json::Result<String> {
    document().map(gathering_edge::openapi::Document::into_text)
}

/// The table as the document shows it: method, path, access, scope, tier and body limit.
fn documented() -> Vec<String> {
    let document: Value = serde_json::from_str(&openapi_text().unwrap()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let declared = &operation["x-gathering"];
            let word = |name: &str| declared[name].as_str().unwrap_or("-").to_owned();
            let limit =
                declared["body_limit_bytes"].as_u64().map_or("setting".to_owned(), |bytes| bytes.to_string());
            let (access, scope, tier) = (word("access"), word("scope"), word("tier"));
            assert_eq!(operation["security"] == serde_json::json!([]), access == "public", "{method} {path}");
            assert_eq!(operation.get("requestBody").is_some(), limit != "0", "{method} {path}");
            routes.push(format!("{} {path} {access} {scope} {tier} {limit}", method.to_uppercase()));
        }
    }
    routes.sort();
    routes
}

#[test]
fn the_document_shows_what_the_table_declares() {
    assert_eq!(
        documented(),
        [
            "DELETE /api/v1/agents/{id} project write write 0",
            "DELETE /api/v1/auth/api-keys/{id} session - write 0",
            "DELETE /api/v1/hooks/{id} project write write 0",
            "DELETE /api/v1/mcp/servers/{name} project write write 0",
            "DELETE /api/v1/pipelines/{id} project write write 0",
            "DELETE /api/v1/projects/{id} project manage write 0",
            "DELETE /api/v1/projects/{id}/files/{path} project write write 0",
            "DELETE /api/v1/projects/{id}/members/{user_id} project manage write 0",
            "DELETE /api/v1/projects/{id}/secrets/{name} project write write 0",
            "DELETE /api/v1/schedules/{id} project write write 0",
            "GET /.well-known/oauth-protected-resource public - read 0",
            "GET /.well-known/oauth-protected-resource/mcp public - read 0",
            "GET /api/openapi.json public - read 0",
            "GET /api/v1/agents own read read 0",
            "GET /api/v1/agents/{id} project read read 0",
            "GET /api/v1/audit/events admin admin read 0",
            "GET /api/v1/auth/api-keys account - read 0",
            "GET /api/v1/auth/me account - read 0",
            "GET /api/v1/events own read read 0",
            "GET /api/v1/events/ws own read read 0",
            "GET /api/v1/hooks own read read 0",
            "GET /api/v1/hooks/{id} project read read 0",
            "GET /api/v1/hooks/{id}/deliveries project read read 0",
            "GET /api/v1/mcp/servers project read read 0",
            "GET /api/v1/mcp/servers/{name} project read read 0",
            "GET /api/v1/pipelines own read read 0",
            "GET /api/v1/pipelines/{id} project read read 0",
            "GET /api/v1/pipelines/{id}/versions project read read 0",
            "GET /api/v1/projects own read read 0",
            "GET /api/v1/projects/{id} project read read 0",
            "GET /api/v1/projects/{id}/budget project read read 0",
            "GET /api/v1/projects/{id}/files project read read 0",
            "GET /api/v1/projects/{id}/files/{path} project read read 0",
            "GET /api/v1/projects/{id}/members project read read 0",
            "GET /api/v1/projects/{id}/secrets project read read 0",
            "GET /api/v1/runs own read read 0",
            "GET /api/v1/runs/{id} project read read 0",
            "GET /api/v1/runs/{id}/journal project read read 0",
            "GET /api/v1/runs/{id}/stream project read read 0",
            "GET /api/v1/schedules own read read 0",
            "GET /api/v1/schedules/fires own read read 0",
            "GET /api/v1/schedules/upcoming own read read 0",
            "GET /api/v1/schedules/{id} project read read 0",
            "GET /api/v1/schedules/{id}/fires project read read 0",
            "GET /api/v1/system/instances admin admin read 0",
            "GET /api/v1/tools account - read 0",
            "GET /api/v1/tools/{name} account - read 0",
            "GET /api/v1/users admin admin read 0",
            "GET /health public - health 0",
            "GET /health/live public - health 0",
            "GET /health/ready public - health 0",
            "GET /metrics public - health 0",
            "PATCH /api/v1/agents/{id} project write write 16777216",
            "PATCH /api/v1/hooks/{id} project write write 16777216",
            "PATCH /api/v1/projects/{id} project manage write 65536",
            "PATCH /api/v1/schedules/{id} project write write 16777216",
            "PATCH /api/v1/users/{id} admin admin write 65536",
            "POST /api/v1/agents project write write 16777216",
            "POST /api/v1/agents/{id}/chat project run write 16777216",
            "POST /api/v1/auth/api-keys session - write 65536",
            "POST /api/v1/auth/login public - auth 65536",
            "POST /api/v1/auth/logout session - write 65536",
            "POST /api/v1/auth/refresh public - auth 65536",
            "POST /api/v1/auth/register public - auth 65536",
            "POST /api/v1/events project run write 16777216",
            "POST /api/v1/hooks project write write 16777216",
            "POST /api/v1/hooks/in/{token} public - write 1048576",
            "POST /api/v1/hooks/{id}/deliveries/{delivery_id}/redeliver project run write 0",
            "POST /api/v1/mcp/servers project write write 65536",
            "POST /api/v1/mcp/servers/{name}/accept project write write 65536",
            "POST /api/v1/pipelines project write write 16777216",
            "POST /api/v1/pipelines/validate account - write 16777216",
            "POST /api/v1/pipelines/{id}/runs project run write 16777216",
            "POST /api/v1/projects own manage write 65536",
            "POST /api/v1/runs/{id}/budget project manage write 65536",
            "POST /api/v1/runs/{id}/cancel project run write 0",
            "POST /api/v1/runs/{id}/nodes/{node_id}/decision project run write 16777216",
            "POST /api/v1/runs/{id}/rerun project run write 16777216",
            "POST /api/v1/schedules project write write 16777216",
            "POST /api/v1/schedules/preview account - write 65536",
            "POST /api/v1/schedules/{id}/backfill project run write 65536",
            "POST /api/v1/schedules/{id}/pause project run write 0",
            "POST /api/v1/schedules/{id}/resume project run write 0",
            "POST /api/v1/schedules/{id}/trigger project run write 0",
            "POST /api/v1/tools/{name}/invoke project run write 16777216",
            "POST /mcp account - write 16777216",
            "PUT /api/v1/auth/password session - auth 65536",
            "PUT /api/v1/pipelines/{id} project write write 16777216",
            "PUT /api/v1/projects/{id}/budget project manage write 65536",
            "PUT /api/v1/projects/{id}/files/{path} project write write setting",
            "PUT /api/v1/projects/{id}/members/{user_id} project manage write 65536",
            "PUT /api/v1/projects/{id}/secrets/{name} project write write 16777216",
        ]
    );
}

#[test]
fn the_documentation_at_each_handler_names_the_method_and_path_of_its_row() {
    for route in ROUTES {
        let (methods, path) = (route.describe)().documented;
        let method: utoipa::openapi::HttpMethod =
            serde_json::from_value(route.method.as_str().to_ascii_lowercase().into()).unwrap();
        assert!(
            methods == [method] && path == documented_path(route.path),
            "{} {}",
            route.method,
            route.path
        );
    }
}

/// The answer of the application without the services that handlers use.
async fn status_of(request: TestRequest) -> u16 {
    let app = init_service(application(ROUTES)).await;
    match app.call(request.to_request()).await {
        Ok(answered) => answered.status().as_u16(),
        // As the server does with what no layer turned into an answer.
        Err(error) => error.error_response().status().as_u16(),
    }
}

#[actix_web::test]
async fn every_route_of_the_table_is_served() {
    for route in ROUTES {
        let filled = documented_path(route.path)
            .replace("{id}", "x")
            .replace("{user_id}", "y")
            .replace("{name}", "n")
            .replace("{token}", "z");
        let status = status_of(TestRequest::with_uri(&filled).method(route.method.clone())).await;
        assert!(status != 404 && status != 405, "{} {} is not served: {status}", route.method, route.path);
    }
}

#[test]
fn the_document_is_always_the_same_and_complete() {
    let text = openapi_text().unwrap();
    assert_eq!(text, openapi_text().unwrap());
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    // Every schema that is referred to is there.
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to and missing");
    }
}

#[test]
fn the_document_in_the_repository_is_the_one_of_this_version() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(committed == openapi_text().unwrap(), "run `cargo run -- openapi > docs/openapi.json`");
}

//! What holds for every answer, tried on the real application without a database behind it.

use std::sync::LazyLock;

use actix_web::body::MessageBody;
use actix_web::dev::Service as _;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use actix_web::{HttpResponse, Resource, web};
use serde_json::Value;

use crate::http::edge::body::OpenBody;
use crate::http::edge::envelope::X_REQUEST_ID;
use crate::http::edge::limits::Tier;
use crate::http::edge::openapi::{Document, documented_path};
use crate::http::edge::problem::{PROBLEM_JSON, Problem};
use crate::http::edge::route::{Access, BodyLimit, Description, Route};
use crate::http::routes::ROUTES;
use crate::http::server::{application, openapi_text};

/// Reads a small body, and tells what it read.
async fn echo(body: OpenBody) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(body.receive().await?.0.value()?.0))
}

/// Asks nobody anything before it reads, and tells whether it had to wait for the body.
async fn wait(body: OpenBody) -> Result<String, Problem> {
    Ok(format!("awaited: {}", body.receive().await?.1))
}

async fn explode() -> HttpResponse {
    panic!("a handler that panics");
}

/// Something for browsers.
async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("content-security-policy", "default-src 'self'"))
        .insert_header(("cache-control", "max-age=60"))
        .content_type("text/html")
        .body("<p>a page</p>")
}

/// A public route of these tests, with a small body.
fn route(method: Method, path: &'static str, handler: fn(Resource) -> Resource) -> Route {
    let describe = || Description {
        documented: (Vec::new(), String::new()),
        operation: utoipa::openapi::path::Operation::new(),
        schemas: Vec::new(),
    };
    let (access, tier, body) = (Access::Public, Tier::Read, BodyLimit::Small);
    Route { method, path, access, tier, body, handler, describe }
}

static TEST_ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let copy = |route: &Route| Route { method: route.method.clone(), ..*route };
    let mut routes: Vec<Route> = ROUTES.iter().map(copy).collect();
    routes.push(route(Method::POST, "/echo", |resource| resource.to(echo)));
    routes.push(route(Method::POST, "/wait", |resource| resource.to(wait)));
    routes.push(route(Method::GET, "/explode", |resource| resource.to(explode)));
    routes.push(route(Method::GET, "/page", |resource| resource.to(page)));
    routes
});

/// The answer of the application, with four routes more.
async fn answer(request: TestRequest) -> HttpResponse {
    let document = web::Data::new(Document::of(ROUTES).unwrap());
    let app = application(&TEST_ROUTES).app_data(document);
    match init_service(app).await.call(request.to_request()).await {
        Ok(answered) => answered.into_parts().1,
        // As the server does with what no layer turned into an answer.
        Err(error) => error.error_response(),
    }
}

async fn json(response: HttpResponse) -> Value {
    let body = actix_web::body::to_bytes(response.into_body()).await;
    serde_json::from_slice(&body.map_err(|_| "a body that breaks off").unwrap()).unwrap()
}

async fn check_problem(request: TestRequest, status: u16, kind: &str) {
    let response = answer(request.insert_header((X_REQUEST_ID, "mine-1"))).await;
    assert_eq!(response.status(), status);
    assert_eq!(response.headers().get("content-type").unwrap(), PROBLEM_JSON);
    assert_eq!(response.headers().get(X_REQUEST_ID).unwrap(), "mine-1");
    let body = json(response).await;
    assert_eq!(body["type"], format!("/problems/{kind}"));
    assert_eq!(
        (body["status"].as_u64(), body["instance"].as_str()),
        (Some(u64::from(status)), Some("mine-1"))
    );
    assert!(body["title"].is_string() && body["detail"].is_string());
}

#[actix_web::test]
async fn every_refusal_is_a_problem_that_names_its_request() {
    let post = |uri: &str| TestRequest::post().uri(uri);
    check_problem(TestRequest::get().uri("/nowhere"), 404, "not-found").await;
    check_problem(TestRequest::get().uri("/api/v1/nowhere"), 404, "not-found").await;
    check_problem(TestRequest::delete().uri("/api/v1/runs"), 405, "method-not-allowed").await;
    check_problem(post("/health/live"), 405, "method-not-allowed").await;
    check_problem(post("/echo").set_payload("{"), 400, "malformed").await;
    check_problem(post("/echo").set_payload(vec![b' '; 64 * 1024 + 1]), 413, "too-large").await;
    let form = post("/echo").insert_header(("content-type", "application/x-www-form-urlencoded"));
    check_problem(form.set_payload("a=b"), 415, "unsupported-media-type").await;
    let packed = post("/echo").insert_header(("content-encoding", "gzip"));
    check_problem(packed.set_payload("{}"), 415, "unsupported-media-type").await;
    check_problem(TestRequest::get().uri("/explode"), 500, "internal").await;
}

#[actix_web::test]
async fn a_method_that_is_not_supported_is_told_which_ones_are() {
    let response = answer(TestRequest::delete().uri("/api/v1/pipelines")).await;
    assert_eq!(response.headers().get("allow").unwrap(), "GET, HEAD, POST");
    let response = answer(TestRequest::post().uri("/api/v1/projects/x/files/a/b.md")).await;
    assert_eq!(response.headers().get("allow").unwrap(), "GET, HEAD, PUT, DELETE");
    let response = answer(TestRequest::patch().uri("/api/v1/runs/0192-whatever/cancel")).await;
    assert_eq!(response.headers().get("allow").unwrap(), "POST");
}

#[actix_web::test]
async fn a_sane_request_id_comes_back_and_any_other_is_replaced() {
    let id_for = async |sent: Option<&str>| {
        let mut request = TestRequest::get().uri("/health/live");
        if let Some(sent) = sent {
            request = request.insert_header((X_REQUEST_ID, sent));
        }
        answer(request).await.headers().get(X_REQUEST_ID).unwrap().to_str().unwrap().to_owned()
    };
    let longest = "a".repeat(128);
    for sane in ["a", "0192f0c8-0000-7000-8000-000000000000", "A.b_c-9", &longest] {
        assert_eq!(id_for(Some(sane)).await, sane);
    }
    let too_long = "a".repeat(129);
    for other in [None, Some(""), Some("a b"), Some("a\u{e4}"), Some("<script>"), Some(&too_long)] {
        let id = id_for(other).await;
        assert!(id.parse::<uuid::Uuid>().is_ok(), "{id}");
        assert_ne!(id, id_for(other).await);
    }
}

#[actix_web::test]
async fn every_answer_has_the_security_headers() {
    for uri in ["/health/live", "/nowhere", "/explode", "/api/openapi.json"] {
        let response = answer(TestRequest::get().uri(uri)).await;
        let headers = response.headers();
        assert_eq!(headers.get("x-content-type-options").unwrap(), "nosniff", "{uri}");
        assert_eq!(headers.get("x-frame-options").unwrap(), "DENY", "{uri}");
        assert_eq!(headers.get("referrer-policy").unwrap(), "no-referrer", "{uri}");
        assert_eq!(headers.get("cross-origin-resource-policy").unwrap(), "same-origin", "{uri}");
        let policy = headers.get("content-security-policy").unwrap();
        assert_eq!(policy, "default-src 'none'; frame-ancestors 'none'; sandbox", "{uri}");
        assert_eq!(headers.contains_key("cache-control"), uri != "/api/openapi.json", "{uri}");
    }
}

#[actix_web::test]
async fn no_other_site_is_let_in() {
    for method in [Method::GET, Method::OPTIONS] {
        let request = TestRequest::with_uri("/health/live")
            .method(method)
            .insert_header(("origin", "https://evil.example"))
            .insert_header(("access-control-request-method", "POST"));
        let response = answer(request).await;
        let mut names = response.headers().keys().map(|name| name.as_str());
        assert!(names.all(|name| !name.starts_with("access-control-")), "{:?}", response.headers());
    }
}

#[actix_web::test]
async fn what_a_handler_says_about_its_content_stands() {
    let response = answer(TestRequest::get().uri("/page")).await;
    let headers = response.headers();
    assert_eq!(headers.get("content-security-policy").unwrap(), "default-src 'self'");
    assert_eq!(headers.get("cache-control").unwrap(), "max-age=60");
    assert_eq!(headers.get_all("content-security-policy").count(), 1);
}

#[actix_web::test]
async fn head_is_answered_like_get_without_the_body() {
    let get = answer(TestRequest::get().uri("/page")).await;
    let head = answer(TestRequest::with_uri("/page").method(Method::HEAD)).await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.body().size(), get.body().size(), "which is the Content-Length");
    let fields = |response: &HttpResponse| -> Vec<String> {
        let names = response.headers().keys().filter(|name| **name != X_REQUEST_ID);
        let mut fields: Vec<_> =
            names.map(|name| format!("{name}: {:?}", response.headers().get(name))).collect();
        fields.sort();
        fields
    };
    assert_eq!(fields(&head), fields(&get));
    assert!(actix_web::body::to_bytes(head.into_body()).await.unwrap_or_default().is_empty());
    let absent = answer(TestRequest::with_uri("/nowhere").method(Method::HEAD)).await;
    assert_eq!(absent.status(), 404);
    let other = answer(TestRequest::with_uri("/api/v1/auth/login").method(Method::HEAD)).await;
    assert_eq!(
        (other.status().as_u16(), other.headers().get("allow").unwrap().to_str().unwrap()),
        (405, "POST")
    );
}

#[actix_web::test]
async fn an_empty_body_is_an_empty_object() {
    let response = answer(TestRequest::post().uri("/echo")).await;
    assert_eq!((response.status().as_u16(), json(response).await), (200, serde_json::json!({})));
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
            "DELETE /api/v1/auth/api-keys/{id} session - write 0",
            "DELETE /api/v1/pipelines/{id} project write write 0",
            "DELETE /api/v1/projects/{id} project manage write 0",
            "DELETE /api/v1/projects/{id}/files/{path} project write write 0",
            "DELETE /api/v1/projects/{id}/members/{user_id} project manage write 0",
            "GET /api/openapi.json public - read 0",
            "GET /api/v1/audit/events admin admin read 0",
            "GET /api/v1/auth/api-keys account - read 0",
            "GET /api/v1/auth/me account - read 0",
            "GET /api/v1/pipelines own read read 0",
            "GET /api/v1/pipelines/{id} project read read 0",
            "GET /api/v1/pipelines/{id}/versions project read read 0",
            "GET /api/v1/projects own read read 0",
            "GET /api/v1/projects/{id} project read read 0",
            "GET /api/v1/projects/{id}/budget project read read 0",
            "GET /api/v1/projects/{id}/files project read read 0",
            "GET /api/v1/projects/{id}/files/{path} project read read 0",
            "GET /api/v1/projects/{id}/members project read read 0",
            "GET /api/v1/runs own read read 0",
            "GET /api/v1/runs/{id} project read read 0",
            "GET /api/v1/runs/{id}/journal project read read 0",
            "GET /api/v1/runs/{id}/stream project read read 0",
            "GET /api/v1/system/instances admin admin read 0",
            "GET /api/v1/users admin admin read 0",
            "GET /health public - health 0",
            "GET /health/live public - health 0",
            "GET /health/ready public - health 0",
            "GET /metrics public - health 0",
            "PATCH /api/v1/projects/{id} project manage write 65536",
            "PATCH /api/v1/users/{id} admin admin write 65536",
            "POST /api/v1/auth/api-keys session - write 65536",
            "POST /api/v1/auth/login public - auth 65536",
            "POST /api/v1/auth/logout session - write 65536",
            "POST /api/v1/auth/refresh public - auth 65536",
            "POST /api/v1/auth/register public - auth 65536",
            "POST /api/v1/pipelines project write write 16777216",
            "POST /api/v1/pipelines/validate account - write 16777216",
            "POST /api/v1/pipelines/{id}/runs project run write 16777216",
            "POST /api/v1/projects own manage write 65536",
            "POST /api/v1/runs/{id}/budget project manage write 65536",
            "POST /api/v1/runs/{id}/cancel project run write 0",
            "POST /api/v1/runs/{id}/nodes/{node_id}/decision project run write 65536",
            "POST /api/v1/runs/{id}/rerun project run write 16777216",
            "PUT /api/v1/auth/password session - auth 65536",
            "PUT /api/v1/pipelines/{id} project write write 16777216",
            "PUT /api/v1/projects/{id}/budget project manage write 65536",
            "PUT /api/v1/projects/{id}/files/{path} project write write setting",
            "PUT /api/v1/projects/{id}/members/{user_id} project manage write 65536",
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

#[actix_web::test]
async fn every_route_of_the_table_is_served() {
    for route in ROUTES {
        let filled = documented_path(route.path).replace("{id}", "x").replace("{user_id}", "y");
        let status = answer(TestRequest::with_uri(&filled).method(route.method.clone())).await.status();
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

/// Over a socket, as only a connection hands a body on piece by piece.
#[actix_web::test]
async fn a_body_that_comes_with_its_head_is_not_awaited() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let server = actix_web::HttpServer::new(|| application(&TEST_ROUTES));
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    let running = server.run();
    let handle = running.handle();
    let running = actix_web::rt::spawn(running);
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"POST /wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    socket.write_all(request).await.unwrap();
    let mut answered = String::new();
    socket.read_to_string(&mut answered).await.unwrap();
    assert!(answered.ends_with("awaited: false"), "{answered}");
    handle.stop(false).await;
    running.await.unwrap().unwrap();
}

#[test]
fn a_problem_has_a_body_of_known_size() {
    use actix_web::ResponseError as _;
    let size = Problem::not_found().error_response().body().size();
    assert!(matches!(size, actix_web::body::BodySize::Sized(_)));
}

#[test]
fn the_document_in_the_repository_is_the_one_of_this_version() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(committed == openapi_text().unwrap(), "run `cargo run -- openapi > docs/openapi.json`");
}

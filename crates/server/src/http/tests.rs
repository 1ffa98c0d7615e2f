//! What holds for every answer, tried on the real application without a database behind it.

use actix_web::body::MessageBody;
use actix_web::dev::Service as _;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use actix_web::{HttpResponse, web};
use serde_json::Value;

use crate::http::edge::body::{OpenBody, SMALL};
use crate::http::edge::envelope::X_REQUEST_ID;
use crate::http::edge::openapi::openapi_text;
use crate::http::edge::problem::{PROBLEM_JSON, Problem};
use crate::http::server::application;

/// Reads a small body, and tells what it read.
async fn echo(body: OpenBody) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(body.receive(SMALL).await?.0.value()?.0))
}

/// Asks nobody anything before it reads, and tells whether it had to wait for the body.
async fn wait(body: OpenBody) -> Result<String, Problem> {
    Ok(format!("awaited: {}", body.receive(SMALL).await?.1))
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

/// The answer of the application, with three routes more.
async fn answer(request: TestRequest) -> HttpResponse {
    let app = application()
        .route("/echo", web::post().to(echo))
        .route("/explode", web::get().to(explode))
        .route("/page", web::get().to(page));
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
    check_problem(post("/echo").set_payload(vec![b' '; SMALL + 1]), 413, "too-large").await;
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

/// Everything in the document, as method and path.
fn documented() -> Vec<(String, String, bool)> {
    let document: Value = serde_json::from_str(&openapi_text().unwrap()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_public = operation["security"] == serde_json::json!([{}]);
            routes.push((method.to_uppercase(), path.clone(), is_public));
        }
    }
    routes.sort();
    routes
}

#[actix_web::test]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let routes = documented();
    let listed: Vec<String> = routes
        .iter()
        .map(|(method, path, public)| format!("{method} {path}{}", if *public { " open" } else { "" }))
        .collect();
    assert_eq!(
        listed,
        [
            "DELETE /api/v1/auth/api-keys/{id}",
            "DELETE /api/v1/pipelines/{id}",
            "DELETE /api/v1/projects/{id}",
            "DELETE /api/v1/projects/{id}/files/{path}",
            "DELETE /api/v1/projects/{id}/members/{user_id}",
            "GET /api/openapi.json open",
            "GET /api/v1/audit/events",
            "GET /api/v1/auth/api-keys",
            "GET /api/v1/auth/me",
            "GET /api/v1/pipelines",
            "GET /api/v1/pipelines/{id}",
            "GET /api/v1/pipelines/{id}/versions",
            "GET /api/v1/projects",
            "GET /api/v1/projects/{id}",
            "GET /api/v1/projects/{id}/budget",
            "GET /api/v1/projects/{id}/files",
            "GET /api/v1/projects/{id}/files/{path}",
            "GET /api/v1/projects/{id}/members",
            "GET /api/v1/runs",
            "GET /api/v1/runs/{id}",
            "GET /api/v1/runs/{id}/journal",
            "GET /api/v1/runs/{id}/stream",
            "GET /api/v1/system/instances",
            "GET /api/v1/users",
            "GET /health open",
            "GET /health/live open",
            "GET /health/ready open",
            "GET /metrics open",
            "PATCH /api/v1/projects/{id}",
            "PATCH /api/v1/users/{id}",
            "POST /api/v1/auth/api-keys",
            "POST /api/v1/auth/login open",
            "POST /api/v1/auth/logout",
            "POST /api/v1/auth/refresh open",
            "POST /api/v1/auth/register open",
            "POST /api/v1/pipelines",
            "POST /api/v1/pipelines/validate",
            "POST /api/v1/pipelines/{id}/runs",
            "POST /api/v1/projects",
            "POST /api/v1/runs/{id}/budget",
            "POST /api/v1/runs/{id}/cancel",
            "POST /api/v1/runs/{id}/nodes/{node_id}/decision",
            "POST /api/v1/runs/{id}/rerun",
            "PUT /api/v1/auth/password",
            "PUT /api/v1/pipelines/{id}",
            "PUT /api/v1/projects/{id}/budget",
            "PUT /api/v1/projects/{id}/files/{path}",
            "PUT /api/v1/projects/{id}/members/{user_id}",
        ]
    );
    for (method, path, _) in routes {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let filled = path.replace("{id}", "x").replace("{user_id}", "y");
        let status = answer(TestRequest::with_uri(&filled).method(method.clone())).await.status();
        assert!(status != 404 && status != 405, "{method} {path} is documented and not served: {status}");
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

    let server = actix_web::HttpServer::new(|| application().route("/wait", web::post().to(wait)));
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

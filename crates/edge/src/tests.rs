//! What holds for every answer, tried on an application with a few routes.

use std::sync::LazyLock;

use actix_web::body::MessageBody;
use actix_web::dev::Service as _;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use actix_web::{HttpResponse, Resource, web};
use gathering_domain::{NodeId, ProjectId};
use serde_json::Value;

use crate::body::OpenBody;
use crate::envelope::X_REQUEST_ID;
use crate::limits::Tier;
use crate::openapi::{Document, openapi_json};
use crate::problem::{PROBLEM_JSON, ProblemDetails};
use crate::route::{Access, BodyLimit, Description, Route};
use crate::server::application;

/// Reads a small body, and tells what it read.
async fn echo(body: OpenBody) -> Result<HttpResponse, ProblemDetails> {
    Ok(HttpResponse::Ok().json(body.receive().await?.0.value()?.0))
}

/// Asks nobody anything before it reads, and tells whether it had to wait for the body.
async fn wait(body: OpenBody) -> Result<String, ProblemDetails> {
    Ok(format!("awaited: {}", body.receive().await?.1))
}

/// Shows the thing that the path names.
async fn show(id: web::Path<(ProjectId, NodeId)>) -> String {
    format!("{}: {}", id.0, id.1)
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

async fn live() -> &'static str {
    "live"
}

/// A route of these tests, with a small body.
fn route(
    (method, path): (Method, &'static str),
    (access, tier): (Access, Tier),
    handler: fn(Resource) -> Resource,
) -> Route {
    let describe = || Description {
        documented: (Vec::new(), String::new()),
        operation: utoipa::openapi::path::Operation::new(),
        schemas: Vec::new(),
    };
    Route { method, path, access, tier, body: BodyLimit::Small, handler, describe }
}

/// Handlers of many kinds, behind each tier and with and without a login.
pub(crate) static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    use Access::{Public, Session};
    use Tier::{Auth, Health, Read, Write};
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let things = "/api/v1/things";
    let thing = "/api/v1/things/{path:.*}";
    vec![
        route((get.clone(), "/health/live"), (Public, Health), |resource| resource.to(live)),
        route((get.clone(), "/api/openapi.json"), (Public, Read), |resource| resource.to(openapi_json)),
        route((post.clone(), "/api/v1/auth/login"), (Public, Auth), |resource| resource.to(live)),
        route((post.clone(), "/api/v1/auth/refresh"), (Public, Auth), |resource| resource.to(live)),
        route((put.clone(), "/api/v1/auth/password"), (Session, Auth), |resource| resource.to(live)),
        route((get.clone(), things), (Public, Read), |resource| resource.to(live)),
        route((post.clone(), things), (Public, Write), |resource| resource.to(live)),
        route((get.clone(), thing), (Public, Read), |resource| resource.to(live)),
        route((put, thing), (Public, Write), |resource| resource.to(live)),
        route((delete, thing), (Public, Write), |resource| resource.to(live)),
        route((post.clone(), "/echo"), (Public, Read), |resource| resource.to(echo)),
        route((post, "/wait"), (Public, Read), |resource| resource.to(wait)),
        route((get.clone(), "/show/{id}/{node_id}"), (Public, Read), |resource| resource.to(show)),
        route((get.clone(), "/explode"), (Public, Read), |resource| resource.to(explode)),
        route((get, "/page"), (Public, Read), |resource| resource.to(page)),
    ]
});

/// The document of these routes.
pub(crate) fn document() -> Document {
    Document::of(utoipa::openapi::OpenApi::default(), &ROUTES).unwrap()
}

/// The answer of the application.
async fn answer(request: TestRequest) -> HttpResponse {
    let document = web::Data::new(document());
    let app = application(&ROUTES).app_data(document);
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
    check_problem(TestRequest::delete().uri("/api/v1/things"), 405, "method-not-allowed").await;
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
async fn a_path_whose_id_is_none_names_nothing() {
    let get = |uri: &str| TestRequest::get().uri(uri);
    let id = ProjectId::new();
    assert_eq!(answer(get(&format!("/show/{id}/a-1"))).await.status(), 200);
    for wrong in ["/show/x/a-1", &format!("/show/{id}/1"), &format!("/show/{id}x/a"), "/show/%ff/a"] {
        check_problem(get(wrong), 404, "not-found").await;
    }
}

#[actix_web::test]
async fn a_method_that_is_not_supported_is_told_which_ones_are() {
    let response = answer(TestRequest::delete().uri("/api/v1/things")).await;
    assert_eq!(response.headers().get("allow").unwrap(), "GET, HEAD, POST");
    let response = answer(TestRequest::post().uri("/api/v1/things/a/b.md")).await;
    assert_eq!(response.headers().get("allow").unwrap(), "GET, HEAD, PUT, DELETE");
    let response = answer(TestRequest::patch().uri("/api/v1/auth/login")).await;
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

/// Over a socket, as only a connection hands a body on piece by piece.
#[actix_web::test]
async fn a_body_that_comes_with_its_head_is_not_awaited() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let server = actix_web::HttpServer::new(|| application(&ROUTES));
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
    let size = ProblemDetails::not_found().error_response().body().size();
    assert!(matches!(size, actix_web::body::BodySize::Sized(_)));
}

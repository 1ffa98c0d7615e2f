//! The headers of every answer, requests that are refused unread, and metrics.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Database, Metrics, ROUTES, Raw, RawReply, Scene, Server, head};
use reqwest::Method;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

const SMALL: usize = 64 * 1024;
const MESSAGE: usize = 1024 * 1024;
const LARGE: usize = 16 * 1024 * 1024;

/// One request on a connection of its own.
async fn ask(
    server: &Server,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<RawReply> {
    let mut raw = Raw::connect(server.address()).await?;
    raw.request(method, target, headers, body).await?;
    raw.reply().await.with_context(|| format!("{method} {target}"))
}

/// The status that a request gets, its method, path, headers and body.
type Asked<'a> = (u16, &'a str, &'a str, Vec<(&'a str, &'a str)>, &'a [u8]);

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_has_the_security_headers_and_lets_no_other_site_in() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let bearer = format!("Bearer {}", scene.owner.token().context("no token")?);
    let login = ("authorization", bearer.as_str());
    let json = ("content-type", "application/json");
    let files = format!("/api/v1/projects/{}/files", scene.project);
    let (file, fresh) = (format!("{files}/{}", scene.file), format!("{files}/fresh.txt"));
    let etag = ask(&server, "GET", &file, &[login], b"").await?.header("etag").to_owned();
    let large = vec![b' '; SMALL + 1];
    let requests: Vec<Asked<'_>> = vec![
        (200, "GET", "/health/live", vec![], b""),
        (200, "GET", "/metrics", vec![], b""),
        (200, "GET", "/api/openapi.json", vec![], b""),
        (200, "GET", "/api/v1/auth/me", vec![login], b""),
        (200, "GET", &file, vec![login], b""),
        (206, "GET", &file, vec![login, ("range", "bytes=0-1")], b""),
        (304, "GET", &file, vec![login, ("if-none-match", &etag)], b""),
        (416, "GET", &file, vec![login, ("range", "bytes=100-")], b""),
        (201, "PUT", &fresh, vec![login], b"x"),
        (204, "DELETE", &fresh, vec![login], b""),
        (400, "POST", "/api/v1/auth/login", vec![json], b"{"),
        (401, "GET", "/api/v1/auth/me", vec![], b""),
        (403, "GET", "/api/v1/users", vec![login], b""),
        (404, "GET", "/nothing", vec![], b""),
        (404, "GET", "/api/v1/runs/none", vec![login], b""),
        (405, "DELETE", "/api/v1/auth/login", vec![], b""),
        (405, "OPTIONS", "/api/v1/auth/login", vec![("access-control-request-method", "POST")], b""),
        (412, "PUT", &file, vec![login, ("if-match", "\"nothing\"")], b"x"),
        (413, "POST", "/api/v1/auth/login", vec![json], &large),
        (415, "POST", "/api/v1/auth/login", vec![("content-type", "text/plain")], b"x"),
        (422, "POST", "/api/v1/auth/login", vec![json], b"{}"),
    ];
    for (status, method, target, mut headers, body) in requests {
        headers.push(("origin", "https://elsewhere.example"));
        let reply = ask(&server, method, target, &headers, body).await?;
        let shown = format!("{method} {target}: {} {:?}", reply.status, reply.headers);
        assert_eq!(reply.status, status, "{shown} {}", reply.text());
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{shown}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{shown}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{shown}");
        assert!(reply.header("content-security-policy").contains("default-src 'none'"), "{shown}");
        assert!(!reply.header("x-request-id").is_empty(), "{shown}");
        if target != "/api/openapi.json" {
            let caching = reply.header("cache-control");
            assert!(caching.contains("no-store") || caching.contains("no-cache"), "{shown}");
        }
        for (name, value) in &reply.headers {
            assert!(!name.starts_with("access-control-"), "{shown}: {name}: {value}");
            assert!(!["server", "x-powered-by", "set-cookie"].contains(&name.as_str()), "{shown}: {name}");
        }
        if status >= 400 {
            assert_eq!(reply.header("content-type"), "application/problem+json", "{shown}");
            assert_eq!(reply.json()["instance"], reply.header("x-request-id"), "{shown}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_handed_out_so_that_no_browser_runs_it() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let path = format!("/api/v1/projects/{}/files/page.html", scene.project);
    scene.owner.put_bytes(&path, "<script>alert(1)</script>").await?.expect(201)?;
    let reply = scene.owner.get(&path).await?;
    assert_eq!((reply.status, reply.text.as_str()), (200, "<script>alert(1)</script>"));
    assert!(reply.header("content-security-policy").contains("sandbox"), "{:?}", reply.headers);
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_before_it_has_come() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let bearer = format!("Bearer {}", scene.owner.token().context("no token")?);
    for route in ROUTES.iter().filter(|route| !route.body.is_empty() && !route.name.contains("files")) {
        let path = scene.fill(route.path).await?;
        let large =
            ["agents", "pipelines", "runs", "events", "schedules", "hooks", "invoke", "POST /mcp", "secrets"]
                .iter()
                .any(|word| route.name.contains(word));
        let limit = match large {
            true if route.name.contains("hooks/in") => MESSAGE,
            true => LARGE,
            false => SMALL,
        };
        // Announced: refused at once, though not a byte of it is sent.
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let mut raw = Raw::connect(server.address()).await?;
        raw.send(head(route.method(), &path, &headers, limit as u64 + 1)).await?;
        let reply = raw.reply().await.with_context(|| route.name)?;
        // A caller without the right gets that answer instead.
        let is_forbidden = reply.status == 403 && path.contains("/users/");
        assert!(reply.status == 413 || is_forbidden, "{}: {}", route.name, reply.text());
        // Not announced: refused as soon as it is too much.
        let mut raw = Raw::connect(server.address()).await?;
        let mut start = head(route.method(), &path, &headers, 0);
        let text = String::from_utf8(start)?.replace("content-length: 0", "transfer-encoding: chunked");
        start = text.into_bytes();
        raw.send(start).await?;
        let chunk = [format!("{:x}\r\n", SMALL).as_bytes(), &[b' '; SMALL], b"\r\n"].concat();
        for _ in 0..=limit / SMALL {
            // It may have been refused already.
            if raw.send(&chunk).await.is_err() {
                break;
            }
        }
        match raw.reply().await {
            Ok(reply) => {
                assert!([413, 403].contains(&reply.status), "{}: {}", route.name, reply.text());
            }
            // A reset, as the server does not read on.
            Err(error) => assert!(large, "{}: {error:#}", route.name),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_http_gets_4xx_and_does_no_harm() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let start = "POST /api/v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let requests: Vec<Vec<u8>> = vec![
        format!("{start}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").into_bytes(),
        format!("{start}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}").into_bytes(),
        format!("{start}content-length: -1\r\n\r\n").into_bytes(),
        format!("{start}content-length: +2\r\n\r\n{{}}").into_bytes(),
        format!("{start}content-length: 99999999999999999999999\r\n\r\n").into_bytes(),
        format!("{start}transfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
        format!("{start}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n").into_bytes(),
        format!("{start}transfer-encoding: gzip, chunked, chunked\r\n\r\n0\r\n\r\n").into_bytes(),
        format!("{start}no colon here\r\n\r\n").into_bytes(),
        format!("{start}x: a\rb\r\n\r\n").into_bytes(),
        format!("{start}x : space before the colon\r\n\r\n").into_bytes(),
        b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"GET / HTTP/3.7\r\nhost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        [b"GET /".as_slice(), &[b'a'; 300_000], b" HTTP/1.1\r\nhost: x\r\n\r\n"].concat(),
        [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 300_000], b"\r\n\r\n"].concat(),
        (0..2000).fold(b"GET / HTTP/1.1\r\n".to_vec(), |mut head, n| {
            head.extend_from_slice(format!("x{n}: y\r\n").as_bytes());
            head
        }),
    ];
    let mut asking = tokio::task::JoinSet::new();
    for (n, request) in requests.into_iter().enumerate() {
        let address = server.address().to_owned();
        asking.spawn(async move {
            let mut raw = Raw::connect(&address).await?;
            // The server may have closed before the end.
            raw.send(&request).await.ok();
            let answer = raw.closed(LIMIT).await.with_context(|| format!("request {n}"))?;
            anyhow::Ok((n, String::from_utf8_lossy(&answer).into_owned()))
        });
    }
    for answered in asking.join_all().await {
        let (n, answer) = answered?;
        // Closing the connection is not an answer: it looks like a broken network.
        let is_refused = answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4");
        assert!(is_refused, "request {n}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "request {n}: {answer}");
    }
    assert_eq!(server.client().get("/health/ready").await?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_hidden_in_a_body_is_not_answered() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let hidden = b"GET /api/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut raw = Raw::connect(server.address()).await?;
    raw.request("GET", "/health/live", &[], hidden).await?;
    assert_eq!(raw.reply().await?.status, 200);
    raw.request("GET", "/health/live", &[("connection", "close")], b"").await.ok();
    let rest = String::from_utf8_lossy(&raw.closed(LIMIT).await?).into_owned();
    assert!(!rest.contains("openapi"), "{rest}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_is_done_and_name_no_path_or_person() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let project = format!("/api/v1/projects/{}", scene.project);
    let route = [("method", "GET"), ("route", "/api/v1/projects/{id}"), ("status", "200")];
    let before = Metrics::read(server.client()).await?;
    for _ in 0..3 {
        scene.owner.get(&project).await?.expect(200)?;
    }
    server.client().get("/no/such/path/anywhere").await?.expect(404)?;
    scene.owner.send(scene.owner.request(Method::from_bytes(b"BREW")?, &project)).await?;
    assert_eq!(server.client().try_login("owner@example.org", "a wrong horse").await?.status, 401);
    let after = Metrics::read(server.client()).await?;
    let grown = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    assert_eq!(grown("gathering_http_requests_total", &route), 3.0);
    assert_eq!(grown("gathering_http_request_duration_seconds_count", &route[..2]), 3.0);
    assert_eq!(grown("gathering_passwords_computed_total", &[]), 1.0);
    for (name, labels) in [
        ("gathering_http_requests_total", &["method", "route", "status"][..]),
        ("gathering_http_request_duration_seconds_bucket", &["method", "route", "le"]),
        ("gathering_http_request_duration_seconds_sum", &["method", "route"]),
        ("gathering_cache_hits_total", &["cache"]),
        ("gathering_cache_misses_total", &["cache"]),
        ("gathering_cache_evictions_total", &["cache"]),
        ("gathering_cache_entries", &["cache"]),
        ("gathering_cache_capacity", &["cache"]),
        ("gathering_db_connections", &["state"]),
        ("gathering_passwords_computed_total", &[]),
        ("gathering_runs_driven", &[]),
    ] {
        assert!(after.has(name, labels), "{name} with {labels:?}");
    }
    for name in ["gathering_http_requests_total", "gathering_http_request_duration_seconds_count"] {
        for route in after.values(name, "route") {
            assert!(!route.contains(&scene.project) && !route.contains("no/such"), "{route}");
        }
        assert!(!after.values(name, "method").contains(&"BREW"), "methods are of a fixed list");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_the_id_that_its_client_gave_it_in_the_answer_and_the_log() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let id = "01990000-0000-7000-8000-00000000abcd";
    for (method, path) in [("GET", "/api/v1/auth/me"), ("GET", "/health/live"), ("POST", "/nothing")] {
        let request = server.client().with_header("x-request-id", id);
        let method = Method::from_bytes(method.as_bytes())?;
        let reply = request.send(request.request(method, path).json(&json!({}))).await?;
        assert_eq!(reply.header("x-request-id"), id, "{path}");
    }
    assert!(server.log().contains(id));
    for forged in ["a\tb", "<script>", "a;b", &"x".repeat(129)] {
        let reply = ask(&server, "GET", "/health/live", &[("x-request-id", forged)], b"").await?;
        assert_ne!(reply.header("x-request-id"), forged);
    }
    Ok(())
}

//! What outgoing requests reach and what they do not, against a real server.

use std::time::Duration;

use crate::support::{Server, answer};
use gathering_tools::{Outbound, OutboundError, OutboundPolicy, OutboundRequest};

fn guarded() -> Outbound {
    Outbound::new(OutboundPolicy::public_only()).unwrap()
}

fn allowing(networks: &[&str]) -> Outbound {
    Outbound::new(OutboundPolicy::allowing(networks.iter().map(|text| text.parse().unwrap()))).unwrap()
}

fn get(url: &str) -> OutboundRequest {
    OutboundRequest::new("GET", url).unwrap()
}

#[tokio::test]
async fn a_private_host_is_refused_in_every_spelling_and_receives_nothing() {
    let server = Server::start(|_| answer("200 OK", &[], "secret")).await;
    let port = server.address.port();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "0177.1",
        "017700000001",
        "0x7F.0X1",
        "127.0.0x1",
        "%31%32%37.0.0.1",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::1]",
        "[2001:0:7f00:1::]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "１２７.0.0.1",
        "127。0。0。1",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ] {
        let error = guarded().send(get(&format!("http://{host}:{port}/"))).await.unwrap_err();
        // A name that this machine does not resolve at all is as well kept out.
        let kept_out = matches!(error, OutboundError::Refused { .. })
            || (host.eq_ignore_ascii_case("localhost.") && matches!(error, OutboundError::Connect { .. }));
        assert!(kept_out, "{host}: {error:?}");
        if let OutboundError::Refused { .. } = &error {
            assert!(!error.is_retryable());
            assert_eq!(error.kind().as_str(), "forbidden");
            assert!(error.to_string().contains("GATHERING_OUTBOUND_ALLOW"), "{error}");
        }
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn an_allowed_network_is_reached_by_address_and_by_name() {
    let server =
        Server::start(|_| answer("200 OK", &[("content-type", "application/json")], r#"{"a": [1]}"#)).await;
    let outbound = allowing(&["127.0.0.0/8"]);
    for url in [server.url("/x?y=1"), format!("http://localhost:{}/x?y=1", server.address.port())] {
        let answer = outbound.send(get(&url)).await.unwrap();
        assert!(answer.is_success());
        assert_eq!(answer.to_value()["body"], serde_json::json!({"a": [1]}));
    }
    assert!(server.asked().iter().all(|request| request.starts_with("GET /x?y=1 HTTP/1.1\r\n")));
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_redirect_to_a_refused_address_is_refused() {
    for target in [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9.254.0251.254/",
        "//10.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://[2002:a00:1::]/",
    ] {
        let server = Server::start(move |_| answer("302 Found", &[("location", target)], "")).await;
        let error = allowing(&["127.0.0.0/8"]).send(get(&server.url("/"))).await.unwrap_err();
        assert!(matches!(error, OutboundError::Refused { .. }), "{target}: {error:?}");
    }
    let server = Server::start(|_| answer("302 Found", &[("location", "file:///etc/passwd")], "")).await;
    let error = allowing(&["127.0.0.0/8"]).send(get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::InvalidRequest { .. }), "{error:?}");
}

#[tokio::test]
async fn a_redirect_to_another_origin_carries_no_credentials() {
    let other = Server::start(|_| answer("200 OK", &[], "there")).await;
    let location = other.url("/other");
    let first = Server::start(move |request| match request.starts_with("GET /same") {
        true => answer("302 Found", &[("location", &location)], ""),
        false => answer("307 Temporary Redirect", &[("location", "/same")], ""),
    })
    .await;
    let request = get(&first.url("/"))
        .header("Authorization", "Bearer k1")
        .and_then(|request| request.header("Cookie", "k2"))
        .and_then(|request| request.header("X-Api-Key", "k3"))
        .and_then(|request| request.header("Accept", "text/plain"))
        .unwrap();
    let answer = allowing(&["127.0.0.0/8"]).send(request).await.unwrap();
    assert_eq!(&answer.body[..], b"there");
    assert!(first.asked()[1].contains("Bearer k1"), "the same origin keeps them");
    let seen = other.asked().remove(0);
    assert!(!seen.contains("k1") && !seen.contains("k2") && !seen.contains("k3"), "{seen}");
    assert!(seen.contains("text/plain"), "{seen}");
}

#[tokio::test]
async fn redirects_are_bounded_and_a_post_is_not_redirected() {
    let server = Server::start(|_| answer("302 Found", &[("location", "/again")], "")).await;
    let outbound = allowing(&["127.0.0.0/8"]);
    let error = outbound.send(get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::TooManyRedirects { limit: 5, .. }), "{error:?}");
    assert_eq!(server.asked().len(), 6);
    let posted = outbound.send(OutboundRequest::new("post", &server.url("/")).unwrap()).await.unwrap();
    assert_eq!(posted.status, 302);
}

#[tokio::test]
async fn a_large_response_is_rejected_with_and_without_its_length() {
    let with_length = Server::start(|_| answer("200 OK", &[], &"x".repeat(10_001))).await;
    let without = Server::start(|_| Some(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(10_001)))).await;
    for server in [with_length, without] {
        let outbound = allowing(&["127.0.0.0/8"]);
        let error = outbound.send(get(&server.url("/")).max_response_bytes(10_000)).await.unwrap_err();
        assert!(matches!(error, OutboundError::TooLarge { limit_bytes: 10_000, .. }), "{error:?}");
        let taken = outbound.send(get(&server.url("/")).max_response_bytes(10_001)).await.unwrap();
        assert_eq!(taken.body.len(), 10_001);
    }
}

#[tokio::test]
async fn a_silent_or_absent_server_is_a_retryable_failure() {
    let silent = Server::start(|_| None).await;
    let outbound = allowing(&["127.0.0.0/8"]);
    let error = outbound.send(get(&silent.url("/")).timeout(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(error, OutboundError::TimedOut { .. }) && error.is_retryable(), "{error:?}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token=s3cret", listener.local_addr().unwrap());
    drop(listener);
    let error = outbound.send(get(&url)).await.unwrap_err();
    assert!(matches!(error, OutboundError::Connect { .. }) && error.is_retryable(), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("s3cret"), "{error:?}");

    let cut = Server::start(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned())).await;
    let error = outbound.send(get(&cut.url("/"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::BrokenOff { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_host_that_asks_for_a_pause_gets_no_request() {
    let server = Server::start(|request| match request.contains("/busy") {
        true => answer("429 Too Many Requests", &[("Retry-After", "60")], ""),
        false => answer("200 OK", &[], ""),
    })
    .await;
    let outbound = allowing(&["127.0.0.0/8"]);
    assert_eq!(outbound.send(get(&server.url("/busy"))).await.unwrap().status, 429);
    let error = outbound.clone().send(get(&server.url("/"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::Paused { .. }) && error.is_retryable(), "{error:?}");
    assert_eq!(error.kind().as_str(), "rate_limited");
    let other = get(&server.url("/")).header("Authorization", "another key").unwrap();
    assert_eq!(outbound.send(other).await.unwrap().status, 200);
    // The pause is that of this address: what redirects to it fails, too.
    let location = server.url("/");
    let first = Server::start(move |_| answer("302 Found", &[("location", &location)], "")).await;
    let error = outbound.send(get(&first.url("/"))).await.unwrap_err();
    assert!(matches!(error, OutboundError::Paused { .. }), "{error:?}");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_full_host_holds_up_nobody_else() {
    let (silent, other) = (Server::start(|_| None).await, Server::start(|_| answer("200 OK", &[], "")).await);
    let outbound = allowing(&["127.0.0.0/8"]).with_max_per_host(1);
    let waiting = tokio::spawn({
        let (outbound, request) = (outbound.clone(), get(&silent.url("/")));
        async move { outbound.send(request).await }
    });
    while silent.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    let short = get(&silent.url("/")).timeout(Duration::from_millis(50));
    let error = outbound.send(short).await.unwrap_err();
    assert!(
        matches!(error, OutboundError::Busy { limit: 1, .. }) && !error.may_have_been_sent(),
        "{error:?}"
    );
    assert!(outbound.send(get(&other.url("/"))).await.unwrap().is_success());
    waiting.abort();
    let _ = waiting.await;
    let last = get(&silent.url("/")).timeout(Duration::from_millis(50));
    let error = outbound.send(last).await.unwrap_err();
    assert!(matches!(error, OutboundError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn an_invalid_request_sends_nothing() {
    for url in [
        "ftp://1.1.1.1/",
        "file:///etc/passwd",
        "gopher://1.1.1.1",
        "/x",
        "http://",
        "http://user:pw@1.1.1.1/",
    ] {
        let error = OutboundRequest::new("GET", url).unwrap_err();
        assert!(
            matches!(error, OutboundError::InvalidRequest { .. }) && !error.is_retryable(),
            "{url}: {error:?}"
        );
        assert!(!error.to_string().contains("pw"), "{error}");
    }
    assert!(OutboundRequest::new("CONNECT", "http://1.1.1.1/").is_err());
    assert!(OutboundRequest::new("G T", "http://1.1.1.1/").is_err());
    for (name, value) in [("Host", "x"), ("Transfer-Encoding", "chunked"), ("a b", "x"), ("x", "a\r\nb: c")] {
        assert!(get("http://1.1.1.1/").header(name, value).is_err(), "{name}: {value:?}");
    }
}

#[test]
fn proxy_settings_of_the_environment_are_ignored() {
    // This test's own program, once more, in an environment whose proxies do not exist.
    let nowhere = "http://127.0.0.1:9";
    let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "outbound::an_allowed_network_is_reached_by_address_and_by_name"])
        .envs(proxies.map(|name| (name, nowhere)))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}");
}

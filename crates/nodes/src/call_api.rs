//! `action: call_api`: one HTTP request.

use std::time::Duration;

use gathering_dag_engine::{ActFailed, Attempt, EffectClass, Fields, NodeFailure, Shape};
use gathering_domain::{FailureKind, with_causes};
use gathering_tools::{Outbound, OutboundError, OutboundRequest, is_refusal};
use serde_json::Value;

use crate::config::is_computed_text;
use crate::secrets::AttemptSecrets;

const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];

/// The key of the node's only effect.
const EFFECT: &str = "call";

/// The longest time of one exchange, in seconds.
const MAX_TIMEOUT_SECONDS: f64 = 600.0;

/// `call_api {method?, url, headers?, body?, expect_status?, timeout_seconds?}`; its output is
/// `{status, headers, body, body_encoding}`.
pub(crate) struct CallApi {
    outbound: Outbound,
}

impl CallApi {
    pub(crate) const fn new(outbound: Outbound) -> Self {
        Self { outbound }
    }

    pub(crate) fn check(config: &mut Fields<'_>) {
        let method = config.optional("method", Shape::Text).and_then(Value::as_str);
        let is_known = |method: &str| METHODS.contains(&method.to_ascii_uppercase().as_str());
        if method.is_some_and(|method| !is_computed_text(method) && !is_known(method)) {
            config.problem("method", format!("must be one of {}", METHODS.join(", ")));
        }
        let url = config.required("url", Shape::Text).and_then(Value::as_str);
        if let Some(url) = url.filter(|url| !is_computed_text(url))
            && let Err(error) = OutboundRequest::new("GET", url)
        {
            config.problem("url", reason_of(&error));
        }
        let headers = config.optional("headers", Shape::FlatObject).and_then(Value::as_object);
        for (name, value) in headers.into_iter().flatten() {
            let value = header_text(value).filter(|text| !is_computed_text(text)).unwrap_or_default();
            let set = OutboundRequest::new("GET", "http://localhost/")
                .and_then(|request| request.header(name, &value));
            if let Err(error) = set {
                let place = config.place("headers").join(name);
                config.problems().add(place, reason_of(&error));
            }
        }
        config.optional("body", Shape::Any);
        if let Some(expected) = config.optional("expect_status", Shape::Any) {
            let computed = expected.as_str().is_some_and(is_computed_text);
            if !computed && !expected.is_null() && statuses(expected).is_none() {
                config.problem("expect_status", "must be a status from 100 to 599, or a list of them");
            }
        }
        config.optional("timeout_seconds", Shape::Number(0.001, MAX_TIMEOUT_SECONDS));
    }

    /// Reads all fields, so that none is reported as unknown.
    pub(crate) fn know_fields(config: &mut Fields<'_>) {
        for name in ["method", "url", "headers", "body", "expect_status", "timeout_seconds"] {
            config.optional(name, Shape::Any);
        }
    }

    pub(crate) async fn execute(
        &self,
        attempt: &Attempt,
        secrets: &AttemptSecrets,
    ) -> Result<Value, NodeFailure> {
        let config = &attempt.config;
        let key = attempt.effects.idempotency_key(EFFECT, config);
        let class = Call::read(config, &key)?.class();
        let send = || async {
            let call = secrets.reveal(config).and_then(|revealed| Call::read(&revealed, &key));
            self.send(call.map_err(ActFailed::before_it_took_place)?).await
        };
        attempt.effects.once(EFFECT, class, config, send).await
    }

    async fn send(&self, call: Call) -> Result<Value, ActFailed> {
        let response = self.outbound.send(call.request).await.map_err(|error| failure_of(&error))?;
        let expected = match &call.expected {
            Some(statuses) => statuses.contains(&response.status),
            None => response.is_success(),
        };
        if expected {
            return Ok(response.to_value());
        }
        let wanted = match &call.expected {
            Some(statuses) => statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(" or "),
            None => "200 to 299".to_owned(),
        };
        let message = format!("`{}` answered with status {}, not {wanted}", call.origin, response.status);
        let failure = match response.status {
            408 | 425 | 429 | 500.. => NodeFailure::retryable(FailureKind::HttpStatus, message),
            _ => NodeFailure::permanent(FailureKind::HttpStatus, message),
        };
        let failure = failure.with_retry_after(response.retry_after());
        Err(act_failed(failure, !is_refusal(response.status)))
    }
}

/// A request that is ready to be sent.
struct Call {
    request: OutboundRequest,
    method: String,
    /// What messages name of its URL: the path and the query may hold a secret.
    origin: String,
    /// The statuses that succeed; `None` for 200 to 299.
    expected: Option<Vec<u16>>,
}

impl Call {
    /// Reads an evaluated config.
    fn read(config: &Value, idempotency_key: &str) -> Result<Self, NodeFailure> {
        let wrong = |error: OutboundError| NodeFailure::permanent(FailureKind::Config, reason_of(&error));
        let method = config["method"].as_str().unwrap_or("GET").to_ascii_uppercase();
        let url = config["url"].as_str().ok_or_else(|| bad("url", "a string"))?;
        let mut request = OutboundRequest::new(&method, url).map_err(wrong)?;
        for (name, value) in config["headers"].as_object().into_iter().flatten() {
            let value = header_text(value)
                .ok_or_else(|| bad(&format!("headers.{name}"), "a string, a number or a boolean"))?;
            request = request.header(name, &value).map_err(wrong)?;
        }
        if let Some(body) = config.get("body").filter(|body| !body.is_null()) {
            request = request.body(body);
        }
        if let Some(seconds) = config.get("timeout_seconds").filter(|seconds| !seconds.is_null()) {
            let seconds = seconds.as_f64().filter(|seconds| (0.001..=MAX_TIMEOUT_SECONDS).contains(seconds));
            request = request.timeout(Duration::from_secs_f64(
                seconds.ok_or_else(|| bad("timeout_seconds", "a number from 0.001 to 600"))?,
            ));
        }
        let expected = match config.get("expect_status").filter(|expected| !expected.is_null()) {
            Some(expected) => {
                Some(statuses(expected).ok_or_else(|| bad("expect_status", "a status or a list of them"))?)
            }
            None => None,
        };
        let request = request.idempotency_key(idempotency_key).map_err(wrong)?;
        let origin = request.origin();
        Ok(Self { request, method, origin, expected })
    }

    /// Every request has an idempotency key, so even a write may be repeated.
    fn class(&self) -> EffectClass {
        match self.method.as_str() {
            "GET" | "HEAD" | "OPTIONS" => EffectClass::Pure,
            _ => EffectClass::Idempotent,
        }
    }
}

fn bad(field: &str, expected: &str) -> NodeFailure {
    NodeFailure::permanent(FailureKind::Config, format!("`{field}` must be {expected}"))
}

fn header_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn statuses(value: &Value) -> Option<Vec<u16>> {
    let status = |value: &Value| {
        value
            .as_u64()
            .and_then(|status| u16::try_from(status).ok())
            .filter(|status| (100..600).contains(status))
    };
    match value {
        Value::Array(items) if !items.is_empty() => items.iter().map(status).collect(),
        one => status(one).map(|status| vec![status]),
    }
}

fn reason_of(error: &OutboundError) -> String {
    match error {
        OutboundError::InvalidRequest { reason } => reason.clone(),
        other => other.to_string(),
    }
}

fn failure_of(error: &OutboundError) -> ActFailed {
    let message = with_causes(error);
    let failure = if error.is_retryable() {
        NodeFailure::retryable(error.kind(), message)
    } else {
        NodeFailure::permanent(error.kind(), message)
    };
    act_failed(failure.with_retry_after(error.retry_after()), error.may_have_been_sent())
}

fn act_failed(failure: NodeFailure, may_have_taken_place: bool) -> ActFailed {
    if may_have_taken_place { failure.into() } else { ActFailed::before_it_took_place(failure) }
}

#[cfg(test)]
mod tests {
    use gathering_tools::OutboundPolicy;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::problems;

    #[test]
    fn every_bad_field_is_named() {
        let config = json!({
            "action": "call_api", "method": "FETCH", "url": "ftp://x/", "headers": {"Host": "a", "b c": "d", "ok": 1},
            "expect_status": [200, 999], "timeout_seconds": 0, "retries": 3
        });
        let found = problems("action", &config);
        let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(
            places,
            [
                "/method",
                "/url",
                "/headers/Host",
                "/headers/b c",
                "/expect_status",
                "/timeout_seconds",
                "/retries"
            ]
        );
    }

    #[test]
    fn a_computed_field_passes_validation() {
        let config = json!({
            "action": "call_api", "method": "${{ input.method }}", "url": "${{ input.url }}/x",
            "headers": {"authorization": "Bearer ${{ input.key }}"}, "body": {"a": "${{ input.a }}"},
            "expect_status": "${{ input.status }}", "timeout_seconds": "${{ 3 }}"
        });
        assert!(problems("action", &config).is_empty());
        assert!(problems("action", &json!({"action": "call_api", "url": "https://example.org"})).is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_refuses_a_request_says_that_it_was_not_carried_out() {
        for (status, may_have_taken_place) in
            [(400, false), (429, false), (409, true), (500, true), (302, true)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let answer = async {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                assert!(connection.read(&mut request).await.unwrap() > 0);
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                connection.write_all(answer.as_bytes()).await.unwrap();
            };
            let config = json!({"method": "POST", "url": format!("http://{address}/")});
            let policy = OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
            let api = CallApi::new(Outbound::new(policy).unwrap());
            let (sent, ()) = tokio::join!(api.send(Call::read(&config, "r/n").unwrap()), answer);
            assert_eq!(sent.unwrap_err().may_have_taken_place(), may_have_taken_place, "{status}");
        }
    }

    #[test]
    fn a_read_is_pure_and_a_write_is_idempotent() {
        let class = |method: &str| {
            Call::read(&json!({"method": method, "url": "http://h/"}), "r/n")
                .map(|call| call.class())
                .unwrap()
        };
        assert_eq!(class("get"), EffectClass::Pure);
        assert_eq!(class("POST"), EffectClass::Idempotent);
    }

    /// Answers one request with these bytes, and returns the request.
    async fn serve_once(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/secret-path?key=1", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = String::new();
            let mut buffer = [0; 1024];
            while !asked.contains("\r\n\r\n") {
                let n_bytes = stream.read(&mut buffer).await.unwrap();
                asked.push_str(&String::from_utf8_lossy(&buffer[..n_bytes]));
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            asked
        });
        (url, served)
    }

    async fn call(url: &str, more: &Value) -> Result<Value, NodeFailure> {
        let policy = OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
        let mut config = json!({"method": "GET", "url": url});
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        let calls = CallApi::new(Outbound::new(policy).unwrap());
        Ok(calls.send(Call::read(&config, "the-run/the-node")?).await?)
    }

    #[tokio::test]
    async fn the_response_is_the_output_and_the_request_has_its_key() {
        let (url, served) = serve_once(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\nx-a: b\r\n\r\n{\"a\": 1}",
        )
        .await;
        let output = call(&url, &json!({"headers": {"x-n": 7}})).await.unwrap();
        assert_eq!((&output["status"], &output["body"]), (&json!(200), &json!({"a": 1})));
        assert_eq!(output["headers"]["x-a"], "b");
        let asked = served.await.unwrap().to_ascii_lowercase();
        assert!(asked.contains("idempotency-key: the-run/the-node") && asked.contains("x-n: 7"), "{asked}");
    }

    #[tokio::test]
    async fn a_failure_says_whether_it_is_retryable() {
        let (url, _served) = serve_once("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        let busy = call(&url, &json!({})).await.unwrap_err();
        assert!(busy.retryable && busy.kind.as_str() == "http_status", "{busy:?}");
        assert!(!busy.message.contains("secret-path"), "{busy}");
        assert_eq!(busy.retry_after(), None);
        let (url, _served) = serve_once("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
        assert!(!call(&url, &json!({})).await.unwrap_err().retryable);
        let (url, _served) = serve_once("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(call(&url, &json!({"expect_status": [200, 404]})).await.unwrap()["status"], 404);
    }

    #[tokio::test]
    async fn a_failure_carries_the_pause_that_the_host_asks_for() {
        let (url, _served) =
            serve_once("HTTP/1.1 429 Slow\r\nretry-after: 90\r\ncontent-length: 0\r\n\r\n").await;
        let policy = OutboundPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
        let api = CallApi::new(Outbound::new(policy).unwrap());
        let call = || Call::read(&json!({"url": url}), "the-run/the-node").unwrap();
        let refused = NodeFailure::from(api.send(call()).await.unwrap_err());
        assert_eq!(
            (refused.kind.as_str(), refused.retry_after()),
            ("http_status", Some(Duration::from_secs(90)))
        );
        // The next one is not even sent.
        let paused = NodeFailure::from(api.send(call()).await.unwrap_err());
        let pause = paused.retry_after().unwrap();
        assert!(paused.kind.as_str() == "rate_limited" && pause > Duration::from_secs(60), "{paused:?}");
    }

    #[tokio::test]
    async fn a_failure_names_the_host_however_the_url_is_written() {
        let answer = "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n";
        let written: [fn(&str) -> String; 3] = [
            |url| url.replace('/', "\\"),
            |url| url.replace("http://", "http:"),
            |url| url.replace("http://", "HTTP:///"),
        ];
        for write in written {
            let (url, _served) = serve_once(answer).await;
            let failed = call(&write(&url), &json!({})).await.unwrap_err();
            let host = url.split("/secret-path").next().unwrap();
            assert_eq!(failed.message, format!("`{host}` answered with status 404, not 200 to 299"));
        }
    }

    #[tokio::test]
    async fn an_address_that_the_operator_has_not_allowed_is_refused_permanently() {
        let calls = CallApi::new(Outbound::new(OutboundPolicy::public_only()).unwrap());
        let call = Call::read(&json!({"url": "http://127.0.0.1:9/"}), "r/n").unwrap();
        let refused = calls.send(call).await.unwrap_err();
        let refused = NodeFailure::from(refused);
        assert!(!refused.retryable && refused.message.contains("GATHERING_OUTBOUND_ALLOW"), "{refused:?}");
    }

    #[tokio::test]
    async fn a_refused_connection_is_retryable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let failed = call(&url, &json!({})).await.unwrap_err();
        assert!(failed.retryable && failed.kind.as_str() == "connection", "{failed:?}");
    }
}

//! Outgoing requests and their responses.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chrono::Utc;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use url::Url;

use super::OutboundError;
use super::hosts::retry_after;

/// Headers that the connection sets, not the caller.
const RESERVED_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// An outgoing request.
#[derive(Clone)]
pub struct OutboundRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) timeout: Duration,
    pub(super) max_response_bytes: usize,
}

impl OutboundRequest {
    /// The default time limit of a request.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default limit of a response body: 2 MiB.
    pub const DEFAULT_MAX_RESPONSE_BYTES: usize = 2 * 1024 * 1024;

    /// A request without headers or body.
    ///
    /// # Errors
    /// [`OutboundError::InvalidRequest`] if the method or the URL is invalid, or the URL is not plain HTTP or HTTPS.
    pub fn new(method: &str, url: &str) -> Result<Self, OutboundError> {
        let method = method.to_ascii_uppercase();
        let method = match Method::from_bytes(method.as_bytes()) {
            Ok(method) if method != Method::CONNECT => method,
            _ => return Err(invalid("the method is unknown")),
        };
        let url = Url::parse(url).map_err(|error| invalid(format!("invalid URL: {error}")))?;
        check_url(&url)?;
        Ok(Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: Self::DEFAULT_TIMEOUT,
            max_response_bytes: Self::DEFAULT_MAX_RESPONSE_BYTES,
        })
    }

    /// Sets a header, replacing one of the same name.
    ///
    /// # Errors
    /// [`OutboundError::InvalidRequest`] if the name or value is invalid, or the connection sets the header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, OutboundError> {
        let shown: String = name.chars().take(64).collect();
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid(format!("`{shown}` is not a valid header name")))?;
        if RESERVED_HEADERS.contains(&name.as_str()) {
            return Err(invalid(format!("the connection sets the header `{name}`; remove it")));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| invalid(format!("the value of header `{name}` contains invalid characters")))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Sends `key` as `Idempotency-Key`, unless the caller has set that header.
    ///
    /// # Errors
    /// [`OutboundError::InvalidRequest`] if it is not a valid header value.
    pub fn idempotency_key(self, key: &str) -> Result<Self, OutboundError> {
        if self.headers.contains_key("idempotency-key") {
            Ok(self)
        } else {
            self.header("idempotency-key", key)
        }
    }

    /// Sets the body: a string as it is, anything else as JSON. Adds a content type unless the caller has set one.
    #[must_use]
    pub fn body(mut self, body: &Value) -> Self {
        let (bytes, content_type) = match body {
            Value::String(text) => (Bytes::from(text.clone()), "text/plain; charset=utf-8"),
            other => (Bytes::from(other.to_string()), "application/json"),
        };
        self.body = bytes;
        self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        self
    }

    /// The body, byte for byte as it is sent.
    pub const fn body_bytes(&self) -> &Bytes {
        &self.body
    }

    /// Limits the time of the whole exchange, including redirects and the body.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Limits the size of the response body.
    #[must_use]
    pub const fn max_response_bytes(mut self, limit: usize) -> Self {
        self.max_response_bytes = limit;
        self
    }

    /// The scheme, host and port of the URL, such as `https://example.org:8443`; without the port if it is the default.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    pub(crate) fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }
}

impl std::fmt::Debug for OutboundRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboundRequest")
            .field("method", &self.method)
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

pub(super) fn check_url(url: &Url) -> Result<(), OutboundError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("the URL must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("the URL must not contain credentials: send them in the Authorization header"));
    }
    Ok(())
}

pub(super) fn invalid(reason: impl Into<String>) -> OutboundError {
    OutboundError::InvalidRequest { reason: reason.into() }
}

/// A response, of any status.
#[derive(Debug, Clone)]
pub struct OutboundResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl OutboundResponse {
    /// Whether the status is a success (200 to 299).
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// How long the host wants no further request, if it said so with `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers, Utc::now())
    }

    /// Shape: `{status, headers: {name: value}, body}`. A JSON body is a value, any other text a string. A body that is
    /// not UTF-8 is Base64 with `"body_encoding": "base64"`. The values of a repeated header are joined by `, `.
    pub fn to_value(&self) -> Value {
        let mut headers: Map<String, Value> = Map::new();
        for name in self.headers.keys() {
            let values: Vec<_> = self
                .headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            headers.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
        }
        let mut answer = json!({"status": self.status, "headers": headers});
        match self.body_value() {
            Ok(body) => answer["body"] = body,
            Err(encoded) => {
                answer["body"] = Value::String(encoded);
                answer["body_encoding"] = json!("base64");
            }
        }
        answer
    }

    fn body_value(&self) -> Result<Value, String> {
        let content_type =
            self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_json = media_type == "application/json" || media_type.ends_with("+json");
        if is_json && let Ok(value) = serde_json::from_slice(&self.body) {
            return Ok(value);
        }
        match std::str::from_utf8(&self.body) {
            Ok(text) => Ok(Value::String(text.to_owned())),
            Err(_) => Err(BASE64.encode(&self.body)),
        }
    }
}

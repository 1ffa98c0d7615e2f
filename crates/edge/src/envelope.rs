//! What every answer has: a request id, security headers, a log line, and for errors the form of a problem.
//!
//! Owns the id of the request and its span, and turns HEAD into GET without a body. Sends no CORS headers, so a
//! browser lets no script of another site read an answer.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, ResponseError, web};
use futures::FutureExt;
use gathering_domain::RequestId;
use tracing::Instrument;

use crate::connections::InFlight;
use crate::metrics::Metrics;
use crate::problem::{Kind, PROBLEM_JSON, ProblemDetails};
use crate::readiness::Readiness;

/// The header that carries a request's id both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// A browser that shows an answer loads and executes nothing.
const NOTHING_LOADED: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");

const MAX_REQUEST_ID_LEN: usize = 128;

tokio::task_local! {
    static REQUEST: RequestIdentity;
}

/// The id of a request: the client's if it sent a sane one, else a new one.
#[derive(Debug, Clone)]
pub struct RequestIdentity {
    /// As answers and logs show it.
    pub text: String,
    /// As the audit record keeps it: the client's if it is a UUID, else a new one, which the log shows beside it.
    pub id: RequestId,
}

impl RequestIdentity {
    fn of(headers: &HeaderMap) -> Self {
        let sent =
            headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|text| is_sane(text));
        let id = sent.and_then(|text| text.parse().ok()).unwrap_or_else(RequestId::new);
        Self { text: sent.map_or_else(|| id.to_string(), str::to_owned), id }
    }
}

fn is_sane(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_REQUEST_ID_LEN).contains(&text.len()) && text.bytes().all(allowed)
}

/// The id of the request that this task answers; empty outside of one.
pub fn current_request_id() -> String {
    REQUEST.try_with(|request| request.text.clone()).unwrap_or_default()
}

/// The outermost layer of the application.
pub async fn envelope(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let identity = RequestIdentity::of(request.headers());
    request.extensions_mut().insert(identity.clone());
    let span = tracing::info_span!(
        "request",
        request.id = %identity.text,
        request.uuid = tracing::field::Empty,
        http.method = %request.method(),
        http.route = tracing::field::Empty,
    );
    if identity.text != identity.id.to_string() {
        span.record("request.uuid", tracing::field::display(identity.id));
    }
    REQUEST.scope(identity.clone(), answer(request, next, identity).instrument(span)).await
}

async fn answer(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
    identity: RequestIdentity,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let begun = Instant::now();
    let in_flight = InFlight::begin(&request);
    let readiness = request.app_data::<web::Data<Readiness>>().cloned();
    let metrics = request.app_data::<web::Data<Metrics>>().cloned();
    let method = request.method().clone();
    if method == Method::HEAD {
        // Every route that answers GET answers HEAD, with the same head.
        request.head_mut().method = Method::GET;
        // A range is defined for GET only (RFC 9110, 14.2), and the head is that of the whole.
        request.head_mut().headers_mut().remove(RANGE);
    }
    // A handler that panics must not close the connection without an answer.
    let answered = AssertUnwindSafe(next.call(request)).catch_unwind().await;
    // Routing owns the request, so none is at hand when a layer returns only an error.
    let (request, response) = match answered {
        Ok(Ok(answered)) => {
            let (request, response) = answered.map_into_boxed_body().into_parts();
            (Some(request), response)
        }
        Ok(Err(error)) => (None, HttpResponse::from_error(error)),
        Err(_panic) => (None, HttpResponse::from_error(ProblemDetails::internal("a handler panicked"))),
    };
    let route = request.as_ref().and_then(HttpRequest::match_pattern).unwrap_or_else(|| "unknown".to_owned());
    tracing::Span::current().record("http.route", &route);
    let mut response = in_our_form(response);
    complete_headers(response.headers_mut(), &identity, &route);
    if readiness.is_some_and(|readiness| readiness.is_draining()) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let (status, took) = (response.status(), begun.elapsed());
    if let Some(metrics) = metrics {
        metrics.count_request(&method, &route, status, took);
    }
    log_request(&identity, &method, &route, status, took);
    if method == Method::HEAD {
        response = response.map_body(|_, body| BoxBody::new(Bodiless(body.size())));
    }
    if let Some(in_flight) = in_flight {
        response = response.map_body(|_, body| in_flight.until_sent(body));
    }
    match request {
        Some(request) => Ok(ServiceResponse::new(request, response)),
        None => Err(InternalError::from_response("the request was abandoned", response).into()),
    }
}

/// The length of a body without the body, which is never produced.
struct Bodiless(BodySize);

impl MessageBody for Bodiless {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(None)
    }
}

/// Logs the cause of an error, and gives an error of the HTTP layer the form of a problem.
fn in_our_form(response: HttpResponse) -> HttpResponse {
    if let Some(error) = response.error() {
        log_cause(error);
    }
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    let media_type = response.headers().get(CONTENT_TYPE);
    // Health answers its detail in the same form, healthy or not.
    if !is_error || media_type.is_some_and(|value| value == PROBLEM_JSON || value == "application/json") {
        return response;
    }
    let problem = ProblemDetails::new(
        Kind::Other(response.status()),
        "the request was rejected before it reached a handler",
    );
    let mut ours = problem.error_response();
    // Headers of inner layers stay, such as the rate limits; the body and the headers that describe it are replaced.
    for (name, value) in response.headers().iter().filter(|(name, _)| !name.as_str().starts_with("content-"))
    {
        ours.headers_mut().append(name.clone(), value.clone());
    }
    ours
}

fn log_cause(error: &Error) {
    match error.as_error::<ProblemDetails>() {
        Some(problem) => match problem.causes() {
            Some(causes) if problem.status() == 500 => {
                tracing::error!(error = %causes, "request failed unexpectedly: {causes}");
            }
            Some(causes) => tracing::warn!(error = %causes, "request refused: {causes}"),
            None => {}
        },
        None => tracing::debug!(error = %error, "request refused by the HTTP layer: {error}"),
    }
}

fn complete_headers(headers: &mut HeaderMap, identity: &RequestIdentity, route: &str) {
    // The text was checked, so it is always a valid header value.
    if let Ok(id) = HeaderValue::from_str(&identity.text) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, NOTHING_LOADED);
    }
    if !headers.contains_key(CACHE_CONTROL) && route != "/api/openapi.json" {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn log_request(identity: &RequestIdentity, method: &Method, route: &str, status: StatusCode, took: Duration) {
    let (method, status) = (method.as_str(), status.as_u16());
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    // Probes come every few seconds and say nothing.
    if route.starts_with("/health") || route == "/metrics" {
        tracing::debug!(request.id = %identity.text, http.status = status, duration_ms, "{method} {route} {status}");
    } else {
        tracing::info!(
            request.id = %identity.text,
            http.method = method,
            http.route = route,
            http.status = status,
            duration_ms,
            "{method} {route} {status} in {duration_ms} ms"
        );
    }
}

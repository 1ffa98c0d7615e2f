//! Request bodies: JSON or YAML, bounded in size and time. Every problem is named, in YAML with its line and column.
//!
//! Owns the order: the server receives the whole body before it decides what the sender may do. A sender can delay the
//! last byte, and can lose a right meanwhile.

use std::future::{Ready, ready};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::{FromRequest, HttpRequest};
use futures::StreamExt;
use gathering_auth::Caller;
use gathering_dag_engine::{SourceMap, read_json};
use gathering_domain::{KeyedBody, Pointer, Problems};
use serde_json::Value;

use crate::caller::{authenticate, caller_of};
use crate::envelope::current_request_id;
use crate::idempotency::keyed_body;
use crate::input::{self, Input};
use crate::problem::{FieldError, Kind, ProblemDetails};
use crate::route::matched;

/// The whole body must arrive within this time, so that a slow client holds nothing for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of an authenticated request, not yet received. The handler gets the caller together with the body.
pub struct Body {
    open: OpenBody,
    /// As authenticated when the head of the request arrived.
    caller: Caller,
    request: HttpRequest,
}

/// The body of a public request, not yet received.
pub struct OpenBody {
    payload: Payload,
    format: Result<Format, String>,
    announced: Option<usize>,
    limit: usize,
}

/// The body of a request whose bytes count, whatever they mean. Not yet received.
pub struct RawBody(OpenBody);

/// A body that has arrived whole.
pub struct Received {
    bytes: Vec<u8>,
    format: Format,
}

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
}

/// The text of a body, to find the places of its problems.
pub enum Source {
    /// A program wrote it: the pointer is place enough.
    Json,
    /// A person may have written it, and needs a line number.
    Yaml(String),
}

impl FromRequest for Body {
    type Error = ProblemDetails;
    type Future = Ready<Result<Self, ProblemDetails>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(caller_of(request).and_then(|caller| {
            Ok(Self { open: OpenBody::of(request, payload)?, caller, request: request.clone() })
        }))
    }
}

impl FromRequest for OpenBody {
    type Error = ProblemDetails;
    type Future = Ready<Result<Self, ProblemDetails>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(Self::of(request, payload))
    }
}

impl FromRequest for RawBody {
    type Error = ProblemDetails;
    type Future = Ready<Result<Self, ProblemDetails>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(OpenBody::of(request, payload).map(|mut body| {
            let is_encoded = request.headers().get(CONTENT_ENCODING).is_some_and(|value| value != "identity");
            if !is_encoded {
                body.format = Ok(Format::Json);
            }
            Self(body)
        }))
    }
}

impl RawBody {
    /// Receives the whole body. An encoded one is refused: its bytes are not those that the sender has signed.
    ///
    /// # Errors
    /// As [`OpenBody::receive`].
    pub async fn receive(self) -> Result<Vec<u8>, ProblemDetails> {
        Ok(self.0.receive().await?.0.bytes)
    }
}

impl Body {
    /// Receives the whole body, and gives the caller as they stand then: if the body had to be waited for, the caller
    /// is authenticated again.
    ///
    /// # Errors
    /// As [`OpenBody::receive`]; 401 or 403 if the credential or the role was taken away meanwhile.
    pub async fn receive(self) -> Result<(Caller, Received), ProblemDetails> {
        let Self { open, caller, request } = self;
        let (received, was_awaited) = open.receive().await?;
        if !was_awaited {
            return Ok((caller, received));
        }
        let caller = authenticate(&request).await?;
        matched(&request)?.access.check(&caller)?;
        Ok((caller, received))
    }
}

impl OpenBody {
    fn of(request: &HttpRequest, payload: &mut Payload) -> Result<Self, ProblemDetails> {
        let limit = matched(request)?.body.bytes().unwrap_or_default();
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let announced = header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let format = match header(CONTENT_ENCODING) {
            None | Some("identity") => format_of(header(CONTENT_TYPE)),
            Some(encoding) => Err(format!("the content encoding `{encoding:.40}` is not supported")),
        };
        Ok(Self { payload: payload.take(), format, announced, limit })
    }

    /// Receives the whole body, and tells whether it had to be waited for.
    ///
    /// # Errors
    /// 400 for a body that breaks off, 408 for one that is too slow, 413 for one over the limit of its route, 415 for
    /// an unsupported media type or encoding.
    pub async fn receive(self) -> Result<(Received, bool), ProblemDetails> {
        let format = self.format.map_err(|detail| ProblemDetails::new(Kind::UnsupportedMediaType, detail))?;
        let limit = self.limit;
        let too_large =
            || ProblemDetails::new(Kind::TooLarge, format!("the body may have at most {limit} bytes here"));
        if self.announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut whole = pin!(collect(self.payload, limit));
        let (collected, was_awaited) = if let Some(collected) = poll_twice(whole.as_mut()).await {
            (collected, false)
        } else {
            tracing::debug!(request.id = %current_request_id(), "waiting for the rest of a body");
            let collected = tokio::time::timeout(BODY_TIMEOUT, whole).await.map_err(|_elapsed| {
                let detail = format!("the body must arrive within {} seconds", BODY_TIMEOUT.as_secs());
                ProblemDetails::new(Kind::RequestTimeout, detail)
            })?;
            (collected, true)
        };
        let bytes = collected.map_err(|error| {
            ProblemDetails::new(Kind::Malformed, format!("the body did not arrive: {error}"))
        })?;
        Ok((Received { bytes: bytes.ok_or_else(too_large)?, format }, was_awaited))
    }

    /// Receives the whole body and reads it.
    ///
    /// # Errors
    /// As [`OpenBody::receive`] and [`Received::input`].
    pub async fn input<T: Input>(self) -> Result<T, ProblemDetails> {
        self.receive().await?.0.input().await
    }
}

impl Received {
    /// The body as it came.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads the body. An empty body is an empty object.
    ///
    /// # Errors
    /// 400 for text that is neither JSON nor YAML, 422 with every problem; in YAML each has its line and column.
    pub async fn input<T: Input>(self) -> Result<T, ProblemDetails> {
        let (value, source) = self.value()?;
        source.placing(async { input::read(value) }).await
    }

    /// Reads the body as [`Received::input`], with the request's idempotency key, if it has one.
    ///
    /// # Errors
    /// As [`Received::input`]; 422 for a key that cannot be.
    pub async fn input_once<T: Input>(
        self,
        request: &HttpRequest,
    ) -> Result<(T, Option<KeyedBody>), ProblemDetails> {
        let (value, source) = self.value()?;
        let once = keyed_body(request, &value)?;
        Ok((source.placing(async { input::read(value) }).await?, once))
    }

    /// The value of a body that may not be empty, and its text.
    ///
    /// # Errors
    /// As [`Received::value`]; 422 for an empty body.
    pub fn required_value(self) -> Result<(Value, Source), ProblemDetails> {
        if is_empty(&self.bytes) {
            return Err(ProblemDetails::invalid(Problems::one(Pointer::root(), "a body is required")));
        }
        self.value()
    }

    /// The value of the body, and its text. An empty body is an empty object.
    ///
    /// # Errors
    /// 400 for text that is neither JSON nor YAML.
    pub fn value(self) -> Result<(Value, Source), ProblemDetails> {
        parse(self.format, self.bytes)
    }
}

fn format_of(content_type: Option<&str>) -> Result<Format, String> {
    // Many clients send JSON without a content type.
    let Some(content_type) = content_type else { return Ok(Format::Json) };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Format::Yaml),
        other if other.ends_with("+json") => Ok(Format::Json),
        other => Err(format!("`{other:.80}` is not supported: send application/json or application/yaml")),
    }
}

impl Source {
    /// Whether the body is YAML.
    pub const fn is_yaml(&self) -> bool {
        matches!(self, Source::Yaml(_))
    }

    /// Runs `work` and adds the line and column to each problem that it finds. Without a problem this costs nothing.
    ///
    /// # Errors
    /// As `work`.
    pub async fn placing<T>(
        self,
        work: impl Future<Output = Result<T, ProblemDetails>>,
    ) -> Result<T, ProblemDetails> {
        match work.await {
            Err(mut problem) => {
                problem.errors = self.placed(problem.errors).await?;
                Err(problem)
            }
            done => done,
        }
    }

    /// Adds line and column to each problem, on a thread of its own, since a large text takes a while.
    ///
    /// # Errors
    /// A 500 only if the search panicked.
    pub async fn placed(self, errors: Vec<FieldError>) -> Result<Vec<FieldError>, ProblemDetails> {
        match self {
            Source::Yaml(text) if !errors.is_empty() => {
                let search = tokio::task::spawn_blocking(move || {
                    let source = SourceMap::of(&text);
                    errors.into_iter().map(|error| error.placed(&source)).collect()
                });
                search.await.map_err(ProblemDetails::internal)
            }
            _ => Ok(errors),
        }
    }
}

/// Polls twice: a connection hands a body on only after the first turn of the request, so a request that has not
/// waited for anything yet gives it one.
async fn poll_twice<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    if let Poll::Ready(output) = futures::poll!(future.as_mut()) {
        return Some(output);
    }
    tokio::task::yield_now().await;
    match futures::poll!(future) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The whole body, or `None` if it is larger than allowed.
async fn collect(
    mut payload: Payload,
    limit: usize,
) -> Result<Option<Vec<u8>>, actix_web::error::PayloadError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

fn is_empty(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

fn parse(format: Format, bytes: Vec<u8>) -> Result<(Value, Source), ProblemDetails> {
    let malformed = |detail: String| ProblemDetails::new(Kind::Malformed, detail);
    if is_empty(&bytes) {
        return Ok((Value::Object(serde_json::Map::new()), Source::Json));
    }
    match format {
        Format::Json => {
            let value = read_json(&bytes);
            let value = value.map_err(|error| malformed(format!("the body is no JSON: {error}")))?;
            Ok((value, Source::Json))
        }
        Format::Yaml => {
            let text = String::from_utf8(bytes)
                .map_err(|_| malformed("the body is no YAML: it is no text in UTF-8".to_owned()))?;
            let value = serde_saphyr::from_str(&text).map_err(|error| {
                // The first line has the problem and its place; the others draw the place for a terminal.
                let message = error.to_string();
                malformed(format!("the body is no YAML: {}", message.lines().next().unwrap_or_default()))
            })?;
            Ok((value, Source::Yaml(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(format: Format, text: &str) -> Option<u16> {
        parse(format, text.into()).err().map(|problem| problem.status().as_u16())
    }

    #[test]
    fn what_is_no_json_is_malformed_and_what_is_no_yaml_too() {
        for (format, text) in
            [(Format::Json, "{"), (Format::Json, "\u{1}"), (Format::Yaml, "a: [1"), (Format::Yaml, "a: b: c")]
        {
            assert_eq!(refusal(format, text), Some(400), "{text:?}");
        }
        let latin = parse(Format::Yaml, b"name: caf\xe9".to_vec());
        assert_eq!(latin.err().map(|problem| problem.status().as_u16()), Some(400));
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let value = |format, text: &str| parse(format, text.into()).ok().unwrap().0;
        let yaml = value(Format::Yaml, "name: a\nnodes:\n  - {id: x, on: 1}\n");
        let json = value(Format::Json, r#"{"name": "a", "nodes": [{"id": "x", "on": 1}]}"#);
        assert_eq!(yaml, json);
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!((refusal(Format::Json, &deep), refusal(Format::Yaml, &deep)), (Some(400), Some(400)));
    }

    #[test]
    fn a_media_type_that_is_neither_is_refused() {
        assert_eq!(format_of(None), Ok(Format::Json));
        assert_eq!(format_of(Some("application/json; charset=utf-8")), Ok(Format::Json));
        assert_eq!(format_of(Some("Application/YAML")), Ok(Format::Yaml));
        assert!(format_of(Some("application/x-www-form-urlencoded")).is_err());
    }
}

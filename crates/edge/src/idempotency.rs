//! The header `Idempotency-Key`: what it names is created once, however often the request is sent.

use actix_web::HttpRequest;
use gathering_domain::{IdempotencyKey, InvalidIdempotencyKey, KeyedBody};
use serde_json::Value;

use crate::problem::{Kind, ProblemDetails};

/// The request's key, if it has one, with the body that came with it.
///
/// # Errors
/// 422 for a key that cannot be.
pub fn keyed_body(request: &HttpRequest, body: &Value) -> Result<Option<KeyedBody>, ProblemDetails> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().map_err(|_| InvalidIdempotencyKey).and_then(str::parse::<IdempotencyKey>);
    let key =
        key.map_err(|error| ProblemDetails::new(Kind::Invalid, format!("the Idempotency-Key {error}")))?;
    Ok(Some(KeyedBody::new(key, body)))
}

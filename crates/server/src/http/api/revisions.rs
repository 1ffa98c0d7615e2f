//! Conditions of changes and deletions: `If-Match`.

use actix_web::HttpRequest;
use actix_web::http::header;
use gathering_control::ExpectedRevision;
use gathering_edge::conditions::Expected;
use gathering_edge::problem::{Kind, ProblemDetails};

/// The thing that the request's conditions are about.
///
/// # Errors
/// 400 for a condition that is not supported.
pub(super) fn expected_revision(request: &HttpRequest) -> Result<ExpectedRevision, ProblemDetails> {
    if request.headers().contains_key(header::IF_NONE_MATCH) {
        // To ignore a condition would be to do what the caller does not want.
        return Err(ProblemDetails::new(Kind::Malformed, "`If-None-Match` is not supported here"));
    }
    Ok(match Expected::of(request)? {
        Expected::Nothing | Expected::Present => ExpectedRevision::Any,
        Expected::OneOf(tags) => ExpectedRevision::OneOf(tags),
    })
}

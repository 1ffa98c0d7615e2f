//! Downloads: conditions, ranges, and a body that is read as fast as the client takes it.

use std::time::SystemTime;

use actix_web::body::SizedStream;
use actix_web::http::header::{self, ETag, EntityTag, HeaderValue, LastModified};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use futures::Stream;
use futures::stream::unfold;
use gathering_tools::{OpenFile, WorkspaceError, WorkspacePath};

use super::tag_of;
use gathering_edge::conditions::{is_known, matches};
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::ranges::RequestedPart;

/// The part of a file in memory for each download: 256 KiB.
const PIECE: usize = 256 * 1024;

/// A browser that shows a file gives it no origin and lets it execute and load nothing.
const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// A client may cache the file, but must revalidate it each time, which is cheap with its `ETag`.
const REVALIDATED: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The answer to a request for `file`.
pub(super) fn answer(
    request: &HttpRequest,
    path: &WorkspacePath,
    file: OpenFile,
) -> Result<HttpResponse, ProblemDetails> {
    let tag = tag_of(&file.version());
    if !matches(request, &tag) {
        let detail = format!("`{path}` is not one of the versions in `If-Match`");
        return Err(ProblemDetails::new(Kind::PreconditionFailed, detail));
    }
    if is_known(request, &tag) {
        return Ok(described(HttpResponse::NotModified(), &file, tag).finish());
    }
    let size = file.size_bytes();
    let (mut response, from, to) = match RequestedPart::of(request, &tag, size) {
        RequestedPart::Whole => (described(HttpResponse::Ok(), &file, tag), 0, size),
        RequestedPart::Range(first, last) => {
            let mut response = described(HttpResponse::PartialContent(), &file, tag);
            response.insert_header((header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")));
            (response, first, last + 1)
        }
        RequestedPart::Nowhere => {
            let detail = format!("`{path}` has {size} bytes");
            return Err(ProblemDetails::new(Kind::RangeNotSatisfiable, detail)
                .with_header(header::CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let media_type = mime_guess::from_path(path.as_str()).first_or_octet_stream();
    response.content_type(media_type.as_ref());
    Ok(response.body(SizedStream::new(to - from, pieces(file, from, to))))
}

fn described(mut response: HttpResponseBuilder, file: &OpenFile, tag: EntityTag) -> HttpResponseBuilder {
    response
        .insert_header(ETag(tag))
        .insert_header(LastModified(SystemTime::from(file.modified_at()).into()))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::CACHE_CONTROL, REVALIDATED))
        .insert_header((header::CONTENT_SECURITY_POLICY, SANDBOX));
    response
}

/// The bytes from `from` up to and without `to`, read when they are asked for.
fn pieces(file: OpenFile, from: u64, to: u64) -> impl Stream<Item = Result<Bytes, WorkspaceError>> {
    unfold((file, from), move |(file, at)| async move {
        let most = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX).min(PIECE);
        if most == 0 {
            return None;
        }
        let read = file.read_at(at, most).await;
        if let Err(error) = &read {
            tracing::warn!(error = %error, "download aborted: {error}");
        }
        // An error ends the connection, so that no client takes a part for the whole.
        let next = at + read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Some((read, (file, next)))
    })
}

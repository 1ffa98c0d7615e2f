//! Downloads: conditions, ranges, and a body that is read as fast as the client takes it.

use std::time::SystemTime;

use actix_web::body::SizedStream;
use actix_web::http::header::{
    self, ETag, EntityTag, Header as _, HeaderValue, IfRange, LastModified, Range,
};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use futures::Stream;
use futures::stream::unfold;
use gathering_tools::{OpenFile, WorkspaceError, WorkspacePath};

use super::tag_of;
use gathering_edge::conditions::{is_known, matches};
use gathering_edge::problem::{Kind, ProblemDetails};

/// The part of a file in memory for each download: 256 KiB.
const PIECE: usize = 256 * 1024;

/// A browser that shows a file gives it no origin and lets it execute and load nothing.
const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// A client may cache the file, but must revalidate it each time, which is cheap with its `ETag`.
const REVALIDATED: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The requested part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// From the first byte to the last, both included.
    Range(u64, u64),
    /// A range outside of the file.
    Nowhere,
}

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
    let (mut response, from, to) = match part_of(request, &tag, size) {
        Part::Whole => (described(HttpResponse::Ok(), &file, tag), 0, size),
        Part::Range(first, last) => {
            let mut response = described(HttpResponse::PartialContent(), &file, tag);
            response.insert_header((header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")));
            (response, first, last + 1)
        }
        Part::Nowhere => {
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

/// The part to answer with. The whole file is the answer to a malformed range, another unit, several ranges, and a
/// range of another version.
fn part_of(request: &HttpRequest, tag: &EntityTag, size: u64) -> Part {
    let Ok(Range::Bytes(ranges)) = Range::parse(request) else { return Part::Whole };
    let [range] = ranges.as_slice() else { return Part::Whole };
    if request.headers().contains_key(header::IF_RANGE) {
        // A date has whole seconds only, which is not exact enough to put two parts together.
        let is_same =
            matches!(IfRange::parse(request), Ok(IfRange::EntityTag(other)) if other.strong_eq(tag));
        if !is_same {
            return Part::Whole;
        }
    }
    range.to_satisfiable_range(size).map_or(Part::Nowhere, |(first, last)| Part::Range(first, last))
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

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> HttpRequest {
        let request =
            headers.iter().fold(TestRequest::get(), |request, header| request.insert_header(*header));
        request.to_http_request()
    }

    fn tag() -> EntityTag {
        EntityTag::new_strong("v1".to_owned())
    }

    #[test]
    fn one_range_is_cut_and_anything_else_is_the_whole_file() {
        for (range, expected) in [
            ("bytes=0-0", Part::Range(0, 0)),
            ("bytes=2-", Part::Range(2, 9)),
            ("bytes=2-100", Part::Range(2, 9)),
            ("bytes=-3", Part::Range(7, 9)),
            ("bytes=-100", Part::Range(0, 9)),
            ("bytes=10-", Part::Nowhere),
            ("bytes=10-20", Part::Nowhere),
            ("bytes=-0", Part::Nowhere),
            ("bytes=18446744073709551615-", Part::Nowhere),
            ("bytes=99999999999999999999-", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("bytes=5-2", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(part_of(&request(&[("range", range)]), &tag(), 10), expected, "{range}");
        }
        assert_eq!(part_of(&request(&[]), &tag(), 10), Part::Whole);
        assert_eq!(part_of(&request(&[("range", "bytes=0-")]), &tag(), 0), Part::Nowhere);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole_file() {
        for (if_range, expected) in [
            ("\"v1\"", Part::Range(0, 1)),
            ("\"v2\"", Part::Whole),
            ("W/\"v1\"", Part::Whole),
            ("Sat, 29 Oct 1994 19:43:31 GMT", Part::Whole),
            ("nonsense", Part::Whole),
        ] {
            let request = request(&[("range", "bytes=0-1"), ("if-range", if_range)]);
            assert_eq!(part_of(&request, &tag(), 10), expected, "{if_range}");
        }
    }
}

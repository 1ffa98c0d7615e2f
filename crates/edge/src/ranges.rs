//! The part of a body that a request asks for (RFC 9110, 14).

use actix_web::HttpRequest;
use actix_web::http::header::{self, EntityTag, Header as _, IfRange, Range};

/// The requested part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestedPart {
    /// All of it.
    Whole,
    /// From the first byte to the last, both included.
    Range(u64, u64),
    /// A range outside of the body.
    Nowhere,
}

impl RequestedPart {
    /// The part to answer with, of a body with this tag and so many bytes. All of it is the answer to a malformed range,
    /// another unit, several ranges, and a range of another version.
    pub fn of(request: &HttpRequest, tag: &EntityTag, n_bytes: u64) -> Self {
        let Ok(Range::Bytes(ranges)) = Range::parse(request) else { return Self::Whole };
        let [range] = ranges.as_slice() else { return Self::Whole };
        if request.headers().contains_key(header::IF_RANGE) {
            // A date has whole seconds only, which is not exact enough to put two parts together.
            let is_same =
                matches!(IfRange::parse(request), Ok(IfRange::EntityTag(other)) if other.strong_eq(tag));
            if !is_same {
                return Self::Whole;
            }
        }
        range.to_satisfiable_range(n_bytes).map_or(Self::Nowhere, |(first, last)| Self::Range(first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::tests::request;

    fn tag() -> EntityTag {
        EntityTag::new_strong("v1".to_owned())
    }

    #[test]
    fn one_range_is_cut_and_anything_else_is_the_whole_body() {
        for (range, expected) in [
            ("bytes=0-0", RequestedPart::Range(0, 0)),
            ("bytes=2-", RequestedPart::Range(2, 9)),
            ("bytes=2-100", RequestedPart::Range(2, 9)),
            ("bytes=-3", RequestedPart::Range(7, 9)),
            ("bytes=-100", RequestedPart::Range(0, 9)),
            ("bytes=10-", RequestedPart::Nowhere),
            ("bytes=10-20", RequestedPart::Nowhere),
            ("bytes=-0", RequestedPart::Nowhere),
            ("bytes=18446744073709551615-", RequestedPart::Nowhere),
            ("bytes=99999999999999999999-", RequestedPart::Whole),
            ("bytes=0-1,4-5", RequestedPart::Whole),
            ("bytes=5-2", RequestedPart::Whole),
            ("bytes=", RequestedPart::Whole),
            ("bytes", RequestedPart::Whole),
            ("bytes=a-b", RequestedPart::Whole),
            ("lines=0-1", RequestedPart::Whole),
        ] {
            assert_eq!(RequestedPart::of(&request(&[("range", range)]), &tag(), 10), expected, "{range}");
        }
        assert_eq!(RequestedPart::of(&request(&[]), &tag(), 10), RequestedPart::Whole);
        assert_eq!(RequestedPart::of(&request(&[("range", "bytes=0-")]), &tag(), 0), RequestedPart::Nowhere);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole_body() {
        for (if_range, expected) in [
            ("\"v1\"", RequestedPart::Range(0, 1)),
            ("\"v2\"", RequestedPart::Whole),
            ("W/\"v1\"", RequestedPart::Whole),
            ("Sat, 29 Oct 1994 19:43:31 GMT", RequestedPart::Whole),
            ("nonsense", RequestedPart::Whole),
        ] {
            let request = request(&[("range", "bytes=0-1"), ("if-range", if_range)]);
            assert_eq!(RequestedPart::of(&request, &tag(), 10), expected, "{if_range}");
        }
    }
}

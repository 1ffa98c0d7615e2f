//! Conditional requests: the versions that `If-Match` and `If-None-Match` allow (RFC 9110, 13).

use actix_web::HttpRequest;
use actix_web::http::header::{self, EntityTag, Header as _, IfMatch, IfNoneMatch};

use crate::problem::{Kind, ProblemDetails};

/// The precondition of a change in `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// None: the header is absent.
    Nothing,
    /// The resource exists.
    Present,
    /// The resource has one of these tags.
    OneOf(Vec<String>),
}

impl Expected {
    /// Reads the header. A malformed tag equals no version, so it is left out of the list.
    ///
    /// # Errors
    /// 400 for a header that is no text.
    pub fn of(request: &HttpRequest) -> Result<Self, ProblemDetails> {
        if !request.headers().contains_key(header::IF_MATCH) {
            return Ok(Expected::Nothing);
        }
        match IfMatch::parse(request) {
            Ok(IfMatch::Any) => Ok(Expected::Present),
            // A weak tag equals no version here.
            Ok(IfMatch::Items(tags)) => {
                let strong = tags.into_iter().filter(|tag| !tag.weak);
                Ok(Expected::OneOf(strong.map(|tag| tag.tag().to_owned()).collect()))
            }
            Err(_) => Err(ProblemDetails::new(Kind::Malformed, "`If-Match` must be `*` or a list of ETags")),
        }
    }
}

/// Whether `If-Match` allows this version. A missing header allows every version, a malformed one none.
pub fn matches(request: &HttpRequest, tag: &EntityTag) -> bool {
    !request.headers().contains_key(header::IF_MATCH)
        || match IfMatch::parse(request) {
            Ok(IfMatch::Any) => true,
            Ok(IfMatch::Items(tags)) => tags.iter().any(|other| other.strong_eq(tag)),
            Err(_) => false,
        }
}

/// Whether `If-None-Match` says that the client already has this version.
pub fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    request.headers().contains_key(header::IF_NONE_MATCH)
        && match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|other| other.weak_eq(tag)),
            Err(_) => false,
        }
}

#[cfg(test)]
pub(crate) mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;

    use super::*;

    /// A request with these headers.
    pub(crate) fn request(headers: &[(&str, &str)]) -> HttpRequest {
        let request =
            headers.iter().fold(TestRequest::get(), |request, header| request.insert_header(*header));
        request.to_http_request()
    }

    #[test]
    fn conditions_compare_versions() {
        let tag = EntityTag::new_strong("v1".to_owned());
        let if_match = |value| matches(&request(&[("if-match", value)]), &tag);
        let if_none_match = |value| is_known(&request(&[("if-none-match", value)]), &tag);
        for (value, strong, weak) in [
            ("*", true, true),
            ("\"v1\"", true, true),
            ("\"v0\", \"v1\"", true, true),
            ("W/\"v1\"", false, true),
            ("\"v2\"", false, false),
            ("v1", false, false),
            ("", false, false),
        ] {
            assert_eq!((if_match(value), if_none_match(value)), (strong, weak), "{value}");
        }
        assert!(matches(&request(&[]), &tag) && !is_known(&request(&[]), &tag));
    }

    #[test]
    fn what_is_expected_of_a_change_is_read_or_refused() {
        let of = |value| Expected::of(&request(&[("if-match", value)]));
        let one_of = |tags: &[&str]| Expected::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect());
        assert_eq!(Expected::of(&request(&[])).unwrap(), Expected::Nothing);
        assert_eq!(of("*").unwrap(), Expected::Present);
        assert_eq!(of("\"a\", W/\"b\", \"c\"").unwrap(), one_of(&["a", "c"]));
        assert_eq!(of("W/\"b\"").unwrap(), one_of(&[]));
        assert_eq!(of("nonsense").unwrap(), one_of(&[]), "no version is named like that");
        let mut unreadable = TestRequest::get().to_srv_request();
        let value = HeaderValue::from_bytes(b"\"\xff").unwrap();
        unreadable.headers_mut().insert(header::IF_MATCH, value);
        assert_eq!(Expected::of(unreadable.request()).unwrap_err().status(), 400);
    }
}

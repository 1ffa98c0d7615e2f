//! The header `Prefer` (RFC 7240): whether a client waits for what it has started, and how long.

use std::time::Duration;

use actix_web::HttpRequest;

/// What a client prefers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preference {
    /// `respond-async`: to be answered at once.
    pub respond_async: bool,
    /// `wait=SECONDS`: how long to wait for an answer.
    pub wait: Option<Duration>,
}

impl Preference {
    /// What the request prefers. Unknown preferences, and those that cannot be read, are passed over, as the RFC says; of
    /// several of one name the first counts.
    pub fn of(request: &HttpRequest) -> Self {
        let values = request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
        let mut found = Self::default();
        for preference in values.flat_map(|value| value.split(',')) {
            let token = preference.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
            match name.as_str() {
                "respond-async" => found.respond_async = true,
                "wait" => found.wait = found.wait.or_else(|| value.parse().ok().map(Duration::from_secs)),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_preference_is_read_as_the_rfc_writes_it() {
        let waits = |seconds| Some(Duration::from_secs(seconds));
        for (headers, respond_async, wait) in [
            (&["respond-async"][..], true, None),
            (&["respond-async, wait=10"], true, waits(10)),
            (&["Wait = \"5\"; x=1", "Respond-Async"], true, waits(5)),
            (&["wait=1, wait=2"], false, waits(1)),
            (&["return=minimal", "wait=soon", "wait=-1", "wait=1.5"], false, None),
            (&[""], false, None),
            (&[], false, None),
        ] {
            let mut request = TestRequest::default();
            for header in headers {
                request = request.append_header(("prefer", *header));
            }
            let found = Preference::of(&request.to_http_request());
            assert_eq!(found, Preference { respond_async, wait }, "{headers:?}");
        }
    }
}

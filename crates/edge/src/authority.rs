//! Where a client reaches this server, and where the metadata of a protected resource are (RFC 9728).
//!
//! Owns what is believed of a request's own address. Never knows what a resource is for.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use actix_web::web::Data;
use gathering_tools::Network;

use crate::gate::Gate;
use crate::route::RouteIndex;

/// Where the metadata of a protected resource are: below it stands the path of the resource.
pub const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

/// The longest name of a host with its port (RFC 1035).
const MAX_HOST: usize = 253 + 6;

/// The scheme, host and port by which the client of this request reaches the server, such as
/// `https://gathering.example.org`: as trusted proxies report them in `X-Forwarded-Proto` and `X-Forwarded-Host`, else
/// `http` and the header `Host`. `None` if that is no name of a host.
pub fn own_origin(request: &HttpRequest) -> Option<String> {
    let trusted = request.app_data::<Data<Gate>>().map_or(&[][..], |gate| &gate.trusted_proxies);
    origin_of(request.peer_addr().map(|peer| peer.ip().to_canonical()), request.headers(), trusted)
}

fn origin_of(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[Network]) -> Option<String> {
    let is_trusted = peer.is_some_and(|peer| trusted.iter().any(|network| network.contains(peer)));
    // The last entry is what the nearest proxy says.
    let reported = |name| {
        let list = headers.get_all(name).last()?.to_str().ok()?;
        Some(list.rsplit(',').next().unwrap_or_default().trim()).filter(|_| is_trusted)
    };
    let host = || headers.get(HOST)?.to_str().ok();
    let host = reported("x-forwarded-host").or_else(host)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(is_name) {
        return None;
    }
    let scheme = if reported("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

/// Tells in the headers of a 401 where the metadata of the resource are, if the table has a route for them.
pub(crate) fn tell_metadata(request: &HttpRequest, path: &str, headers: &mut HeaderMap) {
    let metadata = format!("{METADATA_PATH}{path}");
    let index = request.app_data::<Data<RouteIndex>>();
    if !index.is_some_and(|index| index.has(&metadata)) {
        return;
    }
    let challenge = headers.get(WWW_AUTHENTICATE).and_then(|challenge| challenge.to_str().ok());
    let told = challenge.zip(own_origin(request)).map(|(challenge, origin)| {
        HeaderValue::from_str(&format!(r#"{challenge}, resource_metadata="{origin}{metadata}""#))
    });
    if let Some(Ok(told)) = told {
        headers.insert(WWW_AUTHENTICATE, told);
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    fn origin(peer: &str, headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        origin_of(Some(peer.parse().unwrap()), &map, &["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn an_address_is_believed_from_trusted_proxies_only() {
        let reported = [
            ("host", "inside:8080"),
            ("x-forwarded-host", "made.up, gathering.example.org"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(origin("10.0.0.1", &reported).as_deref(), Some("https://gathering.example.org"));
        assert_eq!(origin("192.0.2.1", &reported).as_deref(), Some("http://inside:8080"));
        let only_host = [("host", "[::1]:8080"), ("x-forwarded-proto", "gopher")];
        assert_eq!(origin("10.0.0.1", &only_host).as_deref(), Some("http://[::1]:8080"));
    }

    #[test]
    fn what_is_no_name_of_a_host_is_not_repeated() {
        for host in ["", "a\"b", "a b", "a/b", "ä", "user@host", &"x".repeat(300)] {
            assert_eq!(origin("192.0.2.1", &[("host", host)]), None, "{host}");
        }
        assert_eq!(origin("192.0.2.1", &[]), None);
    }
}

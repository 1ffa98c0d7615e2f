//! The caller of a request, from its `Authorization` header, and the address that it comes from.

use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use gathering_auth::{Caller, Origin};
use gathering_tools::Network;

use crate::envelope::RequestIdentity;
use crate::gate::Gate;
use crate::problem::ProblemDetails;

const CHALLENGE: &str = r#"Bearer realm="gathering""#;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// No honest chain of proxies has more addresses than this.
const MAX_FORWARDED: usize = 32;

/// The caller of a request, whom the gate has authenticated. Where there is a body,
/// [`Body`](crate::body::Body) gives the caller.
pub struct Authenticated(pub Caller);

/// Where a request comes from.
pub struct ClientOrigin(pub Origin);

impl FromRequest for Authenticated {
    type Error = ProblemDetails;
    type Future = Ready<Result<Self, ProblemDetails>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(caller_of(request).map(Self))
    }
}

impl FromRequest for ClientOrigin {
    type Error = ProblemDetails;
    type Future = Ready<Result<Self, ProblemDetails>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(gate_of(request).map(|gate| Self(origin(request, gate))))
    }
}

/// The caller whom the gate has authenticated.
///
/// # Errors
/// A 500 on a public route, which has no caller.
pub fn caller_of(request: &HttpRequest) -> Result<Caller, ProblemDetails> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| ProblemDetails::internal("a public route has no caller"))
}

/// The caller of this request, as their account and credential stand now.
///
/// # Errors
/// 401 without a valid credential; 503 if the database is unavailable.
pub async fn authenticate(request: &HttpRequest) -> Result<Caller, ProblemDetails> {
    let gate = gate_of(request)?;
    let token = bearer(request.headers()).ok_or_else(|| {
        let detail = "send `Authorization: Bearer` with an access token or an API key";
        ProblemDetails::not_authenticated(detail, CHALLENGE)
    })?;
    Ok(gate.auth.authenticate(token, origin(request, gate)).await?)
}

fn gate_of(request: &HttpRequest) -> Result<&Gate, ProblemDetails> {
    let gate = request.app_data::<web::Data<Gate>>();
    gate.map(|gate| gate.get_ref()).ok_or_else(|| ProblemDetails::internal("the application has no gate"))
}

/// The bearer token of a request, valid or not.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The client's address, as trusted proxies report it; absent where the connection has no address.
pub fn client_of(request: &HttpRequest, trusted: &[Network]) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    Some(client_address(peer, request.headers(), trusted))
}

fn origin(request: &HttpRequest, gate: &Gate) -> Origin {
    let address = client_of(request, &gate.trusted_proxies);
    let request_id = request.extensions().get::<RequestIdentity>().map(|identity| identity.id);
    Origin { address, request_id }
}

/// The client's address: the last entry of the reported chain that is no trusted proxy itself. The chain is read from
/// its end, one entry at a time, because the client wrote whatever precedes an untrusted entry.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    if !is_trusted(client) {
        return client;
    }
    // Several lines are one list.
    let lines: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).map(HeaderValue::as_bytes).collect();
    let entries = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for entry in entries.take(MAX_FORWARDED) {
        let Some(address) = forwarded_address(entry) else { break };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// The address of one entry, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn forwarded_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address =
        text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()));
    address.or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    fn address_of_lines(peer: &str, lines: &[&[u8]], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line).unwrap();
            headers.append(HeaderName::from_static(X_FORWARDED_FOR), value);
        }
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    fn address(peer: &str, forwarded: &str, trusted: &[&str]) -> String {
        address_of_lines(peer, &[forwarded.as_bytes()], trusted)
    }

    #[test]
    fn a_reported_address_is_believed_from_trusted_proxies_only() {
        assert_eq!(address("192.0.2.1", "198.51.100.7", &[]), "192.0.2.1");
        assert_eq!(address("10.0.0.1", "198.51.100.7", &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(address("10.0.0.1", "6.6.6.6, 198.51.100.7, 10.0.0.2", &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(address("10.0.0.1", "nonsense", &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(address("10.0.0.1", "", &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn an_address_may_have_a_port() {
        let proxy = &["10.0.0.0/8"];
        for (reported, expected) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[::ffff:198.51.100.7]:4711", "198.51.100.7"),
            ("6.6.6.6, 198.51.100.7:4711 , 10.0.0.2:80", "198.51.100.7"),
            ("[198.51.100.7]", "10.0.0.1"),
            ("198.51.100.7:", "10.0.0.1"),
            ("198.51.100.7:99999", "10.0.0.1"),
            ("[2001:db8::7", "10.0.0.1"),
        ] {
            assert_eq!(address("10.0.0.1", reported, proxy), expected, "{reported}");
        }
    }

    #[test]
    fn a_client_hides_its_address_by_nothing_that_it_sends() {
        let proxy = &["10.0.0.0/8"];
        // Ignores everything before the proxy's own entry, in the same line or in another one.
        for sent in [&b"\xff\xfe"[..], "ä".as_bytes(), b"nonsense", b"", b",,,", b"6.6.6.6", b"10.0.0.9"] {
            let line = [sent, b", 198.51.100.7"].concat();
            assert_eq!(address_of_lines("10.0.0.1", &[&line], proxy), "198.51.100.7", "{sent:?}");
            let lines = [sent, b"198.51.100.7, 10.0.0.2"];
            assert_eq!(address_of_lines("10.0.0.1", &lines, proxy), "198.51.100.7", "{sent:?}");
        }
        let many = format!("{}198.51.100.7", "6.6.6.6,".repeat(10_000));
        assert_eq!(address("10.0.0.1", &many, proxy), "198.51.100.7");
    }

    #[test]
    fn only_a_bearer_token_is_read() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("bearer abc").as_deref(), Some("abc"));
        for value in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            assert_eq!(read(value), None, "{value}");
        }
    }
}

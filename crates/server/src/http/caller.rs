//! Who asks, out of the `Authorization` header, and from where.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use gathering_auth::{Caller, Origin};
use gathering_tools::Network;

use super::envelope::RequestIdentity;
use super::problem::Problem;
use super::state::AppState;

const CHALLENGE: &str = r#"Bearer realm="gathering""#;

/// More addresses than that no honest chain of proxies has.
const MAX_FORWARDED: usize = 32;

/// Who asks, with a request that has no body; a handler that takes one answers 401 to everybody else. Where there is a
/// body, [`Body`](super::body::Body) gives the caller.
pub(crate) struct Authenticated(pub(crate) Caller);

/// From where a request comes.
pub(crate) struct ClientOrigin(pub(crate) Origin);

impl FromRequest for Authenticated {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(Self(authenticate(&request).await?)) })
    }
}

impl FromRequest for ClientOrigin {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        std::future::ready(state_of(request).map(|state| Self(origin(request, state))))
    }
}

/// Who sends this request, as they stand now.
///
/// # Errors
/// 401 for whoever shows nothing that holds; 503 if nobody can say.
pub(crate) async fn authenticate(request: &HttpRequest) -> Result<Caller, Problem> {
    let state = state_of(request)?;
    let token = bearer(request.headers()).ok_or_else(|| {
        let detail = "send `Authorization: Bearer` with an access token or an API key";
        Problem::not_authenticated(detail, CHALLENGE)
    })?;
    Ok(state.auth.authenticate(token, origin(request, state)).await?)
}

fn state_of(request: &HttpRequest) -> Result<&AppState, Problem> {
    let state = request.app_data::<web::Data<AppState>>();
    state.map(|state| state.get_ref()).ok_or_else(|| Problem::internal("the application has no state"))
}

/// The token that a request shows, whatever it is worth.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Where a request comes from, as far as trusted proxies tell; absent where its connection has no address.
pub(crate) fn client_of(request: &HttpRequest, trusted: &[Network]) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    Some(client_address(peer, request.headers(), trusted))
}

fn origin(request: &HttpRequest, state: &AppState) -> Origin {
    let address = client_of(request, &state.trusted_proxies);
    let request_id = request.extensions().get::<RequestIdentity>().map(|identity| identity.id);
    Origin { address, request_id }
}

/// The client's address: of the chain that proxies report, the last one that is no trusted proxy itself.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let reported: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let mut client = peer;
    for text in reported.iter().rev().take(MAX_FORWARDED) {
        if !is_trusted(client) {
            break;
        }
        let Ok(address) = text.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn address(peer: &str, forwarded: &str, trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(forwarded).unwrap();
        headers.insert(HeaderName::from_static("x-forwarded-for"), value);
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_reported_address_is_believed_from_trusted_proxies_only() {
        assert_eq!(address("192.0.2.1", "198.51.100.7", &[]), "192.0.2.1");
        assert_eq!(address("10.0.0.1", "198.51.100.7", &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(address("10.0.0.1", "6.6.6.6, 198.51.100.7, 10.0.0.2", &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(address("10.0.0.1", "nonsense", &["10.0.0.0/8"]), "10.0.0.1");
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

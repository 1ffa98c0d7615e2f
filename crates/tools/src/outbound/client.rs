//! The client: every hop is checked, nothing is unbounded.

use std::error::Error as _;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, ACCEPT_LANGUAGE, HeaderMap, LOCATION, USER_AGENT};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::request::{check_url, invalid};
use super::resolver::{GuardedResolver, RefusedAddresses};
use super::{OutboundError, OutboundPolicy, OutboundRequest, OutboundResponse};

/// Hops that are followed before we give up.
const MAX_REDIRECTS: usize = 5;
/// A host that does not accept a connection within this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections kept for the next request to the same host.
const MAX_IDLE_PER_HOST: usize = 8;

/// Sends requests to public addresses, and to what the operator allows besides.
///
/// A host is checked where it becomes an address: literal addresses here, names in the resolver, and both again on
/// each redirect. Proxies of the environment are not used. Clones share connections.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client,
    policy: OutboundPolicy,
}

impl Outbound {
    /// A client under `policy`. Where the process has no TLS provider yet, it gets rustls with ring.
    ///
    /// # Errors
    /// [`OutboundError::Setup`] if the TLS client cannot be made.
    pub fn new(policy: OutboundPolicy) -> Result<Self, OutboundError> {
        // An error says that the process has chosen its provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
                .user_agent(concat!("gathering/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(GuardedResolver { policy: policy.clone() })
        };
        let client = builder().build().or_else(|error| {
            tracing::warn!(
                error = %error,
                "no certificate authorities of the system can be read, so outgoing https requests will fail: install its CA certificates"
            );
            builder().tls_certs_only([]).build().map_err(OutboundError::Setup)
        })?;
        Ok(Self { client, policy })
    }

    /// Sends `request` and takes the whole answer, whatever its status.
    ///
    /// `GET` and `HEAD` follow up to 5 redirects; to another origin they carry none of the caller's headers but
    /// `Accept`, `Accept-Language` and `User-Agent`. Other methods get the redirect as their answer.
    /// Cancel: safe; the request may have been carried out.
    ///
    /// # Errors
    /// [`OutboundError`]; each variant says whether something was sent.
    pub async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, OutboundError> {
        let (host, after) = (request.host(), request.timeout);
        match tokio::time::timeout(after, self.follow(request)).await {
            Ok(ended) => ended,
            Err(_) => Err(OutboundError::TimedOut { host, after }),
        }
    }

    async fn follow(&self, mut request: OutboundRequest) -> Result<OutboundResponse, OutboundError> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(&request).await?;
            let Some(target) = redirect_target(&request, &response)? else {
                return take(response, &request.host(), request.max_response_bytes).await;
            };
            if target.origin() != request.url.origin() {
                keep_harmless(&mut request.headers);
            }
            request.url = target;
        }
        Err(OutboundError::TooManyRedirects { host: request.host(), limit: MAX_REDIRECTS })
    }

    async fn send_once(&self, request: &OutboundRequest) -> Result<Response, OutboundError> {
        check_url(&request.url)?;
        self.check_literal(&request.url)?;
        let sent = self
            .client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone())
            .body(request.body.clone())
            .send()
            .await;
        sent.map_err(|error| failed(error, request.host(), request.timeout))
    }

    /// The client asks no resolver about a host that is an address, so such a host is checked here. The URL parser has
    /// turned every spelling (`0x7f.1`, `2130706433`, `0177.0.0.1`) into the plain one.
    fn check_literal(&self, url: &Url) -> Result<(), OutboundError> {
        let host = url.host_str().ok_or_else(|| invalid("the URL has no host"))?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match bare {
            Some(bare) => bare.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
            None => host.parse::<IpAddr>().ok(),
        };
        match address {
            Some(address) if !self.policy.permits(address) => {
                Err(OutboundError::Refused { host: host.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

fn redirect_target(request: &OutboundRequest, response: &Response) -> Result<Option<Url>, OutboundError> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !redirects || !matches!(request.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let target = location.to_str().ok().and_then(|location| request.url.join(location).ok());
    match target {
        Some(target) => Ok(Some(target)),
        None => Err(invalid(format!("`{}` redirects to something that is no URL", request.host()))),
    }
}

/// Any header may hold a key, so only those that never do go to another origin.
fn keep_harmless(headers: &mut HeaderMap) {
    let mut kept = HeaderMap::new();
    for name in [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT] {
        if let Some(value) = headers.remove(&name) {
            kept.insert(name, value);
        }
    }
    *headers = kept;
}

async fn take(
    mut response: Response,
    host: &str,
    limit_bytes: usize,
) -> Result<OutboundResponse, OutboundError> {
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let mut body = BytesMut::new();
    let broken = |source: reqwest::Error| OutboundError::BrokenOff {
        host: host.to_owned(),
        source: source.without_url(),
    };
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > limit_bytes {
            return Err(OutboundError::TooLarge { host: host.to_owned(), limit_bytes });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(OutboundResponse { status, headers, body: Bytes::from(body) })
}

fn failed(error: reqwest::Error, host: String, after: Duration) -> OutboundError {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<RefusedAddresses>() {
            return OutboundError::Refused { host };
        }
        cause = error.source();
    }
    let source = error.without_url();
    if source.is_builder() {
        OutboundError::InvalidRequest { reason: "the request cannot be written".to_owned() }
    } else if source.is_connect() {
        OutboundError::Connect { host, source }
    } else if source.is_timeout() {
        OutboundError::TimedOut { host, after }
    } else {
        OutboundError::BrokenOff { host, source }
    }
}

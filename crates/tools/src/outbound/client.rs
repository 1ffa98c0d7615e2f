//! The HTTP client. It checks every hop, and everything is bounded.

use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, ACCEPT_LANGUAGE, HeaderMap, LOCATION, USER_AGENT};
use reqwest::{Client, Method, Response, StatusCode};
use url::{Host, Url};

use super::hosts::{Hosts, Turn};
use super::request::{check_url, invalid};
use super::resolver::{GuardedResolver, RefusedAddresses};
use super::{OutboundError, OutboundPolicy, OutboundRequest, OutboundResponse, OutboundStream};

/// The maximum number of redirects.
const MAX_REDIRECTS: usize = 5;
/// The time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections kept per host.
const MAX_IDLE_PER_HOST: usize = 8;

/// Sends requests to public addresses, and to the networks that the operator allows.
///
/// A host is checked where it becomes an address: literal addresses here, names in the resolver, and both again on
/// each redirect. Proxy settings of the environment are ignored. Clones share connections.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client,
    policy: OutboundPolicy,
    hosts: Hosts,
}

impl Outbound {
    /// How many requests one host gets at once by default.
    pub const DEFAULT_MAX_PER_HOST: usize = 64;

    /// A client with this policy. If the process has no TLS provider yet, this installs rustls with ring.
    ///
    /// # Errors
    /// [`OutboundError::Setup`] if the TLS client cannot be created.
    pub fn new(policy: OutboundPolicy) -> Result<Self, OutboundError> {
        // An error means that the process has already chosen its provider, which is fine.
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
                "cannot read the system's certificate authorities, so outgoing https requests will fail: install the CA certificates"
            );
            builder().tls_certs_only([]).build().map_err(OutboundError::Setup)
        })?;
        Ok(Self { client, policy, hosts: Hosts::new(Self::DEFAULT_MAX_PER_HOST) })
    }

    /// The same client with at most `n_requests` to one host at once; at least 1.
    #[must_use]
    pub fn with_max_per_host(self, n_requests: usize) -> Self {
        Self { hosts: Hosts::new(n_requests), ..self }
    }

    /// Sends `request` and reads the whole response, of any status.
    ///
    /// `GET` and `HEAD` follow up to 5 redirects. To another origin they send only the caller's `Accept`,
    /// `Accept-Language` and `User-Agent`. Other methods return the redirect as their response.
    ///
    /// Before the time of the request begins, it may wait up to 5 seconds for a pause that the host has asked for, and
    /// as long for requests of others to the same host.
    /// Cancel: safe; the request may have been carried out.
    ///
    /// # Errors
    /// [`OutboundError`]; each variant says whether the request may have been sent.
    pub async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, OutboundError> {
        let (host, after) = (request.host(), request.timeout);
        let turn = self.hosts.turn(&request).await?;
        match tokio::time::timeout(after, self.follow(request, turn)).await {
            Ok(ended) => ended,
            Err(_) => Err(OutboundError::TimedOut { host, after }),
        }
    }

    /// Sends `request` and returns the response as soon as its head is here; the body is read in parts. Redirects are
    /// not followed. The time limit of the request covers the head; the caller limits the time of the body. The body
    /// does not count towards the limit of its host: it may be a stream without an end.
    /// Cancel: as [`Outbound::send`].
    ///
    /// # Errors
    /// As [`Outbound::send`].
    pub async fn open(&self, request: OutboundRequest) -> Result<OutboundStream, OutboundError> {
        let (host, after) = (request.host(), request.timeout);
        let _turn = self.hosts.turn(&request).await?;
        match tokio::time::timeout(after, self.send_once(&request)).await {
            Ok(response) => Ok(OutboundStream::new(response?, host, request.max_response_bytes)),
            Err(_) => Err(OutboundError::TimedOut { host, after }),
        }
    }

    async fn follow(
        &self,
        mut request: OutboundRequest,
        mut turn: Turn,
    ) -> Result<OutboundResponse, OutboundError> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(&request).await?;
            let Some(target) = redirect_target(&request, &response)? else {
                return take(response, &request.host(), request.max_response_bytes).await;
            };
            let is_elsewhere = target.origin() != request.url.origin();
            request.url = target;
            if is_elsewhere {
                keep_harmless(&mut request.headers);
                turn.end();
                turn = self.hosts.turn(&request).await?;
            }
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
        let response = sent.map_err(|error| failed(error, request.host(), request.timeout))?;
        self.hosts.note(request, response.status(), response.headers());
        Ok(response)
    }

    /// Checks a host that is a literal address, because the client does not ask the resolver about it. The URL parser
    /// has already read every spelling (`0x7f.1`, `2130706433`, `0177.0.0.1`) as an address.
    fn check_literal(&self, url: &Url) -> Result<(), OutboundError> {
        let host = url.host().ok_or_else(|| invalid("the URL has no host"))?;
        let address = match host {
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address),
            Host::Domain(_) => return Ok(()),
        };
        if self.policy.permits(address) {
            Ok(())
        } else {
            Err(OutboundError::Refused { host: host.to_string() })
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
        None => Err(invalid(format!("`{}` redirects to an invalid URL", request.host()))),
    }
}

/// Any other header may contain a key, so only these three are sent to another origin.
fn keep_harmless(headers: &mut HeaderMap) {
    let mut kept = HeaderMap::new();
    for name in [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT] {
        if let Some(value) = headers.remove(&name) {
            kept.insert(name, value);
        }
    }
    *headers = kept;
}

async fn take(response: Response, host: &str, limit_bytes: usize) -> Result<OutboundResponse, OutboundError> {
    let mut stream = OutboundStream::new(response, host.to_owned(), limit_bytes);
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    Ok(OutboundResponse { status: stream.status, headers: stream.headers, body: Bytes::from(body) })
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
        OutboundError::InvalidRequest { reason: "cannot write the request".to_owned() }
    } else if source.is_connect() {
        OutboundError::Connect { host, source }
    } else if source.is_timeout() {
        OutboundError::TimedOut { host, after }
    } else {
        OutboundError::BrokenOff { host, source }
    }
}

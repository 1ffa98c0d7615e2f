//! How often somebody may ask: the layer that admits a request or answers 429.
//!
//! Owns which route belongs to which tier and the headers that tell about the limits. Never asks the database: it
//! stands before everything that costs something. The limits are those of this process.

mod limiters;

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use gathering_auth::Auth;
use gathering_tools::Network;

use crate::config::RateLimits;
use crate::http::edge::caller::{bearer, client_of};
use crate::http::edge::problem::Problem;
use limiters::{Decision, LimitKey, Limiters, Tier};

/// draft-ietf-httpapi-ratelimit-headers: what one has, and what is left of it.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The limits of this process, and how to tell who asks.
pub(crate) struct Limits {
    limiters: Limiters,
    auth: Arc<Auth>,
    trusted_proxies: Vec<Network>,
}

impl Limits {
    /// With room for `n_entries` callers at a time.
    pub(crate) fn new(
        limits: RateLimits,
        n_entries: u64,
        auth: Arc<Auth>,
        trusted_proxies: Vec<Network>,
    ) -> Self {
        Self { limiters: Limiters::new(limits, n_entries), auth, trusted_proxies }
    }

    fn admit(&self, request: &ServiceRequest) -> Option<(Tier, Decision)> {
        // As the router will read it: `/%6Cogin` is `/login`.
        let route = request.resource_map().match_pattern(request.match_info().as_str());
        let route = route.as_deref().unwrap_or_default();
        let tier = tier(request.method(), route);
        let decision = self.limiters.admit(tier, || self.key(tier, request.method(), request))?;
        Some((tier, decision))
    }

    /// The account of a token that is one of ours, whether it still stands or not; else where the request comes from.
    fn key(&self, tier: Tier, method: &Method, request: &ServiceRequest) -> LimitKey {
        let is_by_user = match tier {
            // Who registers, logs in or refreshes may send any token along, such as one of another account.
            Tier::Auth => method == Method::PUT,
            Tier::Write | Tier::Read => true,
            Tier::Health => false,
        };
        let token = if is_by_user { bearer(request.headers()) } else { None };
        match token.and_then(|token| self.auth.verified_user(token)) {
            Some(user) => LimitKey::User(user),
            None => client_of(request.request(), &self.trusted_proxies).into(),
        }
    }
}

/// The tier of a route, by its method and pattern. What is nowhere is limited like what is somewhere.
fn tier(method: &Method, route: &str) -> Tier {
    match (method, route) {
        (_, "/health" | "/health/live" | "/health/ready" | "/metrics") => Tier::Health,
        (&Method::POST, "/api/v1/auth/register" | "/api/v1/auth/login" | "/api/v1/auth/refresh")
        | (&Method::PUT, "/api/v1/auth/password") => Tier::Auth,
        (&Method::GET | &Method::HEAD | &Method::OPTIONS, _) => Tier::Read,
        _ => Tier::Write,
    }
}

/// The layer inside of the envelope. Without [`Limits`] among the application's data nothing is limited.
pub(crate) async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let limits = request.app_data::<web::Data<Limits>>();
    let Some((tier, decision)) = limits.and_then(|limits| limits.admit(&request)) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let mut answered = match decision.retry_after {
        None => next.call(request).await?.map_into_boxed_body(),
        Some(retry_after) => {
            metrics::counter!("gathering_rate_limited_total", "tier" => tier.as_str()).increment(1);
            let detail = format!("more than {}: wait before the next one", decision.quota);
            request.error_response(Problem::rate_limited(detail, retry_after))
        }
    };
    tell(answered.headers_mut(), tier, &decision);
    Ok(answered)
}

fn tell(headers: &mut HeaderMap, tier: Tier, decision: &Decision) {
    let (name, quota) = (tier.as_str(), decision.quota);
    let policy = format!("\"{name}\";q={};w={}", quota.n_requests(), quota.window().as_secs());
    let left = format!("\"{name}\";r={};t={}", decision.n_left, whole_seconds(decision.full_after).as_secs());
    for (header, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
        // Names and numbers, which are always a header's value.
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header, value);
        }
    }
}

/// Rounded up, so that whoever waits for so long has waited long enough.
fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests;

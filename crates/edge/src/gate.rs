//! The layer between the envelope and the handlers: finds the route, applies its rate limit, authenticates the caller.
//!
//! Owns the order: a request over its limit costs no look at a credential, and a handler runs only for a caller that
//! its route serves. Reads nothing of the body.

use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, web};
use gathering_auth::{Auth, Caller};
use gathering_tools::Network;

use crate::authority::tell_metadata;
use crate::caller::{authenticate, bearer, client_of};
use crate::limits::RateLimits;
use crate::limits::{self, LimitDecision, LimitKey, Limiters, Tier};
use crate::problem::ProblemDetails;
use crate::route::{self, Access, Route, RouteIndex};

/// What the layer needs to know a caller and to limit them.
pub struct Gate {
    /// Authenticates.
    pub auth: Arc<Auth>,
    limiters: Limiters,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
}

impl Gate {
    /// With rate limits for at most `n_entries` callers at a time.
    pub fn new(auth: Arc<Auth>, limits: RateLimits, n_entries: u64, trusted_proxies: Vec<Network>) -> Self {
        Self { auth, limiters: Limiters::new(limits, n_entries), trusted_proxies }
    }

    /// Takes the request from a quota; `None` where its tier has no limit.
    fn admit(&self, request: &ServiceRequest, route: Option<&Route>) -> Option<(Tier, LimitDecision)> {
        let tier = route.map_or_else(|| limits::tier_of_unknown(request.method()), |route| route.tier);
        let key = || self.limit_key(request, tier, route.map_or(Access::Account, |route| route.access));
        Some((tier, self.limiters.admit(tier, key)?))
    }

    /// The account of a token that this server issued, valid or not; else the client's address.
    fn limit_key(&self, request: &ServiceRequest, tier: Tier, access: Access) -> LimitKey {
        // A client that registers, logs in or refreshes may send any token along, such as one of another account.
        let is_by_user = access != Access::Public || tier == Tier::Read;
        let token = if is_by_user { bearer(request.headers()) } else { None };
        match token.and_then(|token| self.auth.verified_user(token)) {
            Some(user) => LimitKey::User(user),
            None => client_of(request.request(), &self.trusted_proxies).into(),
        }
    }
}

/// The layer. A request that matches no route is limited like one that does, and is then answered 404 or 405.
pub async fn gate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let route = request.app_data::<web::Data<RouteIndex>>().and_then(|index| index.find(&request));
    if let Some(route) = route {
        route::remember(&request, route);
    }
    let gate = request.app_data::<web::Data<Gate>>().cloned();
    let admitted = gate.and_then(|gate| gate.admit(&request, route));
    let mut answered = match admitted.as_ref().and_then(|(tier, decision)| limits::refusal(*tier, decision)) {
        Some(refusal) => request.error_response(refusal),
        None => match identify(request.request(), route).await {
            Ok(()) => next.call(request).await?.map_into_boxed_body(),
            Err(problem) => request.error_response(problem),
        },
    };
    if let Some(route) = route.filter(|_| answered.status() == StatusCode::UNAUTHORIZED) {
        let request = answered.request().clone();
        tell_metadata(&request, route.path, answered.headers_mut());
    }
    if let Some((tier, decision)) = admitted {
        limits::tell(answered.headers_mut(), tier, &decision);
    }
    Ok(answered)
}

/// Authenticates the caller of a route that is not public, and keeps the caller with the request.
///
/// # Errors
/// 401 without a valid credential, 403 for a caller that the route does not serve.
async fn identify(request: &HttpRequest, route: Option<&Route>) -> Result<(), ProblemDetails> {
    let Some(route) = route.filter(|route| route.access != Access::Public) else { return Ok(()) };
    let caller = authenticate(request).await?;
    route.access.check(&caller)?;
    request.extensions_mut().insert::<Caller>(caller);
    Ok(())
}

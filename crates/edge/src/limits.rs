//! Rate limits: the tier of a request, the answer to one over its limit, and the headers that tell the limit. And a limit
//! on what goes on at the same time.
//!
//! Never asks the database: a limit comes before everything that costs something. The limits are those of this process.

mod keyed;
mod limiters;
mod quota;
mod slots;

use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::ProblemDetails;
pub use keyed::KeyedLimiters;
pub use limiters::{LimitDecision, LimitKey, Limiters, Tier};
pub use quota::{Quota, RateLimits};
pub use slots::{Slot, Slots};

/// draft-ietf-httpapi-ratelimit-headers: the quota, and what is left of it.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The tier of a request that matches no route: it is limited like one that does.
pub fn tier_of_unknown(method: &Method) -> Tier {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => Tier::Read,
        _ => Tier::Write,
    }
}

/// The answer to a request over its limit; `None` for one within it.
pub fn refusal(tier: Tier, decision: &LimitDecision) -> Option<ProblemDetails> {
    let retry_after = decision.retry_after?;
    metrics::counter!("gathering_rate_limited_total", "tier" => tier.as_str()).increment(1);
    let detail = format!("more than {}: wait before the next request", decision.quota);
    Some(ProblemDetails::rate_limited(detail, retry_after))
}

/// Adds the headers that tell the caller their limit and what is left of it.
pub fn tell(headers: &mut HeaderMap, tier: Tier, decision: &LimitDecision) {
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

/// Rounds up, so that a client that waits this long has waited long enough.
fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests;

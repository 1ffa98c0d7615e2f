//! The limiters: decide whether one more request of a caller is within its quota.
//!
//! Knows nothing of HTTP. A limiter takes some hundred bytes. A bounded cache keeps the limiters and evicts the least
//! recently used one; an evicted caller starts with a full quota. An attacker gains nothing from that: to be evicted
//! before an empty quota of 5 a minute has refilled, they need more than a hundred thousand other addresses or
//! accounts within a minute (the default size), and each of those has a quota anyway.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use gathering_cache::BoundedCache;
use gathering_domain::UserId;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota as Rate, RateLimiter};

use crate::limits::{Quota, RateLimits};

/// The rate-limit tier of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Passwords and tokens.
    Auth,
    /// Changes.
    Write,
    /// Reads.
    Read,
    /// Health and metrics.
    Health,
}

impl Tier {
    /// The name in headers, metrics and the OpenAPI document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tier::Auth => "auth",
            Tier::Write => "write",
            Tier::Read => "read",
            Tier::Health => "health",
        }
    }

    const fn quota(self, limits: &RateLimits) -> Option<Quota> {
        match self {
            Tier::Auth => limits.auth,
            Tier::Write => limits.write,
            Tier::Read => limits.read,
            Tier::Health => limits.health,
        }
    }
}

/// The owner of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// An account, with all its sessions and API keys.
    User(UserId),
    /// An IPv4 address.
    Address(Ipv4Addr),
    /// 64 bits of IPv6, within which one client may choose any address.
    Site([u16; 4]),
    /// All clients without an address, such as those of a Unix socket.
    Nowhere,
}

impl From<Option<IpAddr>> for LimitKey {
    fn from(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => LimitKey::Address(address),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                LimitKey::Site([a, b, c, d])
            }
            None => LimitKey::Nowhere,
        }
    }
}

/// The decision on a request, and what is left of the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitDecision {
    /// The quota of the caller.
    pub quota: Quota,
    /// The number of further requests that would be admitted now.
    pub n_left: u32,
    /// The time until the quota is full again, without further requests.
    pub full_after: Duration,
    /// `None`: the request is admitted. Else the time until the next one is.
    pub retry_after: Option<Duration>,
}

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>;

/// The limiters of recent callers.
pub struct Limiters<C: Clock = DefaultClock> {
    limits: RateLimits,
    clock: C,
    known: BoundedCache<(Tier, LimitKey), Arc<Limiter<C>>>,
}

impl Limiters {
    /// With these limits, for at most `n_entries` callers at a time.
    pub fn new(limits: RateLimits, n_entries: u64) -> Self {
        Self::with_clock(limits, n_entries, DefaultClock::default())
    }
}

impl<C: Clock + Clone + Send + Sync + 'static> Limiters<C> {
    fn with_clock(limits: RateLimits, n_entries: u64, clock: C) -> Self {
        Self { limits, clock, known: BoundedCache::new("limiters", n_entries) }
    }

    /// Takes one request from a quota. `None` where the tier has no limit; then `key` is not called.
    pub fn admit(&self, tier: Tier, key: impl FnOnce() -> LimitKey) -> Option<LimitDecision> {
        let quota = tier.quota(&self.limits)?;
        let n_requests = quota.n_requests();
        let interval = quota.window() / n_requests.get();
        let rate = Rate::with_period(interval)?.allow_burst(n_requests);
        let make = || {
            let limiter = RateLimiter::direct_with_clock(rate, self.clock.clone());
            Arc::new(limiter.with_middleware::<StateInformationMiddleware>())
        };
        let limiter = self.known.get_or_insert_with(&(tier, key()), make);
        Some(match limiter.check() {
            Ok(state) => {
                let n_left = state.remaining_burst_capacity();
                let full_after = interval * (n_requests.get() - n_left);
                LimitDecision { quota, n_left, full_after, retry_after: None }
            }
            Err(refused) => {
                let retry_after = refused.wait_time_from(self.clock.now());
                let full_after = retry_after + interval * (n_requests.get() - 1);
                LimitDecision { quota, n_left: 0, full_after, retry_after: Some(retry_after) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limiters(quota: &str, n_entries: u64) -> (Limiters<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let limits = RateLimits { read: Some(quota.parse().unwrap()), ..RateLimits::OFF };
        (Limiters::with_clock(limits, n_entries, clock.clone()), clock)
    }

    fn from(address: &str) -> LimitKey {
        LimitKey::from(Some(address.parse().unwrap()))
    }

    #[test]
    fn a_quota_is_admitted_at_once_and_then_at_its_rate() {
        let (limiters, clock) = limiters("5/min", 10);
        let ask = || limiters.admit(Tier::Read, || from("192.0.2.1")).unwrap();
        for n_left in [4, 3, 2, 1, 0] {
            let decision = ask();
            assert_eq!((decision.n_left, decision.retry_after), (n_left, None));
            assert_eq!(decision.full_after.as_secs(), u64::from(5 - n_left) * 12);
        }
        let refused = ask();
        assert_eq!(refused.retry_after, Some(Duration::from_secs(12)));
        assert_eq!((refused.n_left, refused.full_after.as_secs()), (0, 60));
        clock.advance(Duration::from_millis(11_999));
        assert_eq!(ask().retry_after, Some(Duration::from_millis(1)), "being refused costs nothing");
        clock.advance(Duration::from_millis(1));
        assert_eq!(ask().retry_after, None);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(ask().n_left, 4, "more than the quota is never saved up");
    }

    #[test]
    fn a_caller_that_waits_for_the_announced_time_is_admitted() {
        for quota in ["1/s", "3/s", "7/s", "120/s", "1/min", "7/min", "1/h", "999/h"] {
            let (limiters, clock) = limiters(quota, 10);
            let ask = || limiters.admit(Tier::Read, || from("192.0.2.1")).unwrap().retry_after;
            for _ in 0..20 {
                let wait = loop {
                    if let Some(wait) = ask() {
                        break wait;
                    }
                };
                clock.advance(super::super::whole_seconds(wait));
                assert_eq!(ask(), None, "{quota}");
            }
        }
    }

    #[test]
    fn callers_and_tiers_do_not_share_a_quota_and_the_addresses_of_a_site_do() {
        let one = "1/h".parse().ok();
        let limits = RateLimits { read: one, write: one, ..RateLimits::OFF };
        let limiters = Limiters::new(limits, 100);
        let is_admitted = |tier, key: LimitKey| limiters.admit(tier, || key).unwrap().retry_after.is_none();
        let user = LimitKey::User(UserId::new());
        for key in
            [user, LimitKey::User(UserId::new()), LimitKey::Nowhere, from("192.0.2.1"), from("2001:db8::1")]
        {
            assert!(is_admitted(Tier::Read, key), "{key:?}");
            assert!(is_admitted(Tier::Write, key), "{key:?}");
            assert!(!is_admitted(Tier::Read, key), "{key:?}");
        }
        assert!(is_admitted(Tier::Read, from("192.0.2.2")));
        assert!(!is_admitted(Tier::Read, from("::ffff:192.0.2.1")), "the same address in another spelling");
        assert!(!is_admitted(Tier::Read, from("2001:db8::2")), "the same site");
        assert!(is_admitted(Tier::Read, from("2001:db8:0:1::1")));
        assert_eq!(limiters.admit(Tier::Health, || panic!("asked for a key")), None);
    }

    #[test]
    fn with_room_for_one_caller_that_one_is_limited_and_a_forgotten_one_begins_anew() {
        let (limiters, _clock) = limiters("1/h", 1);
        let is_admitted =
            |address: &str| limiters.admit(Tier::Read, || from(address)).unwrap().retry_after.is_none();
        assert!(is_admitted("192.0.2.1"));
        assert!(!is_admitted("192.0.2.1"));
        assert!(is_admitted("192.0.2.2"));
        assert!(!is_admitted("192.0.2.2"));
        assert!(is_admitted("192.0.2.1"));
    }
}

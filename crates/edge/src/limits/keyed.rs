//! Limiters of things that have a rate of their own each, such as addresses that other programs call.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gathering_cache::BoundedCache;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The limiters of the things that were used last. Another rate of the same thing begins with a full quota.
pub struct KeyedLimiters<K, C: Clock = DefaultClock> {
    clock: C,
    known: BoundedCache<(K, NonZeroU32), Arc<Limiter<C>>>,
}

impl<K: Copy + Eq + Hash + Send + Sync + 'static> KeyedLimiters<K> {
    /// For at most `n_entries` things at a time. `name` is that of the cache in the metrics.
    pub fn new(name: &'static str, n_entries: u64) -> Self {
        Self::with_clock(name, n_entries, DefaultClock::default())
    }
}

impl<K: Copy + Eq + Hash + Send + Sync + 'static, C: Clock + Clone + Send + Sync + 'static>
    KeyedLimiters<K, C>
{
    fn with_clock(name: &'static str, n_entries: u64, clock: C) -> Self {
        Self { clock, known: BoundedCache::new(name, n_entries) }
    }

    /// Takes one use of `key`, of which there may be so many in a minute, and as many at once.
    ///
    /// # Errors
    /// The time until there may be the next one.
    pub fn admit(&self, key: K, per_minute: NonZeroU32) -> Result<(), Duration> {
        let make =
            || Arc::new(RateLimiter::direct_with_clock(Quota::per_minute(per_minute), self.clock.clone()));
        let limiter = self.known.get_or_insert_with(&(key, per_minute), make);
        limiter.check().map_err(|refused| refused.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn each_thing_has_its_own_quota_and_one_that_waits_as_told_is_admitted() {
        let clock = FakeRelativeClock::default();
        let limiters = KeyedLimiters::with_clock("things", 10, clock.clone());
        let two = NonZeroU32::new(2).unwrap();
        assert_eq!((limiters.admit(1, two), limiters.admit(1, two)), (Ok(()), Ok(())));
        let wait = limiters.admit(1, two).unwrap_err();
        assert_eq!((wait, limiters.admit(2, two)), (Duration::from_secs(30), Ok(())));
        clock.advance(wait);
        assert_eq!(limiters.admit(1, two), Ok(()));
        assert!(limiters.admit(1, two).is_err());
    }

    #[test]
    fn the_least_recently_used_one_is_forgotten() {
        let limiters = KeyedLimiters::with_clock("things", 1, FakeRelativeClock::default());
        let one = NonZeroU32::MIN;
        assert!(limiters.admit(1, one).is_ok() && limiters.admit(1, one).is_err());
        assert!(limiters.admit(2, one).is_ok() && limiters.admit(1, one).is_ok());
    }
}

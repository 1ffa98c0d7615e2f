//! The counts of a cache, kept here and reported to the metrics recorder of the process.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge};

/// The counts of a cache since its creation, and its current size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatistics {
    /// The cache's name, which is the label `cache` of its metrics.
    pub name: &'static str,
    /// Lookups that found a value, or waited while another thread created it.
    pub hits: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Entries evicted in favour of newer ones.
    pub evictions: u64,
    /// Current entries.
    pub n_entries: u64,
    /// The maximum number of entries.
    pub capacity: u64,
}

/// The counts of one cache. The handles are created once, so an update costs an atomic addition and no allocation.
pub(crate) struct Measures {
    name: &'static str,
    capacity: u64,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    n_entries: AtomicU64,
    told: Told,
}

struct Told {
    hits: Counter,
    misses: Counter,
    evictions: Counter,
    entries: Gauge,
    capacity: Gauge,
}

impl Measures {
    #[expect(clippy::cast_precision_loss, reason = "no process can fill a capacity beyond 2^53")]
    pub(crate) fn new(name: &'static str, capacity: u64) -> Self {
        describe();
        let told = Told {
            hits: metrics::counter!("gathering_cache_hits_total", "cache" => name),
            misses: metrics::counter!("gathering_cache_misses_total", "cache" => name),
            evictions: metrics::counter!("gathering_cache_evictions_total", "cache" => name),
            entries: metrics::gauge!("gathering_cache_entries", "cache" => name),
            capacity: metrics::gauge!("gathering_cache_capacity", "cache" => name),
        };
        // Added, not set: caches with the same name share their metrics.
        told.capacity.increment(capacity as f64);
        Self {
            name,
            capacity,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            n_entries: AtomicU64::new(0),
            told,
        }
    }

    pub(crate) fn looked_up(&self, is_hit: bool) {
        let (count, told) =
            if is_hit { (&self.hits, &self.told.hits) } else { (&self.misses, &self.told.misses) };
        count.fetch_add(1, Ordering::Relaxed);
        told.increment(1);
    }

    /// Counts an entry before it is inserted, so that its removal is never counted first.
    pub(crate) fn entering(&self) {
        self.n_entries.fetch_add(1, Ordering::AcqRel);
        self.told.entries.increment(1.0);
    }

    pub(crate) fn left(&self, was_evicted: bool) {
        self.n_entries.fetch_sub(1, Ordering::AcqRel);
        self.told.entries.decrement(1.0);
        if was_evicted {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            self.told.evictions.increment(1);
        }
    }

    pub(crate) fn statistics(&self) -> CacheStatistics {
        CacheStatistics {
            name: self.name,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            n_entries: self.n_entries.load(Ordering::Acquire),
            capacity: self.capacity,
        }
    }
}

impl Drop for Measures {
    /// A dropped cache has no entries.
    #[expect(clippy::cast_precision_loss, reason = "as at creation")]
    fn drop(&mut self) {
        self.told.entries.decrement(*self.n_entries.get_mut() as f64);
        self.told.capacity.decrement(self.capacity as f64);
    }
}

fn describe() {
    metrics::describe_counter!("gathering_cache_hits_total", "Cache lookups that found a value.");
    metrics::describe_counter!("gathering_cache_misses_total", "Cache lookups that found no value.");
    metrics::describe_counter!("gathering_cache_evictions_total", "Entries evicted in favour of newer ones.");
    metrics::describe_gauge!("gathering_cache_entries", "Current entries of a cache.");
    metrics::describe_gauge!("gathering_cache_capacity", "The maximum number of entries of a cache.");
}

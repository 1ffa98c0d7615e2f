//! The bounded LRU cache.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::CacheStatistics;
use crate::measures::Measures;

/// A map with a maximum number of entries that evicts the least recently used one. Clones are cheap and share the map.
///
/// The bound holds after every insertion. While `n` threads insert concurrently, there can be up to `n` extra entries,
/// each for the duration of its insertion. The memory of evicted entries is freed in batches of at most a few thousand.
/// Every size works, including 1. The order of use is exact for one thread. Under heavy concurrent use, some uses may
/// be missed.
///
/// Only short locks block, so asynchronous code can use the cache. The function given to
/// [`get_or_insert_with`](Self::get_or_insert_with) must not block either.
///
/// The metrics have the cache's name as their label `cache`. They go to the recorder that was installed before the
/// cache was created (`gathering_cache_hits_total`, `_misses_total`, `_evictions_total`, `gathering_cache_entries`,
/// `_capacity`).
pub struct BoundedCache<K, V> {
    entries: Cache<K, V>,
    measures: Arc<Measures>,
}

impl<K, V> BoundedCache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// An empty cache for at most `n_entries` entries; 0 counts as 1.
    pub fn new(name: &'static str, n_entries: u64) -> Self {
        let capacity = n_entries.max(1);
        let measures = Arc::new(Measures::new(name, capacity));
        let counted = Arc::clone(&measures);
        let entries = Cache::builder()
            .name(name)
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| counted.left(cause.was_evicted()))
            .build();
        Self { entries, measures }
    }

    /// Returns the value of a key. Counts as a use.
    pub fn get(&self, key: &K) -> Option<V> {
        let found = self.entries.get(key);
        self.measures.looked_up(found.is_some());
        found
    }

    /// Inserts a value and replaces an earlier one of the same key.
    pub fn insert(&self, key: K, value: V) {
        self.measures.entering();
        self.entries.insert(key, value);
        self.keep_the_books();
    }

    /// Returns the value of a key, or creates it with `make`. When several threads request one key at once, one creates
    /// the value and the others wait for it. If `make` panics, nothing is stored, and the next caller tries again.
    pub fn get_or_insert_with(&self, key: &K, make: impl FnOnce() -> V) -> V
    where
        K: Clone,
    {
        let entry = self.entries.entry_by_ref(key).or_insert_with(|| {
            let value = make();
            self.measures.entering();
            value
        });
        self.measures.looked_up(!entry.is_fresh());
        if entry.is_fresh() {
            self.keep_the_books();
        }
        entry.into_value()
    }

    /// Removes a key and returns its value.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    /// The counts so far and the current size.
    pub fn statistics(&self) -> CacheStatistics {
        self.measures.statistics()
    }

    /// The underlying map postpones maintenance: it collects a few hundred evictions, and it misses a use of an entry
    /// that it has not registered yet. Immediate maintenance costs an insertion a few microseconds and a lookup
    /// nothing.
    fn keep_the_books(&self) {
        self.entries.run_pending_tasks();
    }
}

impl<K, V> Clone for BoundedCache<K, V> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), measures: Arc::clone(&self.measures) }
    }
}

impl<K, V> fmt::Debug for BoundedCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoundedCache").field(&self.measures.statistics()).finish()
    }
}

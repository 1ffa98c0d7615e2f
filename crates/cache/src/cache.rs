//! The cache itself.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::CacheStatistics;
use crate::measures::Measures;

/// A map that keeps at most so many entries; what was used least recently leaves first. Cloning is cheap and shares it.
///
/// The bound holds after every insertion: while `n` threads insert at the same moment there may be up to `n` entries
/// more, each for as long as its own insertion takes. The memory of what left is given back in batches of some thousand
/// entries, or less. It is right at every size, 1 included. Which entry was used least
/// recently is known exactly to one thread; among several that hammer it, some uses may go unnoticed.
///
/// Nothing blocks but for short locks, so it may be used from asynchronous code; the function given to
/// [`get_or_insert_with`](Self::get_or_insert_with) must not wait either.
///
/// Its measures have the label `cache` with its name, and go to the recorder that the process installed before the cache was made
/// (`gathering_cache_hits_total`, `_misses_total`, `_evictions_total`, `gathering_cache_entries`, `_capacity`).
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

    /// The value of a key, which counts as a use.
    pub fn get(&self, key: &K) -> Option<V> {
        let found = self.entries.get(key);
        self.measures.looked_up(found.is_some());
        found
    }

    /// Keeps a value, in place of an older one of the same key.
    pub fn insert(&self, key: K, value: V) {
        self.measures.entering();
        self.entries.insert(key, value);
        self.keep_the_books();
    }

    /// The value of a key, made by `make` if there is none. Of several threads that ask for one key at once, one makes
    /// the value and the others wait for it. Where `make` panics nothing is kept, and the next one tries.
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

    /// Forgets a key; answers what was kept for it.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    /// What it did so far, and how full it is.
    pub fn statistics(&self) -> CacheStatistics {
        self.measures.statistics()
    }

    /// The map below puts its book-keeping off: evictions until a few hundred have gathered, and a use is lost where the
    /// entry itself is not in the books yet. Done at once it costs an insertion some microseconds, and a look-up nothing.
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

//! The guarantees of the cache: its bound, its eviction order and its counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use gathering_cache::BoundedCache;

/// The evicted values that may still be in memory; 1,200 were measured.
const FREED_LATER: u64 = 4_000;

#[test]
fn at_size_one_only_the_newest_entry_remains() {
    let cache = BoundedCache::new("one", 1);
    for key in 0..1000_u32 {
        assert_eq!(cache.get(&key), None);
        cache.insert(key, key * 2);
        assert_eq!(cache.statistics().n_entries, 1);
        assert_eq!(cache.get(&key), Some(key * 2));
        assert_eq!(cache.get_or_insert_with(&(key + 1), || 7), 7);
        assert_eq!(cache.get(&key), None);
        assert_eq!(cache.remove(&(key + 1)), Some(7));
        assert_eq!(cache.statistics().n_entries, 0);
    }
    assert_eq!(BoundedCache::<u8, u8>::new("none", 0).statistics().capacity, 1);
}

#[test]
fn replacing_a_value_adds_no_entry() {
    let cache = BoundedCache::new("replaced", 2);
    for value in 0..1000 {
        cache.insert("a", value);
    }
    cache.insert("b", 0);
    assert_eq!((cache.get(&"a"), cache.get(&"b")), (Some(999), Some(0)));
    let statistics = cache.statistics();
    assert_eq!((statistics.n_entries, statistics.evictions), (2, 0));
}

/// Counts its living copies and their maximum.
struct Witness {
    living: Arc<AtomicU64>,
}

impl Witness {
    fn new(living: &Arc<AtomicU64>, most: &AtomicU64) -> Arc<Self> {
        let now = living.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        Arc::new(Self { living: Arc::clone(living) })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_million_keys_never_exceed_the_bound() {
    let cache = BoundedCache::new("million", 1000);
    for key in 0..1_000_000_u64 {
        cache.insert(key, key);
        assert!(cache.statistics().n_entries <= 1000);
    }
    let statistics = cache.statistics();
    assert_eq!((statistics.n_entries, statistics.evictions), (1000, 1_000_000 - 1000));
}

#[test]
fn concurrent_insertions_exceed_the_bound_by_at_most_one_each() {
    const N_THREADS: u64 = 4;
    const N_KEYS: u64 = 25_000;
    let cache = BoundedCache::new("crowd", 1000);
    let most = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..N_THREADS {
            let (cache, most) = (&cache, &most);
            scope.spawn(move || {
                for key in 0..N_KEYS {
                    cache.get_or_insert_with(&(thread, key), || key);
                    most.fetch_max(cache.statistics().n_entries, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(most.into_inner() <= 1000 + N_THREADS);
    let statistics = cache.statistics();
    assert_eq!((statistics.n_entries, statistics.evictions), (1000, N_THREADS * N_KEYS - 1000));
    assert_eq!((statistics.hits, statistics.misses), (0, N_THREADS * N_KEYS));
}

#[test]
fn the_memory_of_evicted_entries_is_freed() {
    let (living, most) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let cache = BoundedCache::new("memory", 10);
    for key in 0..100_000_u64 {
        cache.insert(key, Witness::new(&living, &most));
    }
    assert!(most.load(Ordering::SeqCst) <= 10 + FREED_LATER, "{most:?} values were in memory at once");
}

#[test]
fn the_least_recently_used_entry_is_evicted() {
    let cache = BoundedCache::new("order", 3);
    for key in ["a", "b", "c"] {
        cache.insert(key, key);
    }
    assert!(cache.get(&"a").is_some());
    cache.get_or_insert_with(&"b", || "again");
    cache.insert("d", "d");
    assert_eq!(cache.get(&"c"), None, "`c` was never used");
    cache.insert("e", "e");
    assert_eq!(cache.get(&"a"), None, "`a` was used before the others");
    assert!(["b", "d", "e"].iter().all(|key| cache.get(key).is_some()));
}

#[test]
fn concurrent_requests_for_one_key_create_its_value_once() {
    const N_ASKING: u64 = 16;
    let cache = BoundedCache::new("coalesced", 10);
    let n_made = AtomicU64::new(0);
    let barrier = Barrier::new(N_ASKING as usize);
    thread::scope(|scope| {
        for _ in 0..N_ASKING {
            scope.spawn(|| {
                barrier.wait();
                let make = || {
                    thread::yield_now();
                    n_made.fetch_add(1, Ordering::SeqCst)
                };
                assert_eq!(cache.get_or_insert_with(&"key", make), 0);
            });
        }
    });
    let statistics = cache.statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.n_entries), (N_ASKING - 1, 1, 1));
}

#[test]
fn a_value_whose_creation_panicked_is_not_stored() {
    let cache: BoundedCache<u8, u8> = BoundedCache::new("panics", 10);
    let asking = cache.clone();
    let asked = thread::spawn(move || asking.get_or_insert_with(&1, || panic!("no value")));
    assert!(asked.join().is_err());
    assert_eq!(cache.statistics().n_entries, 0);
    assert_eq!(cache.get_or_insert_with(&1, || 5), 5);
}

#[test]
fn hits_misses_and_evictions_are_counted() {
    let cache = BoundedCache::new("counted", 2);
    assert_eq!(cache.get(&1), None);
    for key in 1..=3 {
        cache.insert(key, ());
    }
    assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (None, Some(()), Some(())));
    cache.remove(&3);
    cache.remove(&3);
    let statistics = cache.statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.evictions), (2, 2, 1));
    assert_eq!((statistics.name, statistics.n_entries, statistics.capacity), ("counted", 1, 2));
}

#[test]
fn the_metrics_recorder_of_the_process_gets_the_counts() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let cache = BoundedCache::new("told", 2);
        let twin = BoundedCache::new("told", 3);
        twin.insert(1, ());
        for key in 1..=3 {
            cache.insert(key, ());
        }
        cache.get(&3);
        cache.get(&9);
        let text = rendered.render();
        for line in [
            r#"gathering_cache_hits_total{cache="told"} 1"#,
            r#"gathering_cache_misses_total{cache="told"} 1"#,
            r#"gathering_cache_evictions_total{cache="told"} 1"#,
            r#"gathering_cache_entries{cache="told"} 3"#,
            r#"gathering_cache_capacity{cache="told"} 5"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    });
    let text = rendered.render();
    assert!(text.contains(r#"gathering_cache_entries{cache="told"} 0"#), "{text}");
    assert!(text.contains(r#"gathering_cache_capacity{cache="told"} 0"#), "{text}");
}

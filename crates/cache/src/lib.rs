//! A bounded LRU cache with hit and miss metrics.
//!
//! Owns the bound, the eviction order and the counts. Never knows the values: do not keep anything here that must not
//! be lost or become stale.

mod cache;
mod measures;

pub use cache::BoundedCache;
pub use measures::CacheStatistics;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

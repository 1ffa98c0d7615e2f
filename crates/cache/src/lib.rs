//! A cache that is bounded, forgets what was used least recently, and counts what it does.
//!
//! Owns the bound, the order of forgetting and the counts. Never knows what is kept: what must not be lost or must not
//! be stale has no place in it.

mod cache;
mod measures;

pub use cache::BoundedCache;
pub use measures::CacheStatistics;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! A private PostgreSQL cluster: found or downloaded, initialised, started, stopped.
//!
//! Owns the search for the programs, the cluster's directory, its postmaster and its Unix socket. Never knows the
//! content of the databases. It reads no configuration and installs no signal handler: everything is an argument. All
//! calls block; on an async runtime, make them on a blocking thread.
//!
//! Guarantees:
//! - one process at a time owns a data directory, through a lock that the kernel releases when the process dies;
//! - a kill at any moment leaves either no cluster or a complete one, and the next start recovers it;
//! - the cluster listens on no network port, only on a Unix socket in a directory that is private to its user.

mod account;
mod binaries;
mod cluster;
#[cfg(feature = "download")]
mod download;
mod error;
mod initdb;
mod lock;
mod log;
mod place;
mod postmaster;
mod probe;
mod session;
mod socket;
mod temporary;

pub use binaries::Binaries;
pub use cluster::{Cluster, Durability, Settings};
pub use error::ClusterError;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

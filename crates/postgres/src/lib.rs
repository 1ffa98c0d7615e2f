//! A private PostgreSQL cluster: found or downloaded, initialised, started, stopped.
//!
//! Owns the binaries' discovery, the cluster's directory, its postmaster and its Unix socket. It never knows what
//! the databases hold, reads no configuration and installs no signal handler: everything comes in as an argument.
//! All calls block; on an async runtime they belong on a blocking thread.
//!
//! What holds:
//! - one process at a time owns a data directory, through a lock that the kernel releases when the process dies;
//! - a kill at any moment leaves either no cluster or a whole one, and the next start recovers it;
//! - the cluster listens on no network port, only on a Unix socket in a directory private to its user.

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

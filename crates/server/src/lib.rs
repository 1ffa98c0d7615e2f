//! The GatheRing server and command line: composition of the other crates.
//!
//! Owns the settings, the routes, start-up and shutdown. Never knows SQL, and decides nothing that another crate decides.

mod capabilities;
mod cli;
mod command;
mod config;
mod database;
mod http;
mod instance;
mod logging;

pub use cli::Cli;
pub use config::{Config, ConfigError, InvalidSetting, LogFormat};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
mod mcp;
mod mounts;

use std::ffi::OsString;
use std::process::ExitCode;

pub use cli::Cli;
pub use config::{Config, ConfigError, InvalidSetting, LogFormat};

/// Becomes a command of the tool `run_command` if these arguments say so: the server starts itself for that. Call it
/// before there are threads; `None` means that this process is for people.
pub fn launch_command(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    (args.nth(1)? == capabilities::LAUNCHER).then(|| gathering_tools::run_launcher(args))
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

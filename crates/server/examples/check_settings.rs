//! Checks a configuration file, and the environment over it, without starting anything.
//!
//! `cargo run -p gathering-server --example check_settings -- gathering.toml`

use std::path::PathBuf;
use std::process::ExitCode;

use gathering_server::Config;

fn main() -> ExitCode {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    match Config::load(file.as_deref()) {
        Ok(config) => {
            eprintln!("the settings are right; the server would listen on {}", config.bind);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

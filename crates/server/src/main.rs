//! The `gathering` binary.

use std::process::ExitCode;

use clap::Parser as _;
use gathering_server::Cli;

fn main() -> ExitCode {
    if let Some(code) = gathering_server::launch_command(std::env::args_os()) {
        return code;
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let ended = runtime.block_on(cli.execute());
    // What still blocks a thread, such as a read of standard input, must not keep the process.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| fail(&error))
}

/// Tells the operator what went wrong, with every cause.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("gathering: {error:#}");
    ExitCode::FAILURE
}

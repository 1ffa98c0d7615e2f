//! The launcher of commands for programs that embed the tools. The server is its own launcher.

use std::process::ExitCode;

fn main() -> ExitCode {
    gathering_tools::run_launcher(std::env::args_os().skip(1))
}

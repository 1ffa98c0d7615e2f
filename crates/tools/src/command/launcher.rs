//! The launcher: a process that confines itself, and then becomes the program.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

use super::confinement::{Confinement, NetworkAccess, enter_namespaces, restrict};
use super::launch::{Launch, Limits, NOT_STARTED, PROBE, Stage, exit_code};

/// Open files of a program.
const MAX_OPEN_FILES: u64 = 1024;

/// The main function of the launcher, with the arguments after [`Launcher::args`](super::Launcher). It confines this
/// process and then becomes the program, so it returns only if it cannot, or if it has only waited for the program.
///
/// Call it first in `main`, before there are other threads.
pub fn run_launcher(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let first = args.next().unwrap_or_default();
    if first == PROBE {
        return probe();
    }
    let Some(launch) = first.to_str().and_then(|text| serde_json::from_str::<Launch>(text).ok()) else {
        return not_started("gathering", "the launcher of commands is not for people");
    };
    match start(&launch, &first, args) {
        Ok(code) => code,
        Err(reason) => not_started(&launch.token, &reason),
    }
}

fn probe() -> ExitCode {
    let found = serde_json::to_string(&Confinement::probe()).unwrap_or_default();
    match writeln!(io::stdout(), "{found}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn not_started(token: &str, reason: &str) -> ExitCode {
    // If nobody reads it, the exit code still tells.
    let _ = writeln!(io::stderr(), "{token}: {reason}");
    ExitCode::from(u8::try_from(NOT_STARTED).unwrap_or(1))
}

fn start(
    launch: &Launch,
    argument: &OsString,
    command: impl Iterator<Item = OsString>,
) -> Result<ExitCode, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(&error))?;
    limit(Resource::Core, Some(0))?;
    match launch.stage {
        Stage::Outside => {
            let parent = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
            if parent.is_some_and(|parent| parent != launch.parent) {
                return Err("the server has ended".to_owned());
            }
            if !launch.namespaces {
                return become_program(launch, command);
            }
            let with_network = launch.network == NetworkAccess::Open;
            enter_namespaces(with_network).map_err(|error| format!("cannot enter namespaces: {error}"))?;
            start_again(launch, Stage::First, argument)
        }
        Stage::First => start_again(launch, Stage::Program, argument),
        Stage::Program => become_program(launch, command),
    }
}

/// Starts this launcher again for the next stage, and ends as it does.
fn start_again(launch: &Launch, stage: Stage, argument: &OsString) -> Result<ExitCode, String> {
    let next = serde_json::to_string(&Launch { stage, ..launch.clone() });
    let next = OsString::from(next.map_err(|error| error.to_string())?);
    let args = std::env::args_os().skip(1);
    let args = args.map(|arg| if arg == *argument { next.clone() } else { arg });
    let ended = Command::new("/proc/self/exe").args(args).status();
    let code = exit_code(ended.map_err(|error| format!("cannot start the next launcher: {error}"))?);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn become_program(launch: &Launch, mut command: impl Iterator<Item = OsString>) -> Result<ExitCode, String> {
    let program = command.next().ok_or("no program is named")?;
    set_limits(&launch.limits)?;
    if launch.files {
        restrict(&launch.workspace, Path::new(&program), &launch.read_paths, launch.network)
            .map_err(|reason| format!("cannot confine the program: {reason}"))?;
    }
    let error = Command::new(&program).args(command).exec();
    Err(format!("cannot execute the program: {error}"))
}

fn set_limits(limits: &Limits) -> Result<(), String> {
    limit(Resource::Cpu, Some(limits.cpu_seconds))?;
    limit(Resource::As, limits.memory_bytes)?;
    limit(Resource::Nproc, limits.processes)?;
    limit(Resource::Fsize, limits.file_bytes)?;
    limit(Resource::Nofile, Some(MAX_OPEN_FILES))
}

fn limit(resource: Resource, value: Option<u64>) -> Result<(), String> {
    let Some(value) = value else { return Ok(()) };
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(resource, limit).map_err(|error| format!("cannot set the limit {resource:?}: {error}"))
}

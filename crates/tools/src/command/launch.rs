//! What the launcher is told, as one argument in JSON.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use super::confinement::NetworkAccess;

/// The argument that asks for what the system has, instead of a launch.
pub(super) const PROBE: &str = "probe";

/// The exit code of a launcher that could not start its program.
pub(super) const NOT_STARTED: i32 = 125;

/// How to start a program. The program and its arguments follow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Launch {
    /// Before the launcher's own error. The program does not know it.
    pub(super) token: String,
    /// The process that must be alive.
    pub(super) parent: u32,
    pub(super) stage: Stage,
    pub(super) workspace: PathBuf,
    pub(super) read_paths: Vec<PathBuf>,
    pub(super) limits: Limits,
    pub(super) network: NetworkAccess,
    /// Whether Landlock is used.
    pub(super) files: bool,
    /// Whether namespaces are used.
    pub(super) namespaces: bool,
}

/// Where there are namespaces the launcher runs three times, each one the child of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The child of the server.
    Outside,
    /// The first process inside the namespaces, which only waits: no signal from inside ends it, and the kernel kills
    /// all others when it ends. A program must not be in its place.
    First,
    /// The process that becomes the program.
    Program,
}

/// Limits by the kernel.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Limits {
    pub(super) cpu_seconds: u64,
    pub(super) memory_bytes: Option<u64>,
    pub(super) processes: Option<u64>,
    pub(super) file_bytes: Option<u64>,
}

/// How a process ended, as a shell tells it: 128 and the number of the signal, if one ended it.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

//! Starts commands by the launcher, and waits for their end.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::confinement::{Confinement, NetworkAccess};
use super::group::ProcessGroup;
use super::launch::{Launch, Limits, NOT_STARTED, PROBE, Stage, exit_code};
use super::output::Output;
use super::policy::{CommandSetupError, RunCommandPolicy};
use crate::tool::ToolError;

/// Where programs find others.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long an output is read after the command has ended, if a process outside its group keeps it open.
const LAST_READ: Duration = Duration::from_secs(1);

/// Runs commands by a policy. Clones share the number of commands at once.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    pub(crate) policy: Arc<RunCommandPolicy>,
    confinement: Confinement,
    network: NetworkAccess,
    room: Arc<Semaphore>,
}

/// One command.
pub(crate) struct CommandRequest {
    /// One of the policy's names.
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    pub(crate) stdin: Option<String>,
    pub(crate) timeout: Duration,
    /// The root of the workspace.
    pub(crate) workspace: PathBuf,
    /// The open directory to run in.
    pub(crate) directory: OwnedFd,
}

/// How a command ended.
pub(crate) struct CommandEnd {
    /// As a shell tells it; `None` if it did not end in time.
    pub(crate) exit_code: Option<i32>,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    pub(crate) took: Duration,
}

impl Commands {
    /// Asks the launcher what this system has, and whether that suffices. Blocks for a moment.
    pub(crate) fn new(policy: RunCommandPolicy) -> Result<Self, CommandSetupError> {
        if policy.programs.is_empty() {
            return Err(CommandSetupError::NoPrograms);
        }
        let is_file = |path: &PathBuf| path.is_absolute() && path.is_file();
        if let Some((name, _)) = policy.programs.iter().find(|(_, path)| !is_file(path)) {
            return Err(CommandSetupError::NotAProgram { name: name.clone() });
        }
        let confinement = probe(&policy)?;
        let network = match (policy.allow_network, confinement) {
            (true, _) => NetworkAccess::Open,
            (false, Confinement { namespaces: true, .. }) => NetworkAccess::None,
            (false, Confinement { files: true, tcp: true, .. }) => NetworkAccess::NoTcp,
            (false, _) => return Err(CommandSetupError::NetworkOpen),
        };
        if policy.require_confinement && !confinement.files {
            return Err(CommandSetupError::NoConfinement);
        }
        if policy.max_processes.is_some() && !confinement.namespaces {
            return Err(CommandSetupError::ProcessesUnlimited);
        }
        let room = Arc::new(Semaphore::new(policy.max_concurrent.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { policy: Arc::new(policy), confinement, network, room })
    }

    /// What confines every command, for people.
    pub(crate) fn confinement(&self) -> serde_json::Value {
        serde_json::json!({
            "files": if self.confinement.files { "landlock" } else { "none" },
            "network": self.network.as_str(),
            "processes": if self.confinement.namespaces { "namespace" } else { "group" }
        })
    }

    /// Runs a command to its end, or kills it with all its processes when its time is over.
    ///
    /// Cancel: safe; dropping it kills all processes of the command.
    pub(crate) async fn run(&self, request: CommandRequest) -> Result<CommandEnd, ToolError> {
        // The semaphore is never closed.
        let _room = self.room.acquire().await.ok();
        let begun = Instant::now();
        let token = Uuid::now_v7().to_string();
        let mut child = self.start(&request, &token)?;
        let group = ProcessGroup::of(child.id());
        let (mut stdout, mut stderr) = (Output::default(), Output::default());
        let limit = self.policy.max_output_bytes;
        let (out, err, input) = (child.stdout.take(), child.stderr.take(), child.stdin.take());
        let status = {
            let exchange = async {
                let out = async {
                    if let Some(out) = out {
                        stdout.read(out, limit).await
                    }
                };
                let err = async {
                    if let Some(err) = err {
                        stderr.read(err, limit).await
                    }
                };
                tokio::join!(out, err, feed(input, request.stdin));
            };
            tokio::pin!(exchange);
            let mut exchanged = false;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break Some(status),
                    () = &mut exchange, if !exchanged => exchanged = true,
                    () = tokio::time::sleep_until(begun + request.timeout) => break None,
                }
            };
            // What the program has left behind keeps its outputs open.
            drop(group);
            if !exchanged {
                let _ = tokio::time::timeout(LAST_READ, &mut exchange).await;
            }
            status
        };
        let status = status.transpose().map_err(|error| unavailable(&request.program, &error))?;
        let exit_code = status.map(exit_code);
        if let Some(reason) = not_started(exit_code, &stderr, &token) {
            let message = format!("`{}` was not started: {reason}", request.program);
            return Err(ToolError::NotConfigured { message });
        }
        Ok(CommandEnd { exit_code, stdout, stderr, took: begun.elapsed() })
    }

    /// The launcher dies with the thread that starts it, so that must be one of the runtime's workers, as it is in an async
    /// function: they live as long as the process. Threads for blocking work do not.
    fn start(&self, request: &CommandRequest, token: &str) -> Result<Child, ToolError> {
        let policy = &*self.policy;
        let program = policy.programs.get(&request.program).ok_or_else(|| ToolError::NotConfigured {
            message: format!("the program `{}` is not allowed", request.program),
        })?;
        let launch = Launch {
            token: token.to_owned(),
            parent: std::process::id(),
            stage: Stage::Outside,
            workspace: request.workspace.clone(),
            read_paths: policy.read_paths.clone(),
            limits: Limits {
                cpu_seconds: policy.max_time.as_secs().saturating_add(1),
                memory_bytes: policy.max_memory_bytes,
                processes: policy.max_processes,
                file_bytes: policy.max_file_bytes,
            },
            network: self.network,
            files: self.confinement.files,
            namespaces: self.confinement.namespaces,
        };
        let launch = serde_json::to_string(&launch).map_err(|error| unavailable(&request.program, &error))?;
        Command::new(&policy.launcher.program)
            .args(&policy.launcher.args)
            .arg(launch)
            .arg(program)
            .args(&request.args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &request.workspace)
            .env("TMPDIR", &request.workspace)
            .env("LANG", "C.UTF-8")
            .envs(&policy.environment)
            // The directory that was opened within the workspace, whatever its path leads to by now.
            .current_dir(format!("/proc/self/fd/{}", request.directory.as_raw_fd()))
            .stdin(if request.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unavailable(&request.program, &error))
    }
}

fn unavailable(program: &str, error: &dyn std::error::Error) -> ToolError {
    ToolError::Unavailable { message: format!("cannot start `{program}`: {error}") }
}

/// Writes the input. A program that does not read it may end without it.
async fn feed(input: Option<ChildStdin>, text: Option<String>) {
    if let (Some(mut input), Some(text)) = (input, text) {
        let _ = input.write_all(text.as_bytes()).await;
    }
}

/// Why the launcher did not start the program, if that is how it ended.
fn not_started(exit_code: Option<i32>, stderr: &Output, token: &str) -> Option<String> {
    if exit_code != Some(NOT_STARTED) {
        return None;
    }
    let text = String::from_utf8_lossy(&stderr.bytes);
    Some(text.strip_prefix(token)?.strip_prefix(": ")?.trim_end().to_owned())
}

fn probe(policy: &RunCommandPolicy) -> Result<Confinement, CommandSetupError> {
    let told = std::process::Command::new(&policy.launcher.program)
        .args(&policy.launcher.args)
        .arg(PROBE)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(CommandSetupError::Launcher)?;
    serde_json::from_slice(&told.stdout).map_err(|error| {
        CommandSetupError::LauncherAnswer(format!("it ended with {}: {error}", exit_code(told.status)))
    })
}

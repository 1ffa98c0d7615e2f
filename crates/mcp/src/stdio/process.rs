//! The server's process and its group: started, and ended in order.
//!
//! Programs that start servers (`npx`, `uvx`, shells) do not always end what they started. So each server gets a
//! process group of its own, and the whole group is ended.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use gathering_domain::ExposeSecret as _;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::McpError;
use crate::config::StdioCommand;

/// What a server inherits of our environment.
const INHERITED: [&str; 9] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];
/// The time from SIGTERM to SIGKILL.
const AFTER_SIGTERM: Duration = Duration::from_secs(3);
/// The pause between two looks at a group.
const LOOK: Duration = Duration::from_millis(10);

/// A running server.
pub(super) struct Process {
    pub(super) child: Child,
    group: Option<Pid>,
}

impl Process {
    /// Starts the program with three pipes.
    ///
    /// # Errors
    /// [`McpError::Start`].
    pub(super) fn start(command: &StdioCommand) -> Result<Self, McpError> {
        let mut program = Command::new(&command.command);
        program.args(&command.args).env_clear();
        program.envs(INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        program.envs(command.env.iter().map(|(name, value)| (name, value.expose_secret())));
        if let Some(directory) = &command.cwd {
            program.current_dir(directory);
        }
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // If the runtime ends without us, at least this process must end. The rest of the group sees its input close.
        program.process_group(0).kill_on_drop(true);
        let failed = |source| McpError::Start { command: command.command.clone(), source };
        let child = program.spawn().map_err(failed)?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group })
    }

    /// Waits up to `patience` for the process to end by itself, then ends what is left of the group: SIGTERM, and
    /// SIGKILL after 3 s. Returns how the process ended.
    pub(super) async fn end(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        if let Ok(status) = timeout(patience, self.child.wait()).await {
            let status = status?;
            self.end_rest().await;
            return Ok(status);
        }
        self.signal(Signal::TERM);
        if let Ok(status) = timeout(AFTER_SIGTERM, self.child.wait()).await {
            let status = status?;
            self.end_rest().await;
            return Ok(status);
        }
        self.signal(Signal::KILL);
        self.child.wait().await
    }

    /// Ends the members of the group that outlived its first process.
    async fn end_rest(&self) {
        let since = Instant::now();
        self.signal(Signal::TERM);
        while self.is_left() {
            if since.elapsed() > AFTER_SIGTERM {
                self.signal(Signal::KILL);
                return;
            }
            sleep(LOOK).await;
        }
    }

    fn is_left(&self) -> bool {
        self.group.is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // An error means that the group is gone, which is what we want.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// How a process ended, in words.
pub(super) fn describe(status: &io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "for an unknown reason".to_owned(),
        },
        Err(error) => format!("its exit code is unknown: {error}"),
    }
}

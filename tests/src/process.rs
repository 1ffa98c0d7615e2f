//! One process of the program: its output in files, its end awaited, and killed with its owner. When it is dropped, its
//! output is searched for secrets.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::secrets;
use crate::wait::wait_until;

/// A process that was started and is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: TempDir,
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command` with no input, and not on a terminal.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Result<Process> {
        secrets::note_settings(command);
        let output = tempfile::tempdir()?;
        let file = |name: &str| File::create(output.path().join(name));
        command.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("stderr")?);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Process { child, output })
    }

    /// What it has written to standard output.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&read(&self.output.path().join(name))).into_owned()
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended and was awaited.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {pid}"))
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the process")?;
        self.child.wait().context("cannot wait for the process")?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If `limit` passes first; the end of its output is in the message.
    pub async fn end(&mut self, limit: Duration) -> Result<Ended> {
        let (child, path) = (&mut self.child, self.output.path());
        let status = wait_until(limit, "the process ends", async || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("it runs and wrote:\n{}", last_lines(&path.join("stderr"), 30))),
            Err(error) => Err(error.to_string()),
        })
        .await?;
        Ok(self.ended(status))
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        Ended { code: status.code(), signal: status.signal(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// No process of any test may write a secret that a client of this test process showed or was given.
    #[expect(clippy::panic, reason = "a drop can fail a test in no other way")]
    fn check_output(&self) {
        if std::thread::panicking() {
            return;
        }
        let secrets = secrets::known_secrets();
        for name in ["stdout", "stderr"] {
            let text = self.read(name);
            if let Some(secret) = secrets::find_secret(&text, &secrets) {
                let lines = text.lines().filter(|line| line.contains(secret)).collect::<Vec<_>>();
                panic!("a secret is in the {name} of a process: {secret}\n{}", lines.join("\n"));
            }
        }
    }

    /// The last lines of its standard error.
    pub fn last_words(&self) -> String {
        last_lines(&self.output.path().join("stderr"), 30)
    }
}

fn last_lines(path: &Path, n_lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.split_at(lines.len().saturating_sub(n_lines)).1.join("\n")
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().and_then(|()| self.child.wait()).ok();
        self.check_output();
    }
}

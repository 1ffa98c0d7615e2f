//! A process that a test talks to in lines of JSON, as MCP clients talk to the programs that they start.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::process::Ended;
use crate::secrets;

/// More than any answer may take, so that a test fails rather than hangs.
const LIMIT: Duration = Duration::from_secs(90);

/// A process with open pipes, killed when this is dropped.
#[derive(Debug)]
pub struct Piped {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    output: TempDir,
    next_id: u64,
}

impl Piped {
    /// Starts `command`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command) -> Result<Piped> {
        secrets::note_settings(&command);
        let output = tempfile::tempdir()?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(output.path().join("stderr"))?);
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let (input, stdout) = (child.stdin.take(), child.stdout.take().context("no standard output")?);
        Ok(Piped { child, input, lines: BufReader::new(stdout).lines(), output, next_id: 1 })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If the process no longer reads.
    pub async fn write(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the input is closed")?;
        Ok(input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// The next line that it writes.
    ///
    /// # Errors
    /// If there is none in time, with what it logged.
    pub async fn line(&mut self) -> Result<String> {
        let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
        line.with_context(|| self.log())??.with_context(|| format!("it ended: {}", self.log()))
    }

    /// The next message.
    ///
    /// # Errors
    /// If there is none in time, or the line is none.
    pub async fn answer(&mut self) -> Result<Value> {
        let line = self.line().await?;
        serde_json::from_str(&line).with_context(|| line)
    }

    /// Sends a request, and waits for the next message, which answers it.
    ///
    /// # Errors
    /// If that does not answer it.
    pub async fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.write(&message.to_string()).await?;
        let answer = self.answer().await?;
        anyhow::ensure!(answer["id"] == id, "another answer: {answer}");
        Ok(answer)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.output.path().join("stderr")).unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().context("the process has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Closes its input, and waits for its end.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn end(&mut self, limit: Duration) -> Result<Ended> {
        self.input.take();
        self.ended(limit).await
    }

    /// Waits for its end; `stdout` is what it wrote after the last line that was read.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn ended(&mut self, limit: Duration) -> Result<Ended> {
        let rest = async {
            let mut rest = String::new();
            while let Some(line) = self.lines.next_line().await? {
                rest.push_str(&line);
                rest.push('\n');
            }
            anyhow::Ok((rest, self.child.wait().await?))
        };
        let (stdout, status) = tokio::time::timeout(limit, rest).await.context("it has not ended")??;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        Ok(Ended { code: status.code(), signal, stdout, stderr: self.log() })
    }
}

impl Drop for Piped {
    #[expect(clippy::panic, reason = "a drop can fail a test in no other way")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log = self.log();
        if let Some(secret) = secrets::find_secret(&log, &secrets::known_secrets()) {
            panic!("a secret is in the log of a process: {secret}\n{log}");
        }
    }
}

//! A server of the test: `gathering serve` on a free port.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Client, Database, Ended, Process, wait_until};

/// How long a server may take to be ready: an embedded cluster is made first, maybe on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server, killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    client: Client,
    address: String,
}

impl Server {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// If it is not ready in time, or ends; the end of its log is in the message.
    pub async fn start(database: &Database) -> Result<Server> {
        Self::start_with(database, |_| {}).await
    }

    /// Starts a server with more settings and waits until it is ready.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_with(database: &Database, configure: impl FnOnce(&mut Command)) -> Result<Server> {
        let mut command = database.command(&["serve"])?;
        command.env("GATHERING_BIND", "127.0.0.1:0");
        configure(&mut command);
        Self::started(Process::start(&mut command)?).await
    }

    /// Waits until a server that was started otherwise is ready.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn started(mut process: Process) -> Result<Server> {
        let address = listening(&mut process).await?;
        let client = Client::new(format!("http://{address}"))?;
        let ready = wait_until(START_LIMIT, "the server is ready", async || {
            match client.get("/health/ready").await {
                Ok(reply) if reply.status == 200 => Ok(()),
                Ok(reply) => Err(reply.text),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        ready.await.with_context(|| process.last_words())?;
        Ok(Server { process, client, address })
    }

    /// Its address and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A client as nobody.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it, as `kill -9` does.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn stop(&mut self, limit: Duration) -> Result<Ended> {
        self.signal(Signal::SIGTERM)?;
        self.process.end(limit).await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn end(&mut self, limit: Duration) -> Result<Ended> {
        self.process.end(limit).await
    }
}

/// The address that the server says it listens on.
async fn listening(process: &mut Process) -> Result<String> {
    let found = wait_until(START_LIMIT, "the server listens", async || {
        let log = process.stderr();
        match log.lines().find_map(address_in) {
            Some(address) => Ok(Ok(address)),
            None if !process.is_running() => Ok(Err(anyhow::anyhow!("the server ended"))),
            None => Err("no line in its log says so"),
        }
    });
    found.await.and_then(|ended| ended).with_context(|| process.last_words())
}

fn address_in(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned))?
}

//! A server of the test: `gathering serve` on a free port.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Client, Database, Ended, Process, note_secret, wait_until};

/// How long a server may take to be ready: an embedded cluster is made first, maybe on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Our own crates say more than they do by default, as the log is searched for secrets.
const LOG: &str = "info,gathering_server=debug,gathering_edge=debug,gathering_persistence=debug,\
                   gathering_control=debug,gathering_nodes=debug,gathering_auth=debug,\
                   gathering_cache=debug,gathering_tools=debug,gathering_dag_engine=debug,\
                   gathering_agents=debug";

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
        command.env("GATHERING_BIND", "127.0.0.1:0").env("GATHERING_LOG", LOG);
        configure(&mut command);
        let server = Self::started(Process::start(&mut command)?).await?;
        // Made at the start, unless a setting has it.
        if let Ok(key) = std::fs::read_to_string(database.data_dir().join("token.key")) {
            key.split_whitespace().for_each(note_secret);
        }
        Ok(server)
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

    /// A client without credentials.
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

    /// The most memory that it has held at once, in bytes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
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

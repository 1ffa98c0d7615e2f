//! Several servers on one database, and which of them does what.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_postgres::Client as Session;

use crate::wait::wait_until;
use crate::{Client, Database, Server};

/// How many starts are under way at once.
const N_STARTERS: usize = 8;

/// Servers on one database, killed when this is dropped; and an account that is logged in to them.
#[derive(Debug)]
pub struct Several {
    servers: Vec<Server>,
    token: String,
}

impl Several {
    /// Starts `n_servers` on an empty database.
    ///
    /// # Errors
    /// If one of them is not ready in time.
    pub async fn start(
        database: &Database,
        n_servers: usize,
        configure: impl Fn(&mut Command),
    ) -> Result<Several> {
        let mut servers = Vec::new();
        for _ in 0..n_servers {
            servers.push(Server::start_with(database, &configure).await?);
        }
        let first = servers.first().context("no server")?;
        let ada = first.client().join("ada@example.org").await?;
        let token = ada.token().context("no token")?.to_owned();
        Ok(Several { servers, token })
    }

    /// Starts one more.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn add(&mut self, database: &Database) -> Result<()> {
        self.servers.push(Server::start(database).await?);
        Ok(())
    }

    /// Starts another one in the place of one that was killed.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn replace(
        &mut self,
        number: usize,
        database: &Database,
        configure: impl FnOnce(&mut Command),
    ) -> Result<()> {
        self.servers[number] = Server::start_with(database, configure).await?;
        Ok(())
    }

    /// A client of one server, logged in.
    pub fn client(&self, number: usize) -> Client {
        self.servers[number % self.servers.len()].client().with_token(&self.token)
    }

    /// A client of each.
    pub fn clients(&self) -> Vec<Client> {
        (0..self.servers.len()).map(|number| self.client(number)).collect()
    }

    /// One of the servers.
    pub fn server(&self, number: usize) -> &Server {
        &self.servers[number]
    }

    /// Kills one, as `kill -9` does.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.servers[number].kill()
    }

    /// Sends a signal to one.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, number: usize, signal: Signal) -> Result<()> {
        self.servers[number].signal(signal)
    }

    /// Which of them has this process number.
    ///
    /// # Errors
    /// If none has.
    pub fn with_process(&self, pid: i32) -> Result<usize> {
        let found = self.servers.iter().position(|server| i64::from(server.id()) == i64::from(pid));
        found.with_context(|| format!("no server is process {pid}"))
    }

    /// Starts runs of a pipeline through all servers in turn; the answer is their ids.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn start_runs(&self, pipeline: &str, n_runs: usize) -> Result<Vec<String>> {
        let mut starters = JoinSet::new();
        for starter in 0..N_STARTERS {
            let (clients, pipeline) = (self.clients(), pipeline.to_owned());
            starters.spawn(async move {
                let mut started = Vec::new();
                for number in (starter..n_runs).step_by(N_STARTERS) {
                    started.push(clients[number % clients.len()].start_run(&pipeline).await?);
                }
                anyhow::Ok(started)
            });
        }
        let mut started = Vec::new();
        while let Some(some) = starters.join_next().await {
            started.extend(some??);
        }
        started.sort_unstable();
        Ok(started)
    }

    /// The identity of each server at the moment.
    ///
    /// # Errors
    /// If one has none, or more than one.
    pub async fn identities(&self, session: &Session) -> Result<Vec<String>> {
        let rows = session.query("SELECT pid, id::text FROM instances", &[]).await?;
        ensure!(rows.len() == self.servers.len(), "{} instances", rows.len());
        let known: HashMap<i32, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let ids = self.servers.iter().map(|server| known.get(&i32::try_from(server.id()).ok()?).cloned());
        ids.collect::<Option<_>>().context("a server has no identity")
    }

    /// The server that drives most runs at the moment, with its identity and how many runs those are.
    ///
    /// # Errors
    /// If nothing is driven.
    pub async fn busiest(&self, session: &Session) -> Result<(usize, String, usize)> {
        let query = "SELECT i.pid, i.id::text, count(*) FROM all_runs r JOIN instances i ON i.id = r.owner \
                     GROUP BY 1, 2 ORDER BY 3 DESC, 2 LIMIT 1";
        let row = session.query_opt(query, &[]).await?.context("nothing is driven")?;
        Ok((self.with_process(row.get(0))?, row.get(1), usize::try_from(row.get::<_, i64>(2))?))
    }
}

/// Waits until every run has succeeded.
///
/// # Errors
/// If one ends otherwise, or `limit` passes first.
pub async fn all_succeeded(session: &Session, limit: Duration) -> Result<()> {
    let ended = wait_until(limit, "every run has ended", async || {
        let rows = session.query("SELECT state, count(*) FROM all_runs GROUP BY state", &[]).await;
        let rows = rows.map_err(|error| error.to_string())?;
        let states: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let is_live = |(state, _): &(String, i64)| matches!(state.as_str(), "queued" | "running" | "waiting");
        if states.iter().any(is_live) { Err(format!("{states:?}")) } else { Ok(states) }
    });
    let ended = ended.await?;
    let errors = "SELECT coalesce(json_agg(error), '[]')::text FROM all_runs WHERE state <> 'succeeded'";
    if ended.iter().any(|(state, _)| state != "succeeded") {
        let errors: Value = serde_json::from_str(session.query_one(errors, &[]).await?.get(0))?;
        anyhow::bail!("{ended:?}: {errors}");
    }
    Ok(())
}

/// Checks that the runs stored are these, each once, and no other.
///
/// # Errors
/// If one is missing, or there is another.
pub async fn check_stored(session: &Session, accepted: &[String]) -> Result<()> {
    let rows = session.query("SELECT id::text FROM all_runs ORDER BY id::text", &[]).await?;
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut expected = accepted.to_vec();
    expected.sort_unstable();
    let lost: Vec<_> = expected.iter().filter(|run| stored.binary_search(run).is_err()).collect();
    let unknown: Vec<_> = stored.iter().filter(|run| expected.binary_search(run).is_err()).collect();
    ensure!(lost.is_empty(), "{} of {} accepted runs were lost: {lost:?}", lost.len(), expected.len());
    ensure!(unknown.is_empty(), "{} runs that no client knows: {unknown:?}", unknown.len());
    ensure!(stored.len() == expected.len(), "{} runs for {} starts", stored.len(), expected.len());
    Ok(())
}

//! A steady load: runs that are started again and again, whatever is killed meanwhile.
//!
//! Each start has an `Idempotency-Key` and is repeated until it is accepted, as a careful program would do. Owns its
//! clients' tasks: they end with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Client;
use crate::wait::wait_until;

/// How long a start may be refused, or not answered, while servers or the database come back.
const LIMIT: Duration = Duration::from_secs(90);

/// Between two starts of one client: the load's pace, which nothing depends on.
const PACE: Duration = Duration::from_millis(20);

/// Between two tries to get an answer.
const RETRY: Duration = Duration::from_millis(10);

/// Clients that start runs of one pipeline.
#[derive(Debug)]
pub struct Load {
    state: watch::Sender<State>,
    n_accepted: Arc<AtomicUsize>,
    clients: JoinSet<Result<Vec<String>>>,
}

#[derive(Debug, Clone)]
struct State {
    servers: Vec<Client>,
    is_over: bool,
}

impl Load {
    /// Begins with `n_clients` clients at once, which use these servers in turn.
    pub fn start(servers: Vec<Client>, pipeline: &str, n_clients: usize) -> Load {
        let state = watch::Sender::new(State { servers, is_over: false });
        let n_accepted = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for number in 0..n_clients {
            let path = format!("/api/v1/pipelines/{pipeline}/runs");
            clients.spawn(start_runs(number, path, state.subscribe(), Arc::clone(&n_accepted)));
        }
        Load { state, n_accepted, clients }
    }

    /// From now on these servers are used.
    pub fn go_to(&self, servers: Vec<Client>) {
        self.state.send_modify(|state| state.servers = servers);
    }

    /// How many runs were accepted.
    pub fn n_accepted(&self) -> usize {
        self.n_accepted.load(Ordering::Relaxed)
    }

    /// Waits until this many more runs are accepted.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn accepted_more(&self, n_more: usize, limit: Duration) -> Result<()> {
        let wanted = self.n_accepted() + n_more;
        wait_until(limit, &format!("{wanted} runs are accepted"), async || match self.n_accepted() {
            n_accepted if n_accepted >= wanted => Ok(()),
            n_accepted => Err(format!("{n_accepted} are")),
        })
        .await
    }

    /// Starts nothing more; the answer is every run that was accepted. What was sent without an answer is repeated until
    /// it has one.
    ///
    /// # Errors
    /// If a start was refused permanently, or never answered.
    pub async fn end(mut self) -> Result<Vec<String>> {
        self.state.send_modify(|state| state.is_over = true);
        let mut accepted = Vec::new();
        while let Some(ended) = self.clients.join_next().await {
            accepted.extend(ended??);
        }
        accepted.sort_unstable();
        Ok(accepted)
    }
}

async fn start_runs(
    number: usize,
    path: String,
    state: watch::Receiver<State>,
    n_accepted: Arc<AtomicUsize>,
) -> Result<Vec<String>> {
    let mut accepted = Vec::new();
    while !state.borrow().is_over {
        let key = format!("start-{number}-{}", accepted.len());
        accepted.push(start_run(&path, &key, number + accepted.len(), &state).await?);
        n_accepted.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PACE).await;
    }
    Ok(accepted)
}

/// Asks one server after the other until one accepts.
async fn start_run(path: &str, key: &str, first: usize, state: &watch::Receiver<State>) -> Result<String> {
    let deadline = Instant::now() + LIMIT;
    for turn in first.. {
        let client = {
            let state = state.borrow();
            state.servers.get(turn % state.servers.len().max(1)).cloned().context("there is no server")?
        };
        let request = client.request(Method::POST, path).header("idempotency-key", key).json(&json!({}));
        let refusal = match client.send(request).await {
            Ok(reply) if reply.status == 202 => return Ok(reply.text_of("id")?.to_owned()),
            Ok(reply) => {
                ensure!(reply.status >= 500, "{key}: {} {}", reply.status, reply.text);
                format!("{} {}", reply.status, reply.text)
            }
            Err(error) => format!("{error:#}"),
        };
        ensure!(Instant::now() < deadline, "{key} is not accepted within {LIMIT:?}; at last: {refusal}");
        tokio::time::sleep(RETRY).await;
    }
    bail!("{key}: no turn is left")
}

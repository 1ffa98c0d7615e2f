//! How instances wake each other: `NOTIFY`, coalesced, on one session that listens and speaks.
//!
//! A wake-up only says "poll". Every listener polls anyway, so a lost wake-up costs time, not work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use gathering_domain::RunId;
use tokio::sync::{Notify, watch};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};
use tokio_util::sync::CancellationToken;

use crate::db::connect::ConnectOptions;
use crate::db::error::DatabaseError;
use crate::db::keys::wake_channel;
use crate::runs::appends::{Appends, Following};

/// At most one `NOTIFY` in this time per instance: each takes a lock that serialises the commits of the whole cluster.
const COALESCE: Duration = Duration::from_millis(20);

/// The pause between a lost session and the next attempt.
const RECONNECT: Duration = Duration::from_secs(1);

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A run can be claimed.
    Runs,
    /// A run that may be driven now has a signal: cancellation was requested, or a wait may be over.
    Signals,
    /// A schedule was changed.
    Schedules,
    /// A run has ended, and its event was written.
    Events,
    /// A circuit breaker was changed.
    Breakers,
    /// An event was written that is not the end of a run.
    Log,
}

impl Wake {
    const ALL: [Wake; 6] =
        [Wake::Runs, Wake::Signals, Wake::Schedules, Wake::Events, Wake::Breakers, Wake::Log];

    const fn index(self) -> usize {
        self as usize
    }

    const fn letter(self) -> char {
        match self {
            Wake::Runs => 'r',
            Wake::Signals => 'a',
            Wake::Schedules => 's',
            Wake::Events => 'e',
            Wake::Breakers => 'b',
            Wake::Log => 'l',
        }
    }
}

/// Wakes the tasks of this instance and of all others. Cloning is cheap and shares it.
#[derive(Debug, Clone)]
pub struct WakeBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Counts wake-ups, for the tasks of this process.
    counters: [watch::Sender<u64>; Wake::ALL.len()],
    /// What has not been sent to the other instances yet.
    unsent: [AtomicBool; Wake::ALL.len()],
    to_send: Notify,
    appends: Appends,
    /// The server process of our session, to ignore our own notifications.
    own_backend: AtomicI32,
}

impl WakeBus {
    /// A bus that reaches this process only, until [`WakeBus::run`] connects it.
    #[expect(clippy::new_without_default, reason = "two of them would not meet, which a default hides")]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                counters: std::array::from_fn(|_| watch::Sender::new(0)),
                unsent: Default::default(),
                to_send: Notify::new(),
                appends: Appends::default(),
                own_backend: AtomicI32::new(0),
            }),
        }
    }

    /// Wakes the tasks that wait for this: here at once, on other instances within about 20 ms. Never blocks or fails.
    pub fn wake(&self, what: Wake) {
        self.wake_here(what);
        if let Some(flag) = self.shared.unsent.get(what.index()) {
            flag.store(true, Ordering::Release);
        }
        self.shared.to_send.notify_one();
    }

    /// Changes whenever a poll may find something; subscribe first, then poll.
    pub fn subscribe(&self, what: Wake) -> watch::Receiver<u64> {
        self.shared.counters[what.index()].subscribe()
    }

    /// Follows the journal of a run, as far as this process writes it; follow first, then read.
    pub fn follow(&self, run: RunId) -> Following {
        self.shared.appends.follow(run)
    }

    /// Tells this process's followers of these runs that the journals have grown; each with whether the run has ended.
    pub(crate) fn appended(&self, runs: impl Iterator<Item = (RunId, bool)>) {
        self.shared.appends.tell(runs);
    }

    /// Wakes the tasks of this process alone.
    pub(crate) fn wake_here(&self, what: Wake) {
        self.shared.counters[what.index()].send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Listens and speaks on a session of its own until `stop`; connects again when the session ends, and then wakes
    /// every listener here, as notifications may have been missed. Direct connections only: a transaction pooler does
    /// not pass notifications on.
    pub async fn run(&self, options: ConnectOptions, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.run_session(&options) => ended,
            };
            if let Err(error) = ended {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "wake-up session lost; reconnecting: {error}"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
    }

    async fn run_session(&self, options: &ConnectOptions) -> Result<(), DatabaseError> {
        let (client, connection) = options.open().await?;
        // The connection is driven here rather than by a task of its own: it ends when this function does.
        tokio::select! {
            ended = self.receive(connection) => ended,
            ended = self.speak(&client) => ended,
        }
    }

    async fn receive(&self, mut connection: Connection<Socket, NoTlsStream>) -> Result<(), DatabaseError> {
        let failed = |error| DatabaseError::session("listening for wake-ups", error);
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(heard) = message.map_err(failed)? {
                if heard.process_id() == self.shared.own_backend.load(Ordering::Relaxed) {
                    continue;
                }
                for what in Wake::ALL {
                    if heard.payload().contains(what.letter()) {
                        self.wake_here(what);
                    }
                }
            }
        }
        Err(DatabaseError::connection("listening for wake-ups", "the database closed the session"))
    }

    async fn speak(&self, client: &Client) -> Result<(), DatabaseError> {
        let failed = |error| DatabaseError::session("waking other instances", error);
        let row =
            client.query_one("SELECT current_schema()::text, pg_backend_pid()", &[]).await.map_err(failed)?;
        let schema: Option<String> = row.get(0);
        self.shared.own_backend.store(row.get(1), Ordering::Relaxed);
        let channel = wake_channel(&schema.ok_or(DatabaseError::NoSchema)?);
        // The name is made of hexadecimal digits; LISTEN takes no parameters.
        client.batch_execute(&format!("LISTEN {channel}")).await.map_err(failed)?;
        let notify = client.prepare("SELECT pg_notify($1, $2)").await.map_err(failed)?;
        for what in Wake::ALL {
            self.wake_here(what);
        }
        loop {
            self.shared.to_send.notified().await;
            let payload: String =
                Wake::ALL.into_iter().filter(|what| self.take_unsent(*what)).map(Wake::letter).collect();
            if !payload.is_empty() {
                client.execute(&notify, &[&channel, &payload]).await.map_err(failed)?;
                tokio::time::sleep(COALESCE).await;
            }
        }
    }

    fn take_unsent(&self, what: Wake) -> bool {
        self.shared.unsent[what.index()].swap(false, Ordering::AcqRel)
    }
}

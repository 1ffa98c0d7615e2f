//! The liveness session: it holds an advisory lock for as long as the process lives.
//!
//! When a process dies, PostgreSQL ends its session and frees the lock at once; an instance that can take the lock
//! knows of the death. Owns the `instances` rows. Never knows what the instance executes, only whether it executes
//! anything.
//!
//! While it does, it probes the session every 2 seconds; while it does not, every 30, as there is nothing to stop. This
//! is enough, although an instance may claim just when its session is gone:
//!
//! - The session ended and its end reached us: `lost` is cancelled at once, whatever the interval.
//! - It ended silently, as the host or the network failed: our kernel probes more often than the server's and gives up
//!   sooner (`PEER_PROBE`, `PEER_LIMIT`), so that `lost` is cancelled before the server frees the lock.
//! - The lock went, and the session stayed: a pooler gave the session another server connection, or somebody unlocked it.
//!   Each probe sees the lock in `pg_locks`, held by the session itself, or cancels `lost`.
//! - Another instance declared us dead: our row is gone, so claims, which go through another connection, are refused.
//! - A middlebox keeps our end open although the server's end is gone: the probe that comes with the first run fails,
//!   at the latest after [`Liveness::SELF_FENCING_LIMIT`]. Until then two instances may execute the run, and one of
//!   them can write nothing, as after a paused process.
//!
//! A process that was paused while it drove nothing owns nothing that could be taken over; it simply continues.

mod keeper;

use std::sync::Arc;
use std::time::Duration;

use gathering_domain::InstanceId;
use tokio::sync::watch;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::db::connect::ConnectOptions;
use crate::db::error::DatabaseError;
use crate::db::keys::{LockOf, lock_key, wake_channel};
use keeper::{Ask, Proof, Proved};

/// How often the kernel probes this session's peer.
const PEER_PROBE: Duration = Duration::from_secs(2);

/// Without an answer for this long, the kernel ends the session here.
const PEER_LIMIT: Duration = Duration::from_secs(6);

// The server counts from the last probe that it received, at most one `PEER_PROBE` before the connection broke; our
// kernel may notice one `PEER_PROBE` late.
const _: () = assert!(
    PEER_LIMIT.as_secs() + 2 * PEER_PROBE.as_secs() < ConnectOptions::SILENT_PEER_LIMIT.as_secs(),
    "the server would free the lock before this instance knows"
);

/// Why an instance gives up that registered.
const NO_LOCK: &str = "its session does not hold the lock that it took: a transaction pooler cannot carry it";

/// Whether this session holds the lock of a row of `instances`.
macro_rules! holds_lock {
    () => {
        "EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND pid = pg_backend_pid()
                AND (classid::bigint << 32) | objid::bigint = instances.lock_key
        )"
    };
}

const HEARTBEAT: &str =
    concat!("UPDATE instances SET heartbeat_at = now() WHERE id = $1 RETURNING ", holds_lock!());

const IS_THERE: &str = concat!("SELECT ", holds_lock!(), " FROM instances WHERE id = $1");

/// What an instance says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceInfo {
    /// The host that it runs on.
    pub hostname: String,
    /// Its process there.
    pub pid: u32,
    /// The program's version.
    pub version: String,
}

/// The session that proves this process alive, and its identity for as long as the session lasts.
///
/// Dropping it ends the session, so that other instances take over at once; [`Liveness::close`] does so in order.
#[derive(Debug)]
pub struct Liveness {
    instance: InstanceId,
    channel: String,
    client: Arc<Client>,
    lost: CancellationToken,
    is_driving: watch::Sender<bool>,
    keeper: AbortOnDropHandle<()>,
    driver: AbortOnDropHandle<()>,
}

impl Liveness {
    /// After this long without an answer an instance fences itself: sooner than the server ends the session, because
    /// from then on its runs may be taken over.
    pub const SELF_FENCING_LIMIT: Duration =
        ConnectOptions::SILENT_PEER_LIMIT.saturating_sub(Duration::from_secs(3));

    /// The greatest age of a healthy instance's heartbeat. It is written every ten seconds while runs are driven, else
    /// every thirty, and each write is answered within [`Self::SELF_FENCING_LIMIT`].
    pub const HEARTBEAT_LIMIT: Duration =
        keeper::IDLE_PROOF_INTERVAL.saturating_add(Self::SELF_FENCING_LIMIT);

    /// Opens the session (directly, not through a transaction pooler), takes the lock of a new identity and inserts
    /// its row.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`], also if the session does not hold the lock that it took, or
    /// [`DatabaseError::NoSchema`]; a row that may be left is recovered as dead.
    pub async fn begin(options: &ConnectOptions, info: &InstanceInfo) -> Result<Self, DatabaseError> {
        let (client, connection) = options.with_silent_peer_limit(PEER_PROBE, PEER_LIMIT).open().await?;
        let lost = CancellationToken::new();
        let ended = lost.clone();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = %error, "the liveness session ended");
            }
            ended.cancel();
        }));
        let instance = InstanceId::new();
        let channel = register(&client, instance, info).await?;
        let client = Arc::new(client);
        let proofs = Proofs::prepare(&client)
            .await
            .map_err(|error| DatabaseError::session("registering this instance", error))?;
        let asker = Asker { client: Arc::clone(&client), proofs, instance };
        let proved = asker.ask(Proof::IsThere).await;
        if proved.map_err(|error| DatabaseError::session("registering this instance", error))?
            != Proved::Alive
        {
            return Err(DatabaseError::connection("registering this instance", NO_LOCK));
        }
        // Until the first report, assume that runs are driven.
        let (is_driving, driving) = watch::channel(true);
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper::keep(asker, driving, lost.clone())));
        Ok(Self { instance, channel, client, lost, is_driving, keeper, driver })
    }

    /// The identity that the lock proves.
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Cancelled when the session ended, or has not answered for [`Self::SELF_FENCING_LIMIT`]: every run that was
    /// claimed under this identity must stop.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Reports whether runs are driven under this identity: the session is probed often only then. Before the first
    /// report, runs are assumed.
    pub fn set_driving(&self, is_driving: bool) {
        self.is_driving.send_if_modified(|told| std::mem::replace(told, is_driving) != is_driving);
    }

    /// Marks this instance as draining.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn announce_draining(&self) -> Result<(), DatabaseError> {
        let sql = "UPDATE instances SET state = 'draining', heartbeat_at = now() WHERE id = $1";
        self.execute(sql, "announcing that this instance drains").await
    }

    /// Ends the identity: deletes its row, unless runs still name it (they are then recovered by another instance),
    /// and ends the session.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]; the session is ended even so.
    pub async fn close(self) -> Result<(), DatabaseError> {
        let sql =
            "DELETE FROM instances WHERE id = $1 AND NOT EXISTS (SELECT FROM active_runs WHERE owner = $1)";
        let deleted = self.execute(sql, "ending this instance").await;
        // The others do not know when waiting runs come due. Without this they poll as well, only later.
        let parameters: [&(dyn ToSql + Sync); 1] = [&self.channel];
        let notify = self.client.execute("SELECT pg_notify($1, 'r')", &parameters);
        tokio::time::timeout(Self::SELF_FENCING_LIMIT, notify).await.ok();
        self.keeper.abort();
        let Self { client, keeper, driver, lost, .. } = self;
        // It was just aborted, so its result says nothing.
        keeper.await.ok();
        drop(client);
        driver.await.ok();
        lost.cancel();
        deleted
    }

    async fn execute(&self, sql: &'static str, doing: &'static str) -> Result<(), DatabaseError> {
        let id = self.instance.as_uuid();
        match tokio::time::timeout(Self::SELF_FENCING_LIMIT, self.client.execute(sql, &[&id])).await {
            Ok(done) => done.map(|_| ()).map_err(|error| DatabaseError::session(doing, error)),
            Err(elapsed) => Err(DatabaseError::timed_out(doing, elapsed)),
        }
    }
}

/// Returns the channel on which instances wake each other.
async fn register(client: &Client, id: InstanceId, info: &InstanceInfo) -> Result<String, DatabaseError> {
    let failed = |error| DatabaseError::session("registering this instance", error);
    let schema: Option<String> =
        client.query_one("SELECT current_schema()::text", &[]).await.map_err(failed)?.get(0);
    let schema = schema.ok_or(DatabaseError::NoSchema)?;
    let key = lock_key(&schema, LockOf::Instance(id));
    // A host that vanishes closes no connection, so the server must probe as well, as often as the client.
    let keepalives = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; \
                      SET statement_timeout = 0; SET idle_session_timeout = 0";
    client.batch_execute(keepalives).await.map_err(failed)?;
    // The lock before the row: else others could see the row of an instance that looks dead.
    client.execute("SELECT pg_advisory_lock($1)", &[&key]).await.map_err(failed)?;
    client
        .execute(
            "INSERT INTO instances (id, lock_key, hostname, pid, version) VALUES ($1, $2, $3, $4, $5)",
            &[
                &id.as_uuid(),
                &key,
                &info.hostname,
                &i32::try_from(info.pid).unwrap_or(i32::MAX),
                &info.version,
            ],
        )
        .await
        .map_err(failed)?;
    Ok(wake_channel(&schema))
}

/// The frequent queries, prepared: else each takes three round trips.
struct Proofs {
    heartbeat: Statement,
    is_there: Statement,
}

impl Proofs {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { heartbeat: client.prepare(HEARTBEAT).await?, is_there: client.prepare(IS_THERE).await? })
    }
}

/// Probes through the session.
struct Asker {
    client: Arc<Client>,
    proofs: Proofs,
    instance: InstanceId,
}

impl Ask for Asker {
    type Error = tokio_postgres::Error;

    fn instance(&self) -> InstanceId {
        self.instance
    }

    async fn ask(&self, proof: Proof) -> Result<Proved, Self::Error> {
        let statement = match proof {
            Proof::IsThere => &self.proofs.is_there,
            Proof::Heartbeat => &self.proofs.heartbeat,
        };
        let row = self.client.query_opt(statement, &[&self.instance.as_uuid()]).await?;
        Ok(match row.map(|row| row.get(0)) {
            Some(true) => Proved::Alive,
            Some(false) => Proved::LockGone,
            None => Proved::RowGone,
        })
    }
}

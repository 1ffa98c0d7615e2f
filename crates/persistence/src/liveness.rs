//! Being alive: one session of its own that holds an advisory lock for as long as the process lives.
//!
//! When a process dies, PostgreSQL ends its session and gives the lock back at once: whoever then gets it knows. Owns the
//! `instances` rows. Never knows what the instance executes.

use std::sync::Arc;
use std::time::Duration;

use gathering_domain::InstanceId;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::connect::ConnectOptions;
use crate::error::DatabaseError;
use crate::keys::{LockOf, lock_key, wake_channel};

/// How often the session is asked for a sign of life.
const PROOF_INTERVAL: Duration = Duration::from_secs(2);

/// Every how many proofs the heartbeat is written: rows are dearer than questions.
const PROOFS_PER_HEARTBEAT: u32 = 5;

/// What a late question is given at least: a process that was stopped and goes on asks before it despairs.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// What an instance tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceInfo {
    /// The host that it runs on.
    pub hostname: String,
    /// Its process there.
    pub pid: u32,
    /// The program's version.
    pub version: String,
}

/// The proof that this process is alive, and its identity for as long as the proof holds.
///
/// Dropping it ends the session, so that other instances take over at once; [`Liveness::close`] does so in order.
#[derive(Debug)]
pub struct Liveness {
    instance: InstanceId,
    channel: String,
    client: Arc<Client>,
    lost: CancellationToken,
    keeper: AbortOnDropHandle<()>,
    driver: AbortOnDropHandle<()>,
}

impl Liveness {
    /// From when on an instance that gets no answer takes itself for dead: sooner than the server does, because its
    /// runs may be taken over from then on.
    pub const SELF_FENCING_LIMIT: Duration =
        ConnectOptions::SILENT_PEER_LIMIT.saturating_sub(Duration::from_secs(3));

    /// Opens the session (directly, not through a transaction pooler), takes the lock of a new identity and inserts
    /// its row.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::NoSchema`]; a row that may be left is recovered as dead.
    pub async fn begin(options: &ConnectOptions, info: &InstanceInfo) -> Result<Self, DatabaseError> {
        let (client, connection) = options.open().await?;
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
        let keeper = keep(Arc::clone(&client), proofs, instance, lost.clone());
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper));
        Ok(Self { instance, channel, client, lost, keeper, driver })
    }

    /// The identity that the lock proves.
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Cancelled from the moment that the session ended or gave no sign of life for [`Self::SELF_FENCING_LIMIT`]:
    /// everything that was claimed under this identity must stop.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Says that this instance takes no more work.
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
        let sql = "DELETE FROM instances WHERE id = $1 AND NOT EXISTS (SELECT FROM runs WHERE owner = $1)";
        let deleted = self.execute(sql, "ending this instance").await;
        // Nobody else knows when the runs that wait come due. Without it they look all the same, only later.
        let parameters: [&(dyn ToSql + Sync); 1] = [&self.channel];
        let notify = self.client.execute("SELECT pg_notify($1, 'r')", &parameters);
        tokio::time::timeout(Self::SELF_FENCING_LIMIT, notify).await.ok();
        self.keeper.abort();
        let Self { client, keeper, driver, lost, .. } = self;
        // Aborted just now: there is nothing to learn from how it ended.
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
            Err(elapsed) => Err(DatabaseError::session(doing, elapsed)),
        }
    }
}

/// Answers with the channel on which instances wake each other.
async fn register(client: &Client, id: InstanceId, info: &InstanceInfo) -> Result<String, DatabaseError> {
    let failed = |error| DatabaseError::session("registering this instance", error);
    let schema: Option<String> =
        client.query_one("SELECT current_schema()::text", &[]).await.map_err(failed)?.get(0);
    let schema = schema.ok_or(DatabaseError::NoSchema)?;
    let key = lock_key(&schema, LockOf::Instance(id));
    // A host that vanishes says no farewell: the server is told to ask, as often as the client does.
    let keepalives = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; \
                      SET statement_timeout = 0; SET idle_session_timeout = 0";
    client.batch_execute(keepalives).await.map_err(failed)?;
    // The lock before the row: nobody may see the row of an instance that looks dead.
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

/// Asks for signs of life until one fails to come; then cancels `lost`.
async fn keep(client: Arc<Client>, proofs: Proofs, id: InstanceId, lost: CancellationToken) {
    let mut last_proof = Instant::now();
    let mut n_proofs: u32 = 0;
    loop {
        tokio::select! {
            () = lost.cancelled() => return,
            () = tokio::time::sleep(PROOF_INTERVAL) => {}
        }
        n_proofs = n_proofs.wrapping_add(1);
        // We are believed until the start of the last proof plus the limit: a slow answer must not stretch that.
        let start = Instant::now();
        let patience = Liveness::SELF_FENCING_LIMIT.saturating_sub(start - last_proof).max(LEAST_PATIENCE);
        let is_heartbeat = n_proofs.is_multiple_of(PROOFS_PER_HEARTBEAT);
        match tokio::time::timeout(patience, proofs.ask(&client, id, is_heartbeat)).await {
            Ok(Ok(true)) => last_proof = start,
            Ok(Ok(false)) => return give_up(&lost, id, "its row is gone: it was taken for dead"),
            Ok(Err(error)) => return give_up(&lost, id, &error.to_string()),
            Err(_elapsed) => return give_up(&lost, id, "the database did not answer in time"),
        }
    }
}

/// The questions that are asked all the time, prepared: else each is three round trips.
struct Proofs {
    heartbeat: Statement,
    is_there: Statement,
}

impl Proofs {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let heartbeat = client.prepare("UPDATE instances SET heartbeat_at = now() WHERE id = $1").await?;
        let is_there = client.prepare("SELECT FROM instances WHERE id = $1").await?;
        Ok(Self { heartbeat, is_there })
    }

    async fn ask(
        &self,
        client: &Client,
        id: InstanceId,
        is_heartbeat: bool,
    ) -> Result<bool, tokio_postgres::Error> {
        let statement = if is_heartbeat { &self.heartbeat } else { &self.is_there };
        Ok(client.execute(statement, &[&id.as_uuid()]).await? == 1)
    }
}

fn give_up(lost: &CancellationToken, id: InstanceId, reason: &str) {
    tracing::error!(instance.id = %id, reason, "instance {id} lost its liveness: {reason}");
    lost.cancel();
}

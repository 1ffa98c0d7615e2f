//! Connections that are driven by the task that waits for an answer, and their pool.
//!
//! A connection is usually driven by a task of its own, so that an answer wakes that task first and then the one that
//! waits for it. Of the time of a short commit that is a large part, above all where the second task wakes on another
//! thread. The engine executes its statements one after the other in tasks that do nothing else meanwhile, so these
//! tasks can drive the socket themselves.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use deadpool::managed::{Manager, Metrics, Object, Pool, RecycleError, RecycleResult};
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager as _};
use futures::task::AtomicWaker;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Connection, Socket};

use crate::db::connect::{ConnectOptions, SessionSettings, set_up};
use crate::db::error::DatabaseError;
use crate::db::pool::PoolSettings;
use crate::db::stale_statements::has_stale_statement;

/// How often the socket and the query are polled in turn before the task yields: what was received leads to a query,
/// and that is sent. More would only spin while the runtime wants this task to pause.
const MAX_TURNS: usize = 3;

type Transactions = <AsyncPgConnection as AsyncConnection>::TransactionManager;

/// A connection without a task of its own.
pub(crate) struct DirectConnection {
    conn: AsyncPgConnection,
    wire: Wire,
}

/// Its socket.
pub(crate) struct Wire {
    /// None once it was closed: dropping it is what informs the waiting queries.
    connection: Option<Connection<Socket, NoTlsStream>>,
    /// Whether a query was sent whose answer was not awaited.
    is_busy: bool,
    turns: Arc<Turns>,
}

/// Wakes the task that waits for an answer, unless the event is about to be polled anyway: a query wakes the driver of
/// the socket, which is polled next. A task that wakes itself would go to the end of the queue, and wake another thread
/// to take it from there.
#[derive(Default)]
struct Turns {
    waiting: AtomicWaker,
    is_turning: AtomicBool,
    is_woken: AtomicBool,
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        if !self.is_turning.load(Ordering::SeqCst) {
            self.waiting.wake();
        }
    }
}

/// A [`DirectConnection`] that goes back to its pool when it is dropped; one that is dropped before its answer came is
/// closed.
pub(crate) type PooledDirect = Object<DirectManager>;

impl DirectConnection {
    /// Opens one whose statements take at most as long as the settings say, and are planned once.
    async fn open(options: &ConnectOptions, settings: PoolSettings) -> Result<Self, DatabaseError> {
        let (client, connection) = options.open().await?;
        let mut wire = Wire { connection: Some(connection), is_busy: false, turns: Arc::default() };
        let set_up = async {
            let conn = AsyncPgConnection::try_from(client).await;
            set_up(conn, SessionSettings::Engine(settings.statement_timeout)).await
        };
        let conn = wire.carry(set_up).await?;
        Ok(Self { conn, wire })
    }

    /// The client that executes statements, and the connection that must be polled with it.
    pub(crate) fn parts(&mut self) -> (&mut AsyncPgConnection, &mut Wire) {
        (&mut self.conn, &mut self.wire)
    }
}

impl Wire {
    /// Does `work`, which executes statements on this connection, and drives the socket meanwhile. Notices and
    /// notifications are discarded.
    ///
    /// Cancellation: if dropped, it is unknown what of the work took place, and the connection is not used again.
    pub(crate) async fn carry<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        self.is_busy = true;
        let turns = Arc::clone(&self.turns);
        let waker = Waker::from(Arc::clone(&turns));
        let done = poll_fn(|context| {
            turns.waiting.register(context.waker());
            let mut own = Context::from_waker(&waker);
            for _ in 0..MAX_TURNS {
                turns.is_turning.store(true, Ordering::SeqCst);
                turns.is_woken.store(false, Ordering::SeqCst);
                self.turn(&mut own);
                if let Poll::Ready(done) = work.as_mut().poll(&mut own) {
                    return Poll::Ready(done);
                }
                turns.is_turning.store(false, Ordering::SeqCst);
                if !turns.is_woken.load(Ordering::SeqCst) {
                    return Poll::Pending;
                }
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.is_busy = false;
        done
    }

    /// Receives and sends what is possible without waiting.
    fn turn(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(context).is_ready()
        {
            self.connection = None;
        }
    }
}

/// Opens the connections of a pool.
pub(crate) struct DirectManager {
    options: ConnectOptions,
    settings: PoolSettings,
}

impl Manager for DirectManager {
    type Type = DirectConnection;
    type Error = DatabaseError;

    async fn create(&self) -> Result<DirectConnection, DatabaseError> {
        DirectConnection::open(&self.options, self.settings).await
    }

    async fn recycle(&self, own: &mut DirectConnection, _: &Metrics) -> RecycleResult<DatabaseError> {
        // No task polled it since its last use.
        poll_fn(|context| {
            own.wire.turn(context);
            Poll::Ready(())
        })
        .await;
        let is_broken =
            Transactions::is_broken_transaction_manager(&mut own.conn) || has_stale_statement(&mut own.conn);
        if own.wire.connection.is_none() || own.wire.is_busy || is_broken {
            return Err(RecycleError::message(
                "the connection was closed, left in the middle of something, or lacks a statement",
            ));
        }
        Ok(())
    }
}

/// A pool of such connections, with none in it.
pub(crate) fn open_pool(
    options: &ConnectOptions,
    settings: PoolSettings,
) -> Result<Pool<DirectManager>, DatabaseError> {
    Pool::builder(DirectManager { options: options.clone(), settings })
        .max_size(settings.max_size.max(1))
        .queue_mode(deadpool::managed::QueueMode::Lifo)
        .build()
        .map_err(|error| DatabaseError::connection("making the connection pool", error))
}

//! The least that a server of this kind can be: the same HTTP library, the same database, and nothing between them.

use std::cell::Cell;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use actix_web::dev::ServerHandle;
use actix_web::http::header::ContentType;
use actix_web::rt::System;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, NoTls, Statement};

/// The most connections of all workers together: as many as the server's pool has.
const N_CONNECTIONS: usize = 16;

/// A running server in this process.
pub(crate) struct BareServer {
    address: String,
    handle: ServerHandle,
    thread: JoinHandle<Result<()>>,
}

impl BareServer {
    /// Serves `/nothing`, and `/queries`, which sends two trivial queries to this database, one after the other.
    pub(crate) fn start(database_url: String) -> Result<BareServer> {
        let (sender, receiver) = channel();
        let thread = thread::spawn(move || System::new().block_on(serve(database_url, sender)));
        match receiver.recv() {
            Ok((address, handle)) => Ok(BareServer { address, handle, thread }),
            Err(_) => match thread.join() {
                Ok(ended) => ended.and_then(|()| bail!("the bare server ended")),
                Err(_) => bail!("the bare server panicked"),
            },
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Stops it and waits until it has ended.
    pub(crate) fn stop(self) -> Result<()> {
        System::new().block_on(self.handle.stop(false));
        self.thread.join().unwrap_or_else(|_| bail!("the bare server panicked"))
    }
}

/// A session for a trivial query, with a statement that is prepared once.
pub(crate) struct Select {
    client: Client,
    statement: Statement,
}

impl Select {
    /// A session of its own, driven by the runtime that this is called on.
    pub(crate) async fn connect(database_url: &str) -> Result<Select> {
        let (client, connection) = tokio_postgres::connect(database_url, NoTls).await?;
        // Ends with its client.
        tokio::task::spawn(connection);
        let statement = client.prepare("SELECT 1").await?;
        Ok(Select { client, statement })
    }

    /// The cheapest query there is.
    pub(crate) async fn ask(&self) -> Result<()> {
        self.client.query_one(&self.statement, &[]).await?;
        Ok(())
    }
}

/// The sessions of one worker, taken in turn.
struct Sessions {
    sessions: Vec<Select>,
    next: Cell<usize>,
}

impl Sessions {
    async fn connect(database_url: String, n_sessions: usize) -> Result<Sessions> {
        let mut sessions = Vec::new();
        for _ in 0..n_sessions {
            sessions.push(Select::connect(&database_url).await?);
        }
        Ok(Sessions { sessions, next: Cell::new(0) })
    }

    async fn ask(&self) -> Result<()> {
        let turn = self.next.replace(self.next.get().wrapping_add(1));
        self.sessions.get(turn % self.sessions.len()).context("no session")?.ask().await
    }
}

async fn serve(database_url: String, started: Sender<(String, ServerHandle)>) -> Result<()> {
    let n_workers = thread::available_parallelism()?.get();
    let n_sessions = N_CONNECTIONS.div_ceil(n_workers);
    let server = HttpServer::new(move || {
        let database_url = database_url.clone();
        App::new()
            .data_factory(move || Sessions::connect(database_url.clone(), n_sessions))
            .route("/nothing", web::get().to(nothing))
            .route("/queries", web::get().to(queries))
    });
    let server = server.workers(n_workers).disable_signals().bind("127.0.0.1:0")?;
    let address = server.addrs().first().context("the bare server has no address")?.to_string();
    let server = server.run();
    started.send((address, server.handle())).context("the bare server has no receiver any more")?;
    Ok(server.await?)
}

async fn nothing() -> HttpResponse {
    answer()
}

async fn queries(sessions: web::Data<Sessions>) -> HttpResponse {
    match async { sessions.ask().await.and(sessions.ask().await) }.await {
        Ok(()) => answer(),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

fn answer() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(r#"{"status":"ok"}"#)
}

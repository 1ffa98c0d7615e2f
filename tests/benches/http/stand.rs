//! The server that is measured: its own process, its own schema, and accounts to log in to.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gathering_e2e::{Database, Server};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::LEAST_COST;
use crate::connection::{Connection, post};

const PASSWORD: &str = "correct horse battery staple";
const WRONG_PASSWORD: &str = "correct horse battery stable";

/// Enough that no account is special; few enough to be made quickly at the usual cost.
const N_ACCOUNTS: usize = 8;

/// A running server. Ends, with its schema, when this is dropped.
pub(crate) struct Stand {
    /// bcrypt's cost.
    pub(crate) cost: u32,
    /// Accounts that log in with [`login_request`].
    pub(crate) active: Vec<String>,
    /// Accounts that are disabled.
    pub(crate) disabled: Vec<String>,
    /// Accounts whose hash is of a lower cost, as before the operator raised it. None at the least cost of all.
    pub(crate) outdated: Vec<String>,
    // In this order they are dropped.
    server: Server,
    database: Database,
    runtime: Runtime,
}

impl Stand {
    /// Starts a server that hashes with `cost`, limits no rate, and believes what address a request says it is from.
    pub(crate) fn start(cost: u32) -> Result<Stand> {
        eprintln!("starting a server at bcrypt cost {cost}");
        let runtime = Runtime::new()?;
        let (database, server) = runtime.block_on(async {
            let database = Database::empty().await?;
            let server = Server::start_with(&database, |command| {
                command
                    .env("GATHERING_BCRYPT_COST", cost.to_string())
                    .env("GATHERING_RATE_LIMITS", "off")
                    .env("GATHERING_TRUSTED_PROXIES", "127.0.0.0/8");
            });
            let server = server.await?;
            anyhow::Ok((database, server))
        })?;
        let (active, disabled, outdated) = Default::default();
        let mut stand = Stand { cost, active, disabled, outdated, server, database, runtime };
        stand.active = stand.register_some()?;
        stand.disabled = stand.register_some()?;
        stand.query("UPDATE users SET is_active = false WHERE email = ANY ($1)", &[&stand.disabled])?;
        if cost > LEAST_COST {
            stand.outdated = stand.register_some()?;
            let hash = bcrypt::hash(PASSWORD, cost - 1)?;
            let sql = "UPDATE users SET password_hash = $2 WHERE email = ANY ($1)";
            stand.query(sql, &[&stand.outdated, &hash])?;
        }
        Ok(stand)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.server.address()
    }

    /// A connection of its own.
    pub(crate) fn connection(&self) -> Result<Connection> {
        Connection::open(self.address())
    }

    /// The access token of a new session.
    pub(crate) fn log_in(&self) -> Result<String> {
        let request = login_request(&self.active[0]);
        self.connection()?.exchange(&request)?.expect(200)?.text_of("access_token")
    }

    /// Asks the server's database.
    pub(crate) fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>> {
        self.runtime.block_on(async { Ok(self.database.session().await?.query(sql, parameters).await?) })
    }

    /// The times of the smallest commits, one after the other for so long: one row each, on a connection of its own.
    pub(crate) fn commits(&self, duration: Duration) -> Result<Vec<Duration>> {
        self.runtime.block_on(async {
            let session = self.database.session().await?;
            session.batch_execute("CREATE TABLE IF NOT EXISTS bare_commits (content text)").await?;
            let insert = session.prepare("INSERT INTO bare_commits (content) VALUES ('x')").await?;
            let (start, mut times) = (Instant::now(), Vec::new());
            while start.elapsed() < duration {
                let begin = Instant::now();
                session.execute(&insert, &[]).await?;
                times.push(begin.elapsed());
            }
            Ok(times)
        })
    }

    /// Where the server's database is.
    pub(crate) fn database_url(&self) -> Result<String> {
        let mut command = Command::new("nothing");
        self.database.configure(&mut command);
        let mut variables = command.get_envs();
        let url = variables.find(|(name, _)| *name == "DATABASE_URL").and_then(|(_, value)| value);
        Ok(url.and_then(|url| url.to_str()).context("the server has no database of its own")?.to_owned())
    }

    /// The text of the keys that the server encrypts tokens with.
    pub(crate) fn token_keys(&self) -> Result<String> {
        std::fs::read_to_string(self.database.data_dir().join("token.key")).context("the server made no key")
    }

    fn register_some(&self) -> Result<Vec<String>> {
        let mut connection = self.connection()?;
        let register = |_| {
            let email = fresh_email();
            connection.exchange(&registration_request(&email))?.expect(201)?;
            Ok(email)
        };
        (0..N_ACCOUNTS).map(register).collect()
    }
}

/// An e-mail without an account; all are equally long.
pub(crate) fn fresh_email() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("account-{:08}@example.org", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A registration with the password of all accounts.
pub(crate) fn registration_request(email: &str) -> Vec<u8> {
    post("/api/v1/auth/register", &json!({"email": email, "name": "Ada", "password": PASSWORD}))
}

/// A login with the password of all accounts.
pub(crate) fn login_request(email: &str) -> Vec<u8> {
    post("/api/v1/auth/login", &credentials(email, PASSWORD))
}

/// A login with another password.
pub(crate) fn wrong_login_request(email: &str) -> Vec<u8> {
    post("/api/v1/auth/login", &credentials(email, WRONG_PASSWORD))
}

fn credentials(email: &str, password: &str) -> Value {
    json!({"email": email, "password": password})
}

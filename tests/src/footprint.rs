//! What a server holds: of the system, and of its database.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Server, wait_until};

/// What one server holds at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Its threads.
    pub n_threads: usize,
    /// Its open files and connections.
    pub n_files: usize,
    /// The connections that it has made or taken, of those.
    pub n_sockets: usize,
    /// The memory that it holds, in bytes.
    pub resident_bytes: u64,
    /// Its database sessions.
    pub n_sessions: usize,
    /// Those of them that are in a transaction.
    pub n_transactions: usize,
    /// The advisory locks that these hold.
    pub n_locks: usize,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} threads, {} files of which {} sockets, {} KiB resident, {} sessions of which {} in a transaction, \
             {} advisory locks",
            self.n_threads,
            self.n_files,
            self.n_sockets,
            self.resident_bytes / 1024,
            self.n_sessions,
            self.n_transactions,
            self.n_locks
        )
    }
}

impl Footprint {
    /// That of a server whose database sessions have this application name.
    ///
    /// # Errors
    /// If the server has ended, or the database does not answer.
    pub async fn of(
        server: &Server,
        application: &str,
        session: &tokio_postgres::Client,
    ) -> Result<Footprint> {
        let process = format!("/proc/{}", server.id());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.with_context(|| format!("no {name}"))?;
            Ok(value.trim().trim_end_matches(" kB").parse()?)
        };
        let (mut n_files, mut n_sockets) = (0, 0);
        for entry in fs::read_dir(format!("{process}/fd"))? {
            // One that was closed between the listing and this read counts as open: the next read sees it.
            let target = fs::read_link(entry?.path()).unwrap_or_default();
            n_files += 1;
            n_sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
        }
        let sessions = "SELECT count(*), count(*) FILTER (WHERE xact_start IS NOT NULL), \
                        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid IN \
                        (SELECT pid FROM pg_stat_activity WHERE application_name = $1)) \
                        FROM pg_stat_activity WHERE application_name = $1";
        let row = session.query_one(sessions, &[&application]).await?;
        let count = |index: usize| usize::try_from(row.get::<_, i64>(index));
        Ok(Footprint {
            n_threads: usize::try_from(field("Threads:")?)?,
            n_files,
            n_sockets,
            resident_bytes: field("VmRSS:")? * 1024,
            n_sessions: count(0)?,
            n_transactions: count(1)?,
            n_locks: count(2)?,
        })
    }

    /// That of a server at rest: once nothing but its memory has changed for fifty looks.
    ///
    /// # Errors
    /// As [`Footprint::of`], or if `limit` passes first.
    pub async fn at_rest(
        server: &Server,
        application: &str,
        session: &tokio_postgres::Client,
        limit: Duration,
    ) -> Result<Footprint> {
        let mut last: Option<Footprint> = None;
        let mut n_same = 0;
        wait_until(limit, "the server is at rest", async || {
            let now =
                Footprint::of(server, application, session).await.map_err(|error| format!("{error:#}"))?;
            let is_same = last.as_ref().is_some_and(|last| last.is_held_by(&now) && now.is_held_by(last));
            n_same = if is_same { n_same + 1 } else { 0 };
            let said = now.to_string();
            last = Some(now.clone());
            if n_same >= 50 && now.n_transactions == 0 { Ok(now) } else { Err(said) }
        })
        .await
    }

    /// Whether `other` holds at least as much of everything but memory.
    pub fn is_held_by(&self, other: &Footprint) -> bool {
        self.n_threads <= other.n_threads
            && self.n_files <= other.n_files
            && self.n_sockets <= other.n_sockets
            && self.n_sessions <= other.n_sessions
            && self.n_transactions <= other.n_transactions
            && self.n_locks <= other.n_locks
    }
}

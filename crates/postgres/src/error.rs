//! What can go wrong with a cluster, told to the operator who can mend it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a cluster could not be found, started, used or stopped.
///
/// Whatever the variant, no data of the cluster was changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No usable PostgreSQL installation; nothing was created.
    #[error(
        "no PostgreSQL 15 or newer found ({looked}); install it (`apt-get install postgresql`, `brew install \
         postgresql@17`), or set DATABASE_URL to use a server that runs elsewhere"
    )]
    NoBinaries {
        /// Where it was looked for, and why each place did not do.
        looked: String,
    },
    /// The download of PostgreSQL failed; nothing was installed.
    #[error(
        "no PostgreSQL found on this machine ({looked}), and downloading one failed; install it (`apt-get install \
         postgresql`), or set DATABASE_URL to use a server that runs elsewhere"
    )]
    Download {
        /// Where it was looked for, and why each place did not do.
        looked: String,
        /// What the download said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process owns the data directory; it was left alone.
    #[error(
        "the data directory {} is in use by {}; stop that process, choose another directory with \
         GATHERING_DATA_DIR, or set DATABASE_URL so that both share one database", data_dir.display(), holder_text(*holder)
    )]
    Locked {
        /// The data directory.
        data_dir: PathBuf,
        /// The process that holds it, where it could be read.
        holder: Option<u32>,
    },
    /// Root cannot run PostgreSQL and there is nobody to run it as.
    #[error(
        "PostgreSQL refuses to run as root, and neither of the users postgres and nobody exists; create one"
    )]
    NoServerUser,
    /// The cluster belongs to somebody else.
    #[error(
        "the cluster {} belongs to user id {owner}, but this process runs as {current}; start it as that user or \
         as root, or choose another directory with GATHERING_DATA_DIR", cluster_dir.display()
    )]
    ForeignOwner {
        /// The cluster's directory.
        cluster_dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        current: u32,
    },
    /// The user who must run the cluster cannot enter its directory.
    #[error(
        "user {user} owns the cluster {} but cannot reach it; give that user search permission (chmod o+x) on the \
         directories above it", cluster_dir.display()
    )]
    Unreachable {
        /// The cluster's directory.
        cluster_dir: PathBuf,
        /// The name of the user.
        user: String,
    },
    /// The cluster was made by another major version.
    #[error(
        "the cluster {} was made by PostgreSQL {cluster}, but only version {binaries} was found; install version \
         {cluster}, or move the cluster with pg_upgrade", cluster_dir.display()
    )]
    WrongVersion {
        /// The cluster's directory.
        cluster_dir: PathBuf,
        /// The cluster's major version.
        cluster: u32,
        /// The binaries' major version.
        binaries: u32,
    },
    /// `initdb` failed; what it had made was removed.
    #[error("initdb failed with {status}: {output}")]
    Initdb {
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// No private directory for the socket could be had.
    #[error("the socket directory {} cannot be used: {reason}", path.display())]
    SocketDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// PostgreSQL ended while it was starting.
    #[error("PostgreSQL ended with {status} while it was starting; the end of {}:\n{log_tail}", log.display())]
    Exited {
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        log_tail: String,
    },
    /// PostgreSQL was not ready in time, and was stopped.
    #[error("PostgreSQL was not ready after {} seconds; the end of {}:\n{log_tail}", waited.as_secs(), log.display())]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        log_tail: String,
    },
    /// PostgreSQL did not end, even after it was killed; it may still run.
    #[error("PostgreSQL (process {pid}) did not end")]
    Stop {
        /// The postmaster.
        pid: u32,
    },
    /// A database's name was not acceptable; nothing was created.
    #[error("{name:?} cannot name a database: use 1 to 63 of a-z, 0-9 and _, starting with a letter")]
    DatabaseName {
        /// The name that was asked for.
        name: String,
    },
    /// PostgreSQL refused a statement.
    #[error("PostgreSQL answered {severity} {code}: {message}")]
    Refused {
        /// ERROR or FATAL.
        severity: String,
        /// The SQLSTATE.
        code: String,
        /// What it said.
        message: String,
    },
    /// The operating system refused something.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What we were doing, as a verb.
        doing: &'static str,
        /// To which file, directory, program or socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ClusterError {
    /// For `map_err` on an I/O call: what we were doing, and to what.
    pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> ClusterError {
        let path = path.as_ref().to_path_buf();
        move |source| ClusterError::Io { doing, path, source }
    }
}

fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

//! Errors of a cluster, in words for the operator.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a cluster could not be found, started, used or stopped.
///
/// No variant means that data of the cluster was changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No usable PostgreSQL installation was found; nothing was created.
    #[error(
        "no PostgreSQL 15 or newer found ({looked}); install it (`apt-get install postgresql`, `brew install \
         postgresql@17`), or set DATABASE_URL to use a server that runs elsewhere"
    )]
    NoBinaries {
        /// The directories searched, and why each was rejected.
        looked: String,
    },
    /// The download of PostgreSQL failed; nothing was installed.
    #[error(
        "no PostgreSQL found on this machine ({looked}), and downloading one failed; install it (`apt-get install \
         postgresql`), or set DATABASE_URL to use a server that runs elsewhere"
    )]
    Download {
        /// The directories searched, and why each was rejected.
        looked: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process owns the data directory; nothing was changed.
    #[error(
        "the data directory {} is in use by {}; stop that process, choose another directory with \
         GATHERING_DATA_DIR, or set DATABASE_URL so that both share one database", data_dir.display(), holder_text(*holder)
    )]
    Locked {
        /// The data directory.
        data_dir: PathBuf,
        /// The process that owns it, if known.
        holder: Option<u32>,
    },
    /// Root cannot run PostgreSQL, and no unprivileged user exists to run it.
    #[error(
        "PostgreSQL refuses to run as root, and neither of the users postgres and nobody exists; create one"
    )]
    NoServerUser,
    /// The cluster belongs to another user.
    #[error(
        "the cluster {} belongs to user id {owner}, but this process runs as {current}; start it as that user or \
         as root, or choose another directory with GATHERING_DATA_DIR", cluster_dir.display()
    )]
    ForeignOwner {
        /// The cluster's directory.
        cluster_dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// The current user.
        current: u32,
    },
    /// The user that must run the cluster cannot enter its directory.
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
    /// Another major version created the cluster.
    #[error(
        "the cluster {} was made by PostgreSQL {cluster}, but only version {binaries} was found; install version \
         {cluster}, or move the cluster with pg_upgrade", cluster_dir.display()
    )]
    WrongVersion {
        /// The cluster's directory.
        cluster_dir: PathBuf,
        /// The cluster's major version.
        cluster: u32,
        /// The programs' major version.
        binaries: u32,
    },
    /// `initdb` failed; its output files were removed.
    #[error("initdb failed with {status}: {output}")]
    Initdb {
        /// Its exit status.
        status: String,
        /// Its output.
        output: String,
    },
    /// The private directory for the socket is not usable.
    #[error("cannot use the socket directory {}: {reason}", path.display())]
    SocketDirectory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// PostgreSQL ended while it was starting.
    #[error("PostgreSQL ended with {status} while it was starting; the end of {}:\n{log_tail}", log.display())]
    Exited {
        /// Its exit status.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        log_tail: String,
    },
    /// PostgreSQL was not ready in time and was stopped.
    #[error("PostgreSQL was not ready after {} seconds; the end of {}:\n{log_tail}", waited.as_secs(), log.display())]
    NotReady {
        /// The time limit.
        waited: Duration,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        log_tail: String,
    },
    /// PostgreSQL did not end, even after a kill; it may still be running.
    #[error("PostgreSQL (process {pid}) did not end")]
    Stop {
        /// The postmaster.
        pid: u32,
    },
    /// The name of a database is invalid; nothing was created.
    #[error("invalid database name {name:?}: use 1 to 63 of a-z, 0-9 and _, starting with a letter")]
    DatabaseName {
        /// The requested name.
        name: String,
    },
    /// PostgreSQL rejected a statement.
    #[error("PostgreSQL answered {severity} {code}: {message}")]
    Refused {
        /// ERROR or FATAL.
        severity: String,
        /// The SQLSTATE.
        code: String,
        /// The message.
        message: String,
    },
    /// The operating system reported an error.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file, directory, program or socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ClusterError {
    /// For `map_err` on an I/O call: names the operation and its object.
    pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> ClusterError {
        let path = path.as_ref().to_path_buf();
        move |source| ClusterError::Io { doing, path, source }
    }
}

fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

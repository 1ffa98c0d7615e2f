//! The cluster: starts PostgreSQL with the given settings, and stops it when dropped.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::account::{self, Account};
use crate::initdb::{self, SUPERUSER};
use crate::lock::DirectoryLock;
use crate::postmaster::{Launch, PidFile, Postmaster};
use crate::session::Session;
use crate::{Binaries, ClusterError, binaries, place, probe, socket, temporary};

/// What a crash of the machine may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: committed data stays. For everything except tests.
    Durable,
    /// The whole cluster, because nothing is forced to disk. A crash of processes alone still loses nothing.
    FastForTests,
}

/// The settings of a cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the cluster, its log and its lock. It is created if missing.
    pub data_dir: PathBuf,
    /// The directory of `postgres` and `initdb`; `None` searches PATH and the usual directories.
    pub binaries: Option<PathBuf>,
    /// What a crash of the machine may lose.
    pub durability: Durability,
}

impl Settings {
    /// A durable cluster in `data_dir`, with the PostgreSQL that the search finds.
    pub fn new(data_dir: impl Into<PathBuf>) -> Settings {
        Settings { data_dir: data_dir.into(), binaries: None, durability: Durability::Durable }
    }
}

/// A running PostgreSQL that this process owns.
///
/// Dropping it stops PostgreSQL, as [`Cluster::stop`] does, and logs errors.
#[derive(Debug)]
pub struct Cluster {
    data_dir: PathBuf,
    cluster_dir: PathBuf,
    socket_dir: PathBuf,
    account: Account,
    binaries: Binaries,
    postmaster: Option<Postmaster>,
    is_temporary: bool,
    /// Last, so that it is released after everything else.
    _lock: DirectoryLock,
}

impl Cluster {
    /// Starts the cluster of `settings.data_dir`, and creates it first if it is missing.
    ///
    /// Takes over a PostgreSQL that a killed process left running on the same directory, or restarts it if it runs with
    /// other settings. Blocks: milliseconds for a stopped cluster, seconds to create one, and up to a minute to recover
    /// a large one after a crash.
    ///
    /// # Errors
    /// See [`ClusterError`]; nothing new is running, and no data was changed.
    pub fn start(settings: &Settings) -> Result<Cluster, ClusterError> {
        Unstarted::claim(settings)?.start(settings.durability)
    }

    /// The cluster of `settings.data_dir` if it is running without an owner, as after [`Cluster::detach`].
    ///
    /// # Errors
    /// See [`ClusterError`]; [`ClusterError::Locked`] if it is running and has an owner.
    pub fn find_running(settings: &Settings) -> Result<Option<Cluster>, ClusterError> {
        if !place::entry(&settings.data_dir).exists() {
            return Ok(None);
        }
        Unstarted::claim(settings)?.find_running()
    }

    /// Starts an empty cluster with [`Durability::FastForTests`], which is deleted when it stops.
    ///
    /// First stops and deletes the temporary clusters that killed processes left.
    ///
    /// # Errors
    /// See [`ClusterError`]; nothing remains.
    pub fn temporary() -> Result<Cluster, ClusterError> {
        temporary::sweep();
        let data_dir = temporary::fresh_directory()?;
        let settings = Settings { durability: Durability::FastForTests, ..Settings::new(&data_dir) };
        match Cluster::start(&settings) {
            Ok(mut cluster) => {
                cluster.is_temporary = true;
                Ok(cluster)
            }
            Err(error) => {
                temporary::remove(&data_dir, None);
                Err(error)
            }
        }
    }

    /// The URL of a database, for libpq and tokio-postgres alike: `postgres://gathering@<socket directory>/<name>`.
    ///
    /// It is the same after every start. It contains no secret: anybody who can enter the socket directory is trusted.
    pub fn url(&self, database: &str) -> String {
        let directory = percent_encoded(self.socket_dir.as_os_str().as_bytes());
        format!(
            "postgres://{SUPERUSER}@{directory}:{}/{}",
            socket::PORT,
            percent_encoded(database.as_bytes())
        )
    }

    /// Creates the database if it does not exist. Can be repeated, also from several threads at once.
    ///
    /// # Errors
    /// [`ClusterError::DatabaseName`] unless the name is 1 to 63 of a-z, 0-9 and _, starting with a letter;
    /// [`ClusterError::Refused`] or [`ClusterError::Io`] if PostgreSQL fails: the database may or may not exist.
    pub fn ensure_database(&self, name: &str) -> Result<(), ClusterError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if !starts || name.len() > 63 || !name.bytes().all(plain) {
            return Err(ClusterError::DatabaseName { name: name.to_owned() });
        }
        let mut session =
            Session::open(&socket::path(&self.socket_dir), "postgres", Duration::from_secs(60))?;
        if session.run(&format!("SELECT 1 FROM pg_database WHERE datname = '{name}'"))? > 0 {
            return Ok(());
        }
        match session.run(&format!("CREATE DATABASE \"{name}\" TEMPLATE template0")) {
            // Another session created it between the two statements.
            Err(ClusterError::Refused { code, .. }) if code == "42P04" || code == "23505" => Ok(()),
            created => created.map(|_n_rows| ()),
        }
    }

    /// A client program of PostgreSQL, such as `psql`, configured to connect to this cluster as its superuser.
    pub fn command(&self, program: &str) -> Command {
        let own = self.binaries.program(program);
        let mut command = Command::new(if own.is_file() { own } else { PathBuf::from(program) });
        account::forget_postgres_settings(&mut command);
        command
            .env("PGHOST", &self.socket_dir)
            .env("PGPORT", socket::PORT.to_string())
            .env("PGUSER", SUPERUSER);
        command
    }

    /// The programs that run the cluster.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The directory of the Unix socket, private to the user that runs the cluster.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The directory of the cluster's files: below the data directory, or below /var/lib/gathering.
    pub fn cluster_dir(&self) -> &Path {
        &self.cluster_dir
    }

    /// The process id of the postmaster, for tests that kill it.
    pub fn postmaster_pid(&self) -> u32 {
        self.postmaster.as_ref().map_or(0, Postmaster::pid)
    }

    /// Stops PostgreSQL: rolls back running transactions, ends sessions and writes a checkpoint.
    ///
    /// Blocks until its processes have ended. After 30 seconds it stops without a checkpoint, which loses no data.
    ///
    /// # Errors
    /// [`ClusterError::Stop`] if a process remains; [`ClusterError::Io`] if only the socket directory remains.
    pub fn stop(mut self) -> Result<(), ClusterError> {
        self.shut_down()
    }

    /// Stops PostgreSQL and deletes the cluster with all its data, its log and the link to it.
    ///
    /// # Errors
    /// As [`Cluster::stop`], and [`ClusterError::Io`] if something could not be deleted; the rest may be deleted.
    pub fn destroy(mut self) -> Result<(), ClusterError> {
        self.shut_down()?;
        let delete = |path: &Path| fs::remove_dir_all(path).map_err(ClusterError::io("delete", path));
        delete(&self.cluster_dir)?;
        if let Some(elsewhere) = place::elsewhere_of(&self.cluster_dir) {
            delete(elsewhere)?;
            let link = place::entry(&self.data_dir);
            fs::remove_file(&link).map_err(ClusterError::io("delete", &link))?;
        }
        let log = self.data_dir.join("postgres.log");
        if log.exists() { fs::remove_file(&log).map_err(ClusterError::io("delete", &log)) } else { Ok(()) }
    }

    /// Leaves PostgreSQL running without an owner. The next [`Cluster::start`] or [`Cluster::find_running`] on the data
    /// directory takes it over.
    pub fn detach(mut self) {
        self.postmaster = None;
    }

    fn shut_down(&mut self) -> Result<(), ClusterError> {
        let Some(postmaster) = self.postmaster.take() else { return Ok(()) };
        let stopped = postmaster.stop().and_then(|()| socket::remove(&self.socket_dir, &self.account));
        if self.is_temporary {
            temporary::remove(&self.data_dir, Some(&self.cluster_dir));
        }
        stopped
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(error = %error, "cannot stop the database of {}", self.data_dir.display());
        }
    }
}

/// A data directory that this process owns, with everything needed to start its cluster.
struct Unstarted {
    data_dir: PathBuf,
    account: Account,
    binaries: Binaries,
    cluster_dir: PathBuf,
    socket_dir: PathBuf,
    lock: DirectoryLock,
}

impl Unstarted {
    fn claim(settings: &Settings) -> Result<Unstarted, ClusterError> {
        let data_dir = place::ensure_data_dir(&settings.data_dir)?;
        let lock = DirectoryLock::take(&data_dir)?;
        let account = Account::choose(&place::entry(&data_dir))?;
        let binaries = binaries::find_or_download(settings.binaries.as_deref(), &data_dir, &account)?;
        let cluster_dir = place::settle(&data_dir, &account)?;
        let socket_dir = socket::directory(&data_dir, &account);
        Ok(Unstarted { data_dir, account, binaries, cluster_dir, socket_dir, lock })
    }

    fn start(mut self, durability: Durability) -> Result<Cluster, ClusterError> {
        if !self.cluster_dir.exists() || self.socket_dir.exists() {
            probe::end_those_of_deleted(&self.cluster_dir)?;
        }
        initdb::ensure_cluster(&self.cluster_dir, &self.account, &self.binaries, durability)?;
        self.cluster_dir =
            fs::canonicalize(&self.cluster_dir).map_err(ClusterError::io("resolve", &self.cluster_dir))?;
        let arguments = arguments(&self.cluster_dir, &self.socket_dir, durability);
        let started = self.adopt_or_launch(&arguments);
        // A former owner can have been killed so early that its postmaster wrote the pid file only now.
        let started = match started {
            Err(ClusterError::Exited { .. }) if self.orphan().is_some() => self.adopt_or_launch(&arguments),
            started => started,
        };
        match started {
            Ok(postmaster) => Ok(self.into_cluster(postmaster)),
            Err(error) => {
                socket::remove(&self.socket_dir, &self.account)?;
                Err(error)
            }
        }
    }

    fn adopt_or_launch(&self, arguments: &[OsString]) -> Result<Postmaster, ClusterError> {
        if let Some(mut orphan) = self.orphan() {
            if was_started_with(&self.cluster_dir, arguments) && orphan.answers(&self.socket_dir) {
                let pid = orphan.pid();
                tracing::info!(
                    process.pid = pid,
                    "took over the database that a former process left running"
                );
                return Ok(orphan);
            }
            orphan.stop()?;
        }
        self.check_version()?;
        self.clear_the_way()?;
        Postmaster::start(&Launch {
            account: &self.account,
            binaries: &self.binaries,
            cluster_dir: &self.cluster_dir,
            socket_dir: &self.socket_dir,
            arguments,
            log: &self.data_dir.join("postgres.log"),
        })
    }

    fn find_running(mut self) -> Result<Option<Cluster>, ClusterError> {
        let Some(mut orphan) = self.orphan() else { return Ok(None) };
        if let Some(socket_dir) = PidFile::read(&self.cluster_dir).and_then(|file| file.socket_dir) {
            self.socket_dir = socket_dir;
        }
        Ok(orphan.answers(&self.socket_dir).then(|| self.into_cluster(orphan)))
    }

    /// The postmaster that a former owner left running here.
    fn orphan(&self) -> Option<Postmaster> {
        Postmaster::adopt(PidFile::read(&self.cluster_dir)?.pid, &self.cluster_dir)
    }

    /// Removes what dead processes left. No postmaster of this cluster is running.
    fn clear_the_way(&self) -> Result<(), ClusterError> {
        let pid_file = self.cluster_dir.join("postmaster.pid");
        if let Some(stale) = PidFile::read(&self.cluster_dir) {
            probe::end_leftovers(&self.cluster_dir)?;
            // PostgreSQL itself recognises a dead process, and reads the pid file to find its shared memory. It cannot
            // know that another process got the number, or that the old process has ended without being reaped, which
            // never happens in a container whose first process does not reap.
            if probe::is_number_in_use(stale.pid) {
                fs::remove_file(&pid_file).map_err(ClusterError::io("remove the stale", &pid_file))?;
            }
        } else if pid_file.exists() {
            // Truncated by a crash of the machine.
            fs::remove_file(&pid_file).map_err(ClusterError::io("remove the broken", &pid_file))?;
        }
        socket::prepare(&self.socket_dir, &self.account)
    }

    fn check_version(&self) -> Result<(), ClusterError> {
        let binaries = self.binaries.major_version();
        match place::version(&self.data_dir) {
            Some(cluster) if cluster != binaries => {
                Err(ClusterError::WrongVersion { cluster_dir: self.cluster_dir.clone(), cluster, binaries })
            }
            _ => Ok(()),
        }
    }

    fn into_cluster(self, postmaster: Postmaster) -> Cluster {
        Cluster {
            data_dir: self.data_dir,
            cluster_dir: self.cluster_dir,
            socket_dir: self.socket_dir,
            account: self.account,
            binaries: self.binaries,
            postmaster: Some(postmaster),
            is_temporary: false,
            _lock: self.lock,
        }
    }
}

fn arguments(cluster_dir: &Path, socket_dir: &Path, durability: Durability) -> Vec<OsString> {
    let mut options: Vec<String> = [
        "listen_addresses=",
        "unix_socket_permissions=0700",
        "max_connections=200",
        // For tests that drop many partitioned schemas at once.
        "max_locks_per_transaction=256",
        "shared_buffers=128MB",
        "jit=off",
        "timezone=UTC",
        "log_timezone=UTC",
        "logging_collector=off",
        "log_checkpoints=off",
        // The log must neither fill up with users' data nor show it: no statements, no values of keys.
        "log_error_verbosity=terse",
        "log_min_error_statement=panic",
    ]
    .map(str::to_owned)
    .to_vec();
    options.push(format!("port={}", socket::PORT));
    if durability == Durability::FastForTests {
        // Commits still wait for the write to the system's cache. That is cheap, and a killed server loses nothing.
        let fast = ["fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0"];
        options.extend(fast.map(str::to_owned));
    }
    let mut arguments: Vec<OsString> = vec!["-D".into(), cluster_dir.into()];
    for option in options {
        arguments.extend([OsString::from("-c"), option.into()]);
    }
    let mut directories = OsString::from("unix_socket_directories=");
    directories.push(socket_dir);
    arguments.extend([OsString::from("-c"), directories]);
    arguments
}

/// Whether the running postmaster has these arguments. It wrote them to `postmaster.opts`, each in quotes.
fn was_started_with(cluster_dir: &Path, arguments: &[OsString]) -> bool {
    let quoted: String =
        arguments.iter().map(|argument| format!(" \"{}\"", argument.to_string_lossy())).collect();
    fs::read_to_string(cluster_dir.join("postmaster.opts"))
        .is_ok_and(|options| options.trim_end().ends_with(&quoted))
}

fn percent_encoded(bytes: &[u8]) -> String {
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    bytes.iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_a_url_is_percent_encoded() {
        assert_eq!(percent_encoded(b"/tmp/a b-1"), "%2Ftmp%2Fa%20b-1");
    }
}

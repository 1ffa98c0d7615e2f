//! The postmaster, the main process of a running cluster.
//!
//! Owns its start, the check of a process that a former owner left, and its stop.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::account::Account;
use crate::probe::{self, POLL};
use crate::session::Session;
use crate::{Binaries, ClusterError, log, socket};

/// The time limit of a start. Recovery after a crash reads the write-ahead log since the last checkpoint.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The time limit of a fast shutdown with its checkpoint, before an immediate one.
const FAST_LIMIT: Duration = Duration::from_secs(30);

/// The time limit of an immediate shutdown, before the process is killed.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);

/// A live postmaster that this process may stop.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pid: u32,
    /// Set if it is a child of this process, which must reap it.
    child: Option<Child>,
    cluster_dir: PathBuf,
}

/// The content of `postmaster.pid` (PostgreSQL source, `pidfile.h`).
#[derive(Debug)]
pub(crate) struct PidFile {
    pub(crate) pid: u32,
    pub(crate) socket_dir: Option<PathBuf>,
    status: String,
}

impl PidFile {
    /// Reads the cluster's file; `None` if it is missing or incomplete.
    pub(crate) fn read(cluster_dir: &Path) -> Option<PidFile> {
        let text = fs::read_to_string(cluster_dir.join("postmaster.pid")).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        let line =
            |number: usize| lines.get(number - 1).map(|line| line.trim()).filter(|line| !line.is_empty());
        Some(PidFile {
            pid: line(1)?.trim_start_matches('-').parse().ok()?,
            socket_dir: line(5).map(PathBuf::from),
            status: line(8).unwrap_or_default().to_owned(),
        })
    }
}

/// The parameters of a start.
pub(crate) struct Launch<'a> {
    pub(crate) account: &'a Account,
    pub(crate) binaries: &'a Binaries,
    pub(crate) cluster_dir: &'a Path,
    pub(crate) socket_dir: &'a Path,
    pub(crate) arguments: &'a [OsString],
    pub(crate) log: &'a Path,
}

impl Postmaster {
    /// Starts a postmaster and waits until it answers. Stops it if it does not.
    pub(crate) fn start(launch: &Launch<'_>) -> Result<Postmaster, ClusterError> {
        let log = log::open(launch.log)?;
        let errors = log.try_clone().map_err(ClusterError::io("share", launch.log))?;
        let program = launch.binaries.program("postgres");
        let child = launch
            .account
            .command(&program, launch.cluster_dir)
            .args(launch.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C in a terminal goes to the process group; the cluster must outlive its users.
            .process_group(0)
            .spawn()
            .map_err(ClusterError::io("run", &program))?;
        let mut postmaster =
            Postmaster { pid: child.id(), child: Some(child), cluster_dir: launch.cluster_dir.to_path_buf() };
        match postmaster.wait_until_ready(launch) {
            Ok(()) => Ok(postmaster),
            Err(error) => {
                postmaster.stop()?;
                Err(error)
            }
        }
    }

    /// Takes over a process that another owner started, if it is a postmaster of this cluster.
    pub(crate) fn adopt(pid: u32, cluster_dir: &Path) -> Option<Postmaster> {
        let adopted = Postmaster { pid, child: None, cluster_dir: cluster_dir.to_path_buf() };
        probe::is_postgres_of(pid, cluster_dir).then_some(adopted)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until an adopted postmaster answers on its socket; `false` if it ends or is about to.
    pub(crate) fn answers(&mut self, socket_dir: &Path) -> bool {
        let start = Instant::now();
        while self.ended().is_none() && start.elapsed() < START_LIMIT {
            match PidFile::read(&self.cluster_dir) {
                Some(file) if file.pid == self.pid && file.status == "stopping" => return false,
                Some(file) if file.pid == self.pid && file.status == "ready" => {
                    return is_answering(socket_dir);
                }
                _ => std::thread::sleep(POLL),
            }
        }
        false
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Option<String> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            None => {
                (!probe::is_postgres_of(self.pid, &self.cluster_dir)).then(|| "an unknown status".to_owned())
            }
        }
    }

    fn wait_until_ready(&mut self, launch: &Launch<'_>) -> Result<(), ClusterError> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                let (log, log_tail) = (launch.log.to_path_buf(), log::tail(launch.log));
                return Err(ClusterError::Exited { status, log, log_tail });
            }
            // A former run's file remains until the new process has written its own.
            let file = PidFile::read(launch.cluster_dir).filter(|file| file.pid == self.pid);
            if file.is_some_and(|file| file.status == "ready") && is_answering(launch.socket_dir) {
                return Ok(());
            }
            if start.elapsed() > START_LIMIT {
                let (log, log_tail) = (launch.log.to_path_buf(), log::tail(launch.log));
                return Err(ClusterError::NotReady { waited: START_LIMIT, log, log_tail });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Stops it: fast, then immediately, then by force. Returns when the process has ended.
    pub(crate) fn stop(mut self) -> Result<(), ClusterError> {
        let steps = [
            (Signal::SIGINT, FAST_LIMIT),
            (Signal::SIGQUIT, IMMEDIATE_LIMIT),
            (Signal::SIGKILL, IMMEDIATE_LIMIT),
        ];
        for (signal, limit) in steps {
            if self.ended().is_some() {
                return Ok(());
            }
            if signal != Signal::SIGINT {
                tracing::warn!(process.pid = self.pid, "PostgreSQL does not stop: sending {signal}");
            }
            probe::send(self.pid, signal);
            if probe::wait_until(limit, || self.ended().is_some()) {
                return Ok(());
            }
        }
        Err(ClusterError::Stop { pid: self.pid })
    }
}

fn is_answering(socket_dir: &Path) -> bool {
    Session::open(&socket::path(socket_dir), "postgres", Duration::from_secs(5)).is_ok()
}

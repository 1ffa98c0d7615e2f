//! Facts about processes, from the operating system.
//!
//! Process ids are reused, so an id from a file means nothing until the process behind it was checked.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ClusterError;

/// The interval between two checks of a condition.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// Whether the process exists and runs; a zombie does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    is_number_in_use(pid) && !is_zombie(pid)
}

/// Whether a process with this id exists, including a zombie.
pub(crate) fn is_number_in_use(pid: u32) -> bool {
    matches!(kill(number(pid), None), Ok(()) | Err(Errno::EPERM))
}

/// Whether `pid` is a PostgreSQL process that works in `cluster_dir`.
pub(crate) fn is_postgres_of(pid: u32, cluster_dir: &Path) -> bool {
    if pid == 0 || !is_alive(pid) {
        return false;
    }
    if Path::new("/proc/self/cwd").exists() {
        return is_named_postgres(pid) && works_in(pid, cluster_dir);
    }
    let Ok(output) = Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output() else {
        return false;
    };
    let command = String::from_utf8_lossy(&output.stdout);
    command.contains("postgres") && command.contains(&*cluster_dir.to_string_lossy())
}

/// The PostgreSQL processes that work in `cluster_dir`; empty if the system has no /proc.
pub(crate) fn postgres_processes_of(cluster_dir: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_named_postgres(*pid) && works_in(*pid, cluster_dir) && !is_zombie(*pid))
        .collect()
}

/// Sends the signal. A process that has already ended is not an error.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Err(error) = kill(number(pid), signal)
        && error != Errno::ESRCH
    {
        tracing::warn!(error = %error, process.pid = pid, "cannot signal process {pid}");
    }
}

/// Waits until `ended` returns `true`, at most `limit`. Returns its last value.
pub(crate) fn wait_until(limit: Duration, mut ended: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if ended() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Ends the processes that a dead postmaster left in `cluster_dir`, before a new one uses the same files.
pub(crate) fn end_leftovers(cluster_dir: &Path) -> Result<(), ClusterError> {
    let left = postgres_processes_of(cluster_dir);
    for pid in &left {
        send(*pid, Signal::SIGQUIT);
    }
    let gone = || left.iter().all(|pid| !is_postgres_of(*pid, cluster_dir));
    if wait_until(Duration::from_secs(10), gone) {
        return Ok(());
    }
    for pid in &left {
        send(*pid, Signal::SIGKILL);
    }
    match left.iter().find(|pid| !wait_until(Duration::from_secs(10), || !is_postgres_of(**pid, cluster_dir)))
    {
        Some(pid) => Err(ClusterError::Stop { pid: *pid }),
        None => Ok(()),
    }
}

/// Ends a cluster that was deleted from `cluster_dir` while it ran. It must end before another is created there: it
/// opens its control file by the full path, and would write into the new one.
pub(crate) fn end_those_of_deleted(cluster_dir: &Path) -> Result<(), ClusterError> {
    // The kernel's name for a working directory that was deleted.
    let mut deleted = cluster_dir.as_os_str().to_owned();
    deleted.push(" (deleted)");
    end_leftovers(Path::new(&deleted))
}

fn number(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

fn is_named_postgres(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
}

fn works_in(pid: u32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory)
}

fn is_zombie(pid: u32) -> bool {
    // The state follows the name, which is in parentheses and may contain anything.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_live_process_is_never_mistaken_for_postgres() -> Result<(), Box<dyn std::error::Error>> {
        let here = std::env::current_dir()?;
        assert!(is_alive(std::process::id()));
        assert!(!is_postgres_of(std::process::id(), &here));
        Ok(())
    }

    #[test]
    fn an_ended_process_is_not_alive_even_before_it_is_reaped() -> Result<(), Box<dyn std::error::Error>> {
        let mut child = Command::new("true").spawn()?;
        assert!(wait_until(Duration::from_secs(10), || !is_alive(child.id())));
        child.wait()?;
        Ok(())
    }
}

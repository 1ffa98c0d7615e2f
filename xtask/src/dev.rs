//! The server with reload.
//!
//! Polls the files once a second: a tree of this size needs no notifications from the system.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

const LOOK_AT_FILES: Duration = Duration::from_secs(1);
const LOOK_AT_PROCESS: Duration = Duration::from_millis(50);

/// Longer than the server's own drain delay and grace together.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// The files that the server is built from.
const WATCHED: &[&str] = &["crates", "migrations", "Cargo.toml", "Cargo.lock"];

/// Serves until interrupted. A failed build leaves the running server alone.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    process::catch_interrupts()?;
    let mut built_from = fingerprint(workspace.root());
    build(workspace)?;
    let mut server = serve(workspace, arguments)?;
    while !process::is_interrupted() {
        wait(LOOK_AT_FILES, || {
            server.report_end();
            process::is_interrupted()
        });
        let now = fingerprint(workspace.root());
        if now == built_from {
            continue;
        }
        built_from = now;
        match build(workspace) {
            Ok(()) => {
                server.stop()?;
                server = serve(workspace, arguments)?;
            }
            Err(error) => eprintln!("{error:#}; the former build goes on serving"),
        }
    }
    server.stop()
}

fn build(workspace: &Workspace) -> Result<()> {
    process::run(&mut workspace.cargo(&["build", "--package", "gathering-server"]))
}

fn serve(workspace: &Workspace, arguments: &[String]) -> Result<Server> {
    let mut command = Command::new(workspace.server("debug"));
    command.arg("serve").args(arguments).current_dir(workspace.root());
    if std::env::var_os("GATHERING_LOG_FORMAT").is_none() {
        command.env("GATHERING_LOG_FORMAT", "pretty");
    }
    Ok(Server { child: process::spawn(&mut command)?, is_reported: false })
}

/// A running server, or one that ended by itself.
struct Server {
    child: Child,
    is_reported: bool,
}

impl Server {
    /// Reports, once, that the server ended by itself.
    fn report_end(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait()
            && !self.is_reported
        {
            self.is_reported = true;
            eprintln!("the server ended with {status}; it is started again when a file changes");
        }
    }

    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        process::terminate(&self.child)?;
        let child = &mut self.child;
        if !wait(STOP_LIMIT, || matches!(child.try_wait(), Ok(Some(_)))) {
            eprintln!("the server does not stop: killing it");
            child.kill().context("kill the server")?;
        }
        child.wait().context("wait for the server")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

/// Waits until `ended` holds, for at most `limit`; returns whether it held.
fn wait(limit: Duration, mut ended: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if ended() {
            return true;
        }
        thread::sleep(LOOK_AT_PROCESS);
    }
    false
}

/// Changes whenever a watched file is written, made or removed.
fn fingerprint(root: &Path) -> (u64, Option<SystemTime>) {
    let mut print = (0, None);
    for watched in WATCHED {
        add(&root.join(watched), &mut print);
    }
    print
}

fn add(path: &Path, print: &mut (u64, Option<SystemTime>)) {
    // A file may go while we look; the next look sees that.
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    print.0 += 1;
    print.1 = print.1.max(metadata.modified().ok());
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            add(&entry.path(), print);
        }
    }
}

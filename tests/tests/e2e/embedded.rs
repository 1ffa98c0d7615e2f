//! Without `DATABASE_URL`: a PostgreSQL of its own in the data directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Database, Process, Server, binary, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

fn postmaster(data_dir: &Path) -> Result<Pid> {
    let file = fs::read_to_string(data_dir.join("postgres/postmaster.pid"))?;
    Ok(Pid::from_raw(file.lines().next().context("an empty pid file")?.trim().parse()?))
}

fn is_running(pid: Pid) -> bool {
    // A zombie, whose parent is gone as well, runs no more.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_directory_is_told_who_has_it() -> Result<()> {
    let database = Database::embedded()?;
    let server = Server::start(&database).await?;
    let data_dir = database.data_dir().display().to_string();
    let file = database.directory().join("p.yaml");
    fs::write(&file, "nodes: [{id: begin, type: trigger}]")?;
    for arguments in [vec!["serve"], vec!["run", "p.yaml"]] {
        let mut command = database.command(&arguments)?;
        let ended = Process::start(command.env("GATHERING_BIND", "127.0.0.1:0"))?.end(LIMIT).await?;
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        for word in [data_dir.as_str(), &server.id().to_string(), "GATHERING_DATA_DIR", "DATABASE_URL"] {
            assert!(ended.stderr.contains(word), "{arguments:?}: {word} in {}", ended.stderr);
        }
    }
    assert_eq!(server.client().get("/health/ready").await?.status, 200, "the first one is not disturbed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_data_survives_a_stop_a_kill_and_a_kill_of_postgresql_too() -> Result<()> {
    let database = Database::embedded()?;
    let mut server = Server::start(&database).await?;
    server.client().register("ada@example.org").await?;
    let before = postmaster(&database.data_dir())?;
    let ended = server.stop(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!is_running(before), "PostgreSQL is stopped with its server");

    // Killed: the postmaster is an orphan, which the next start takes over.
    let mut server = Server::start(&database).await?;
    server.client().login("ada@example.org").await?;
    server.client().register("bob@example.org").await?;
    let orphan = postmaster(&database.data_dir())?;
    server.kill()?;
    assert!(is_running(orphan), "the test needs an orphan");

    // Killed with its postmaster: the pid file is stale.
    let mut server = Server::start(&database).await?;
    server.client().login("bob@example.org").await?;
    server.client().register("cleo@example.org").await?;
    let stale = postmaster(&database.data_dir())?;
    server.kill()?;
    kill(stale, Signal::SIGKILL)?;
    let trace = format!("/proc/{stale}");
    wait_until(LIMIT, "PostgreSQL is gone", async || match Path::new(&trace).exists() {
        true => Err("it is there"),
        false => Ok(()),
    })
    .await?;
    assert_eq!(postmaster(&database.data_dir())?, stale, "the test needs a stale pid file");

    let mut server = Server::start(&database).await?;
    for email in ["ada@example.org", "bob@example.org", "cleo@example.org"] {
        server.client().login(email).await.with_context(|| email)?;
    }
    let last = postmaster(&database.data_dir())?;
    assert_eq!(server.stop(LIMIT).await?.code, Some(0));
    assert!(!is_running(last));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_needs_nothing_from_root() -> Result<()> {
    let database = Database::embedded()?;
    let mut command = database.command(&["serve"])?;
    if fs::metadata("/proc/self")?.uid() == 0 {
        // A copy, as other users may not reach the program's own directory.
        let program = database.directory().join("gathering");
        fs::copy(binary()?, &program)?;
        chown(database.directory(), Some(NOBODY), Some(NOBODY))?;
        let settings: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        command = std::process::Command::new(program);
        command.arg("serve").current_dir(database.directory()).uid(NOBODY).gid(NOBODY);
        for (name, value) in settings {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
    command.env("GATHERING_BIND", "127.0.0.1:0");
    let mut server = Server::started(Process::start(&mut command)?).await?;
    server.client().join("ada@example.org").await?;
    let postmaster = postmaster(&database.data_dir())?;
    assert_eq!(server.stop(LIMIT).await?.code, Some(0));
    assert!(!is_running(postmaster));
    Ok(())
}

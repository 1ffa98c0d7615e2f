//! The guarantees of a cluster, on a real PostgreSQL.
//!
//! As root, the cluster runs as another user, so all tests also run as an ordinary user.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gathering_postgres::{Cluster, ClusterError, Durability, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

type TestResult = Result<(), Box<dyn Error>>;

/// The data directory, set in a child process that owns a cluster until it is killed.
const HOLD: &str = "GATHERING_POSTGRES_TEST_HOLD";

/// A data directory that every user can reach, and its settings.
fn reachable() -> Result<(TempDir, Settings), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let settings =
        Settings { durability: Durability::FastForTests, ..Settings::new(directory.path().join("data")) };
    Ok((directory, settings))
}

fn sql(cluster: &Cluster, statement: &str) -> Result<String, Box<dyn Error>> {
    let output = cluster
        .command("psql")
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, "postgres"])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).join("cwd").read_link().is_ok()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill_process(pid: u32) -> TestResult {
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    Ok(())
}

/// A process of this test binary that runs one test.
fn this_binary(test: &str) -> Result<Command, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([test, "--exact", "--nocapture", "--include-ignored"]).stdin(Stdio::null());
    Ok(command)
}

#[test]
fn data_survives_a_restart_under_the_same_url() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&settings)?;
    let url = cluster.url("postgres");
    sql(&cluster, "CREATE TABLE kept AS SELECT 42 AS answer")?;
    cluster.stop()?;
    let start = Instant::now();
    let cluster = Cluster::start(&settings)?;
    println!("restarted in {} ms", start.elapsed().as_millis());
    assert_eq!(sql(&cluster, "SELECT answer FROM kept")?, "42");
    assert_eq!(cluster.url("postgres"), url);
    Ok(())
}

#[test]
fn a_durable_cluster_runs_with_the_safe_defaults_and_checksums() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&Settings { durability: Durability::Durable, ..settings })?;
    for setting in ["fsync", "full_page_writes", "synchronous_commit", "data_checksums"] {
        assert_eq!(sql(&cluster, &format!("SHOW {setting}"))?, "on", "{setting}");
    }
    Ok(())
}

#[test]
fn libpq_accepts_the_url() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&settings)?;
    cluster.ensure_database("gathering")?;
    let output = Command::new(cluster.binaries().program("psql"))
        .args(["-XAtc", "SELECT current_user || ' ' || current_database()"])
        .arg(cluster.url("gathering"))
        .output()?;
    assert_eq!(String::from_utf8(output.stdout)?.trim(), "gathering gathering");
    Ok(())
}

#[test]
fn ensure_database_can_be_repeated_and_raced_and_rejects_names_that_need_quoting() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&settings)?;
    std::thread::scope(|scope| {
        let racing: Vec<_> = (0..4).map(|_| scope.spawn(|| cluster.ensure_database("shared"))).collect();
        for attempt in racing {
            attempt.join().unwrap().unwrap();
        }
    });
    cluster.ensure_database("shared")?;
    for name in ["", "a\"b", "a'b", "Upper", "1st", "with space", &"x".repeat(64)] {
        assert!(matches!(cluster.ensure_database(name), Err(ClusterError::DatabaseName { .. })), "{name}");
    }
    Ok(())
}

#[test]
fn a_start_after_a_killed_postmaster_recovers_committed_data() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&settings)?;
    sql(&cluster, "CREATE TABLE kept AS SELECT 42 AS answer")?;
    let first = cluster.postmaster_pid();
    // A backend that is busy when its postmaster dies outlives it for a while.
    let mut busy = cluster
        .command("psql")
        .args(["-Xqc", "SELECT pg_sleep(30)", "postgres"])
        .stderr(Stdio::null())
        .spawn()?;
    wait_until("the busy backend", || {
        sql(&cluster, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
            .is_ok_and(|n| n == "1")
    });
    kill_process(first)?;
    cluster.stop()?;
    let cluster = Cluster::start(&settings)?;
    busy.wait()?;
    assert_ne!(cluster.postmaster_pid(), first);
    assert_eq!(sql(&cluster, "SELECT answer FROM kept")?, "42");
    Ok(())
}

#[test]
fn a_pid_file_with_the_id_of_another_process_does_not_block_the_start() -> TestResult {
    let (_directory, settings) = reachable()?;
    Cluster::start(&settings)?.stop()?;
    let mut stranger = Command::new("sleep").arg("600").spawn()?;
    let cluster_dir = settings.data_dir.join("postgres");
    fs::write(
        cluster_dir.join("postmaster.pid"),
        format!(
            "{}\n{}\n1700000000\n5432\n/tmp/gone\n\n  1 1\nready   \n",
            stranger.id(),
            cluster_dir.display()
        ),
    )?;
    let started = Cluster::start(&settings);
    let survived = stranger.try_wait()?.is_none();
    stranger.kill()?;
    stranger.wait()?;
    assert_eq!(sql(&started?, "SELECT 1")?, "1");
    assert!(survived, "the stranger was stopped");
    Ok(())
}

#[test]
fn a_zombie_postmaster_does_not_block_the_start() -> TestResult {
    let (_directory, settings) = reachable()?;
    Cluster::start(&settings)?.stop()?;
    let cluster_dir = settings.data_dir.join("postgres");
    // PostgreSQL only minds processes of its own user.
    let user = fs::metadata(&cluster_dir)?.uid();
    let mut ended = Command::new("true").uid(user).spawn()?;
    wait_until("the end of the process", || {
        fs::read_to_string(format!("/proc/{}/stat", ended.id())).is_ok_and(|stat| stat.contains(") Z "))
    });
    let pid_file = format!(
        "{}\n{}\n1700000000\n5432\n/tmp/gone\n\n  1 1\nready   \n",
        ended.id(),
        cluster_dir.display()
    );
    fs::write(cluster_dir.join("postmaster.pid"), pid_file)?;
    let started = Cluster::start(&settings);
    ended.wait()?;
    assert_eq!(sql(&started?, "SELECT 1")?, "1");
    Ok(())
}

#[test]
fn a_new_owner_takes_over_and_stops_an_orphaned_postmaster() -> TestResult {
    let (_directory, settings) = reachable()?;
    let mut owner = this_binary("hold_a_cluster_until_killed")?
        .env(HOLD, &settings.data_dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let ready = settings.data_dir.join("ready");
    wait_until("the other process's cluster", || ready.exists());
    let refused = Cluster::start(&settings).unwrap_err();
    let message = refused.to_string();
    assert!(
        matches!(refused, ClusterError::Locked { holder: Some(pid), .. } if pid == owner.id()),
        "{message}"
    );
    for word in [settings.data_dir.to_str().unwrap_or("?"), "GATHERING_DATA_DIR", "DATABASE_URL"] {
        assert!(message.contains(word), "{message}");
    }
    owner.kill()?;
    owner.wait()?;
    let orphan: u32 = fs::read_to_string(&ready)?.parse()?;
    assert!(is_running(orphan));
    let cluster = Cluster::start(&settings)?;
    assert_eq!(cluster.postmaster_pid(), orphan);
    assert_eq!(sql(&cluster, "SELECT 1")?, "1");
    cluster.stop()?;
    assert!(!is_running(orphan));
    Ok(())
}

#[test]
#[ignore = "is started, and killed, by the test of orphans"]
fn hold_a_cluster_until_killed() -> TestResult {
    let Some(data_dir) = std::env::var_os(HOLD).map(PathBuf::from) else { return Ok(()) };
    let settings = Settings { durability: Durability::FastForTests, ..Settings::new(&data_dir) };
    let cluster = Cluster::start(&settings)?;
    let unfinished = data_dir.join("ready.new");
    fs::write(&unfinished, cluster.postmaster_pid().to_string())?;
    fs::rename(unfinished, data_dir.join("ready"))?;
    loop {
        std::thread::park();
    }
}

#[test]
fn an_orphan_with_other_settings_is_restarted_with_the_new_ones() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&settings)?;
    let fast = cluster.postmaster_pid();
    cluster.detach();
    let cluster = Cluster::start(&Settings { durability: Durability::Durable, ..settings })?;
    assert_ne!(cluster.postmaster_pid(), fast);
    assert_eq!(sql(&cluster, "SHOW fsync")?, "on");
    Ok(())
}

#[test]
fn a_detached_cluster_runs_without_a_lock_until_it_is_taken_over() -> TestResult {
    let (_directory, settings) = reachable()?;
    assert!(Cluster::find_running(&settings)?.is_none());
    let cluster = Cluster::start(&settings)?;
    let pid = cluster.postmaster_pid();
    cluster.detach();
    let found = Cluster::find_running(&settings)?.ok_or("it is not running")?;
    assert_eq!(found.postmaster_pid(), pid);
    assert_eq!(sql(&found, "SELECT 1")?, "1");
    found.stop()?;
    assert!(Cluster::find_running(&settings)?.is_none());
    Ok(())
}

#[test]
fn deleting_the_data_directory_of_a_running_cluster_gives_a_fresh_one() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&settings)?;
    sql(&cluster, "CREATE TABLE forgotten ()")?;
    let first = cluster.postmaster_pid();
    cluster.detach();
    fs::remove_dir_all(&settings.data_dir)?;
    let cluster = Cluster::start(&settings)?;
    assert_eq!(sql(&cluster, "SELECT count(*) FROM pg_class WHERE relname = 'forgotten'")?, "0");
    assert!(!is_running(first));
    Ok(())
}

#[test]
fn the_cluster_has_no_tcp_port_and_a_private_socket_directory() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&settings)?;
    assert_eq!(sql(&cluster, "SHOW listen_addresses")?, "");
    // The processes of the postmaster share its sockets: none of them is in the tables of TCP sockets.
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{}/fd", cluster.postmaster_pid()))?
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!inodes.is_empty(), "it has a Unix socket at least");
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(table) {
            file.read_to_string(&mut text)?;
        }
        for line in text.lines() {
            let inode = line.split_whitespace().nth(9).unwrap_or_default();
            assert!(!inodes.iter().any(|own| own == inode), "{line}");
        }
    }
    assert_eq!(fs::metadata(cluster.socket_dir())?.mode() & 0o777, 0o700);
    Ok(())
}

#[test]
fn stopping_leaves_no_process_and_no_socket_directory() -> TestResult {
    let (_directory, settings) = reachable()?;
    let dropped = |cluster: Cluster| {
        drop(cluster);
        Ok(())
    };
    for stop in [Cluster::stop, dropped] {
        let cluster = Cluster::start(&settings)?;
        let (pid, socket_dir) = (cluster.postmaster_pid(), cluster.socket_dir().to_path_buf());
        stop(cluster)?;
        assert!(!is_running(pid));
        assert!(!socket_dir.exists());
    }
    Ok(())
}

#[test]
fn a_kill_during_initdb_does_not_block_the_next_start() -> TestResult {
    let (_directory, settings) = reachable()?;
    let leftover = settings.data_dir.join("postgres.new-1");
    fs::create_dir_all(&leftover)?;
    fs::write(leftover.join("PG_VERSION"), "15")?;
    let cluster = Cluster::start(&settings)?;
    assert_eq!(sql(&cluster, "SELECT 1")?, "1");
    assert!(!leftover.exists());
    Ok(())
}

#[test]
fn a_failed_start_shows_the_end_of_the_log_and_leaves_nothing_running() -> TestResult {
    let (_directory, settings) = reachable()?;
    let cluster = Cluster::start(&settings)?;
    let (cluster_dir, socket_dir) = (cluster.cluster_dir().to_path_buf(), cluster.socket_dir().to_path_buf());
    cluster.stop()?;
    fs::write(cluster_dir.join("postgresql.auto.conf"), "no_such_setting = 1\n")?;
    let message = Cluster::start(&settings).unwrap_err().to_string();
    assert!(message.contains("no_such_setting"), "{message}");
    assert!(!socket_dir.exists());
    Ok(())
}

#[test]
fn a_cluster_of_another_major_version_is_rejected_and_unchanged() -> TestResult {
    let (_directory, settings) = reachable()?;
    Cluster::start(&settings)?.stop()?;
    let version = settings.data_dir.join("postgres/PG_VERSION");
    let own = fs::read_to_string(&version)?;
    fs::write(&version, "9\n")?;
    let refused = Cluster::start(&settings).unwrap_err();
    assert!(matches!(refused, ClusterError::WrongVersion { cluster: 9, .. }), "{refused}");
    fs::write(&version, own)?;
    Cluster::start(&settings)?.stop()?;
    Ok(())
}

#[test]
fn a_temporary_cluster_is_deleted_when_dropped() -> TestResult {
    let cluster = Cluster::temporary()?;
    assert_eq!(sql(&cluster, "SHOW fsync")?, "off");
    let cluster_dir = cluster.cluster_dir().to_path_buf();
    drop(cluster);
    assert!(!cluster_dir.exists());
    assert!(!cluster_dir.parent().is_some_and(Path::exists));
    Ok(())
}

#[test]
fn as_root_an_unreachable_data_directory_gets_its_cluster_elsewhere() -> TestResult {
    if !geteuid().is_root() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
    let settings =
        Settings { durability: Durability::FastForTests, ..Settings::new(directory.path().join("data")) };
    let cluster = Cluster::start(&settings)?;
    sql(&cluster, "CREATE TABLE kept AS SELECT 42 AS answer")?;
    let cluster_dir = cluster.cluster_dir().to_path_buf();
    assert!(cluster_dir.starts_with("/var/lib/gathering"), "{}", cluster_dir.display());
    assert_eq!(fs::read_link(settings.data_dir.join("postgres"))?, cluster_dir);
    cluster.stop()?;
    let cluster = Cluster::start(&settings)?;
    assert_eq!(sql(&cluster, "SELECT answer FROM kept")?, "42");
    cluster.destroy()?;
    assert!(!cluster_dir.exists());
    assert!(fs::read_link(settings.data_dir.join("postgres")).is_err());
    Ok(())
}

#[test]
fn as_an_ordinary_user_all_tests_pass_too() -> TestResult {
    if !geteuid().is_root() {
        return Ok(()); // this run is that run
    }
    let nobody = User::from_name("nobody")?.ok_or("there is no user nobody")?;
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    // The build directory may be out of the user's reach.
    let binary = directory.path().join("tests");
    fs::copy(std::env::current_exe()?, &binary)?;
    let output = Command::new(&binary)
        .args(["--test-threads", "2"])
        .uid(nobody.uid.as_raw())
        .gid(nobody.gid.as_raw())
        .current_dir("/")
        .env_remove("TMPDIR")
        .env("HOME", "/")
        .stdin(Stdio::null())
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

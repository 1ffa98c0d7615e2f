//! `run_command`, on real processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gathering_tools::{
    BlockingPool, CommandSetupError, EffectClass, Launcher, Outbound, OutboundPolicy, RunCommand,
    RunCommandPolicy, ToolContext, ToolError, ToolSetup, Toolbox,
};
use serde_json::{Value, json};

use super::Fixture;

fn policy() -> RunCommandPolicy {
    let programs =
        [("sh", "/bin/sh"), ("cat", "/bin/cat")].map(|(name, path)| (name.to_owned(), path.into()));
    let launcher = Launcher { program: env!("CARGO_BIN_EXE_gathering-launch").into(), args: Vec::new() };
    RunCommandPolicy { require_confinement: false, ..RunCommandPolicy::new(programs.into(), launcher) }
}

/// Tools with `run_command`, and what this system confines; `None` where it cannot keep a command from the network.
async fn with(policy: RunCommandPolicy) -> Option<(Fixture, Value)> {
    let command = match RunCommand::new(policy) {
        Err(CommandSetupError::NetworkOpen) => {
            eprintln!("skipped: this system keeps no command from the network");
            return None;
        }
        made => made.unwrap(),
    };
    let (pool, outbound) = (BlockingPool::new(2), Outbound::new(OutboundPolicy::public_only()).unwrap());
    let confinement = command.confinement();
    let setup = ToolSetup { run_command: Some(command), ..ToolSetup::default() };
    let tools = Toolbox::with_setup(&outbound, setup, pool.clone()).unwrap();
    Some((Fixture::with(tools, pool).await, confinement))
}

fn open_network() -> RunCommandPolicy {
    RunCommandPolicy { allow_network: true, ..policy() }
}

fn script(text: &str) -> Value {
    json!({"program": "sh", "args": ["-c", text]})
}

/// Waits until it is so, and fails loudly instead of hanging.
async fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never becomes so");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many processes `sleep` for this time. The shells that start them have other arguments.
fn n_sleeping(seconds: &str) -> usize {
    let sleeps = format!("sleep\0{seconds}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    arguments.filter(|arguments| arguments == sleeps.as_bytes()).count()
}

#[tokio::test]
async fn a_program_runs_in_the_workspace_without_a_shell() {
    let (tools, confinement) = with(open_network()).await.unwrap();
    tools.write("sub/a.txt", "content");
    let ran = tools.call(
        "run_command",
        json!({"program": "cat", "args": ["a.txt", "-"], "cwd": "sub", "stdin": "; $HOME"}),
    );
    let ran = ran.await.unwrap();
    assert_eq!((&ran["stdout"], &ran["exit_code"]), (&json!("content; $HOME"), &json!(0)));
    assert_eq!((&ran["timed_out"], &ran["confinement"]), (&json!(false), &confinement));
    let failed = tools.call("run_command", script("echo wrong >&2; exit 7")).await.unwrap();
    assert_eq!((&failed["exit_code"], &failed["stderr"]), (&json!(7), &json!("wrong\n")));
    let killed = tools.call("run_command", script("kill -9 $$")).await.unwrap();
    assert_eq!(killed["exit_code"], 128 + 9, "{killed}");
    let class = tools.tools.class_of("run_command", &script("true")).unwrap();
    assert_eq!(class, EffectClass::Unsafe);
}

#[tokio::test]
async fn the_environment_is_clean() {
    let secret = std::env::vars().map(|(name, _)| name).find(|name| name.starts_with("CARGO")).unwrap();
    let environment = BTreeMap::from([("EXTRA".to_owned(), "1".to_owned())]);
    let (tools, _) = with(RunCommandPolicy { environment, ..open_network() }).await.unwrap();
    let ran = tools.call("run_command", script("env; echo; pwd")).await.unwrap();
    let (environment, directory) = ran["stdout"].as_str().unwrap().split_once("\n\n").unwrap();
    let mut names: Vec<&str> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["EXTRA", "HOME", "LANG", "PATH", "TMPDIR"], "{secret} and others stay out");
    let root = tools.directory.path().canonicalize().unwrap();
    assert_eq!(directory.trim_end(), root.to_str().unwrap());
}

#[tokio::test]
async fn only_allowed_programs_run_and_only_inside() {
    let (tools, _) = with(open_network()).await.unwrap();
    for (params, told) in [
        (json!({"program": "rm"}), "/program: must be one of \"cat\", \"sh\""),
        (json!({"program": "/bin/sh"}), "/program: must be one of \"cat\", \"sh\""),
        (json!({"program": "cat", "args": ["a\0b"]}), "/args/0: must not contain a zero byte"),
        (json!({"program": "cat", "args": ["x".repeat(70_000)]}), "/args: has more than 65536 bytes"),
        (json!({"program": "cat", "timeout_seconds": 61}), "/timeout_seconds: must be at most 60"),
    ] {
        let error = tools.call("run_command", params).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
    std::os::unix::fs::symlink("/", tools.directory.path().join("link")).unwrap();
    tools.write("file", "");
    for (cwd, kind) in
        [("..", "forbidden"), ("link", "forbidden"), ("none", "not_found"), ("file", "wrong_kind")]
    {
        let error = tools.call("run_command", json!({"program": "cat", "cwd": cwd})).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.may_have_taken_place()), (kind, false), "{cwd}: {error}");
    }
    let none = tools.tools.call("run_command", script("true"), &ToolContext::new()).await.unwrap_err();
    assert!(matches!(none, ToolError::NoWorkspace));
    let closed = tools.context.workspace.clone().unwrap().without("data".parse().unwrap());
    let closed = ToolContext::new().with_workspace(closed);
    let error = tools.tools.call("run_command", script("true"), &closed).await.unwrap_err();
    assert_eq!(error.kind().as_str(), "forbidden");
}

#[tokio::test]
async fn a_long_output_is_read_and_only_its_beginning_kept() {
    let (tools, _) = with(RunCommandPolicy { max_output_bytes: 1000, ..open_network() }).await.unwrap();
    let text =
        "head -c 3000000 /dev/zero | tr '\\0' x; head -c 1500 /dev/zero | tr '\\0' y >&2; echo end >&2";
    let ran = tools.call("run_command", script(text)).await.unwrap();
    assert_eq!((&ran["exit_code"], &ran["stdout"]), (&json!(0), &json!("x".repeat(1000))));
    assert_eq!(
        (&ran["stdout_dropped_bytes"], &ran["stderr_dropped_bytes"]),
        (&json!(2_999_000), &json!(504))
    );
}

#[tokio::test]
async fn a_command_ends_at_its_time_with_all_its_processes() {
    let (tools, _) = with(open_network()).await.unwrap();
    let (begun, mark) = (Instant::now(), "31536001");
    let mut params = script(&format!("echo begun; sleep {mark} & sleep {mark}"));
    params["timeout_seconds"] = json!(0.5);
    let ran = tools.call("run_command", params).await.unwrap();
    assert_eq!(
        (&ran["timed_out"], &ran["exit_code"], &ran["stdout"]),
        (&json!(true), &json!(null), &json!("begun\n"))
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    until(|| n_sleeping(mark) == 0).await;
}

#[tokio::test]
async fn a_cancelled_command_leaves_no_process() {
    let (tools, confinement) = with(open_network()).await.unwrap();
    let mark = "31536002";
    // Where there are namespaces, not even one that leaves the group.
    let leave = if confinement["processes"] == "namespace" { "setsid" } else { "" };
    let text = format!("{leave} sleep {mark} & sleep {mark}; true");
    let (toolbox, context) = (tools.tools.clone(), tools.context.clone());
    let call = tokio::spawn(async move { toolbox.call("run_command", script(&text), &context).await });
    until(|| n_sleeping(mark) == 2).await;
    call.abort();
    let _ = call.await;
    until(|| n_sleeping(mark) == 0).await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_does_not_delay_its_end() {
    let (tools, _) = with(open_network()).await.unwrap();
    let (begun, mark) = (Instant::now(), "31536003");
    let ran = tools.call("run_command", script(&format!("sleep {mark} & echo done"))).await.unwrap();
    assert_eq!((&ran["stdout"], &ran["exit_code"]), (&json!("done\n"), &json!(0)));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    until(|| n_sleeping(mark) == 0).await;
}

#[tokio::test]
async fn memory_and_files_are_limited() {
    let limits = RunCommandPolicy {
        max_memory_bytes: Some(64 * 1024 * 1024),
        max_file_bytes: Some(10_000),
        ..open_network()
    };
    let (tools, _) = with(limits).await.unwrap();
    let ran = tools.call("run_command", script("ulimit -v; ulimit -c; ulimit -n")).await.unwrap();
    assert_eq!(ran["stdout"], "65536\n0\n1024\n");
    // `tail` keeps what it reads until it knows the last line.
    let ran =
        tools.call("run_command", script("head -c 200000000 /dev/zero | tail -n 1 | wc -c")).await.unwrap();
    assert!(!ran["stdout"].as_str().unwrap().contains("200000000"), "{ran}");
    tools.call("run_command", script("head -c 20000 /dev/zero > large")).await.unwrap();
    assert_eq!(std::fs::metadata(tools.directory.path().join("large")).unwrap().len(), 10_000);
}

#[tokio::test]
async fn files_outside_the_workspace_are_out_of_reach() {
    let Ok(_) = RunCommand::new(RunCommandPolicy { require_confinement: true, ..open_network() }) else {
        eprintln!("skipped: this system has no Landlock");
        return;
    };
    let (tools, confinement) =
        with(RunCommandPolicy { require_confinement: true, ..open_network() }).await.unwrap();
    assert_eq!(confinement["files"], "landlock");
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s3cret").unwrap();
    let path = outside.path().display();
    let environ = format!("/proc/{}/environ", std::process::id());
    let text =
        format!("cat {path}/secret {environ} /etc/shadow; echo x > {path}/new; echo in > here; cat here");
    let ran = tools.call("run_command", script(&text)).await.unwrap();
    assert_eq!(ran["stdout"], "in\n", "{ran}");
    assert!(!outside.path().join("new").exists());
    let reading = RunCommandPolicy { read_paths: vec![outside.path().to_owned()], ..open_network() };
    let (tools, _) = with(reading).await.unwrap();
    let ran = tools
        .call("run_command", json!({"program": "cat", "args": [format!("{path}/secret")]}))
        .await
        .unwrap();
    assert_eq!(ran["stdout"], "s3cret");
}

#[tokio::test]
async fn a_command_has_no_network_unless_it_is_allowed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = json!({"program": "bash", "args": ["-c", format!("echo > /dev/tcp/127.0.0.1/{port}")]});
    if !PathBuf::from("/bin/bash").exists() {
        eprintln!("skipped: there is no bash");
        return;
    }
    let with_bash = |policy: RunCommandPolicy| {
        let mut policy = policy;
        policy.programs.insert("bash".to_owned(), "/bin/bash".into());
        policy
    };
    let (tools, confinement) = with(with_bash(open_network())).await.unwrap();
    assert_eq!(tools.call("run_command", connect.clone()).await.unwrap()["exit_code"], 0);
    assert_eq!(confinement["network"], "open");
    let Some((tools, confinement)) = with(with_bash(policy())).await else { return };
    assert_ne!(tools.call("run_command", connect).await.unwrap()["exit_code"], 0);
    assert_ne!(confinement["network"], "open");
}

#[tokio::test]
async fn a_policy_that_cannot_be_kept_is_refused() {
    let refused = |policy: RunCommandPolicy| RunCommand::new(policy).unwrap_err().to_string();
    assert!(
        refused(RunCommandPolicy { programs: BTreeMap::new(), ..policy() }).contains("name at least one")
    );
    for path in ["sh", "/nowhere/sh", "/bin"] {
        let programs = BTreeMap::from([("sh".to_owned(), path.into())]);
        let told = refused(RunCommandPolicy { programs, ..policy() });
        assert_eq!(told, "the program `sh` cannot be executed: give the absolute path of a file");
    }
    let launcher = |program: &str| Launcher { program: program.into(), args: Vec::new() };
    let told = refused(RunCommandPolicy { launcher: launcher("/nowhere"), ..policy() });
    assert_eq!(told, "cannot start the launcher of commands");
    let told = refused(RunCommandPolicy { launcher: launcher("/bin/true"), ..policy() });
    assert!(told.starts_with("the launcher of commands does not work"), "{told}");
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_was_not_started() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no-program");
    std::fs::write(&path, "text").unwrap();
    let programs = BTreeMap::from([("broken".to_owned(), path)]);
    let (tools, _) = with(RunCommandPolicy { programs, ..open_network() }).await.unwrap();
    let error = tools.call("run_command", json!({"program": "broken"})).await.unwrap_err();
    assert!(error.to_string().starts_with("`broken` was not started: cannot execute the program"), "{error}");
    assert!(!error.may_have_taken_place() && !error.is_retryable());
}

#[tokio::test]
async fn commands_end_with_the_process_that_started_them() {
    // This test's own program, once more, which runs the next test and is killed.
    let mark = "31536004";
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "builtin::run_command::runs_until_it_is_killed", "--ignored", "--nocapture"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until(|| n_sleeping(mark) > 0).await;
    server.kill().unwrap();
    server.wait().unwrap();
    until(|| n_sleeping(mark) == 0).await;
}

#[tokio::test]
#[ignore = "commands_end_with_the_process_that_started_them starts it"]
async fn runs_until_it_is_killed() {
    let (tools, confinement) = with(open_network()).await.unwrap();
    let text = match confinement["processes"] == "namespace" {
        true => "setsid sleep 31536004 & sleep 31536004; true",
        false => "exec sleep 31536004",
    };
    let _ = tools.call("run_command", script(text)).await;
}

//! `gathering run FILE`: what a first-time user sees.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Database, Ended, Peer, Process, begin, call, pipeline, workspace_root};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn run(database: &Database, arguments: &[&str]) -> Result<Ended> {
    let mut all = vec!["run"];
    all.extend(arguments);
    Process::start(&mut database.command(&all)?)?.end(LIMIT).await
}

fn example(name: &str) -> Result<String> {
    Ok(workspace_root()?.join("examples").join(name).display().to_string())
}

fn json_lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::write(path, text)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn repo_brief_reads_the_documentation_and_writes_its_report() -> Result<()> {
    let database = Database::empty().await?;
    let workspace = database.directory().join("repository");
    let readme = "# Tides\n\nTides computes tables of the tides. Sailors use it to plan. It needs no network.\n\n\
                  ## Use\n\nRun tides with the name of a harbour.\n";
    write(&workspace.join("README.md"), readme)?;
    write(
        &workspace.join("docs/moon.md"),
        "# The moon\n\nThe moon makes the tides. The sun helps a little.\n",
    )?;
    write(&workspace.join("docs/short.md"), "# Short\n")?;
    let file = example("repo-brief.yaml")?;
    let ended = run(&database, &[&file, "--workspace", &workspace.display().to_string()]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let output: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(output["report"], "reports/repo-brief.md");
    assert_eq!(output["markdown_files"], 3);
    assert_eq!(output["docs_read"], json!(["docs/moon.md"]));
    assert_eq!(output["providers"], json!(["scripted", "scripted", "scripted"]), "no model is configured");
    let report = fs::read_to_string(workspace.join("reports/repo-brief.md"))?;
    assert!(report.contains("tides") && report.contains("`docs/moon.md`"), "{report}");
    assert_eq!(output["report_bytes"].as_u64(), u64::try_from(report.len()).ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn github_webhook_notes_a_push_that_nobody_sent() -> Result<()> {
    let database = Database::empty().await?;
    let workspace = database.directory().join("repository");
    fs::create_dir_all(&workspace)?;
    let (file, workspace_path) = (example("github-webhook.yaml")?, workspace.display().to_string());
    let ended = run(&database, &[&file, "--workspace", &workspace_path]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let output: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(output, json!({"report": "reports/last-push.md", "has_commits": false, "commits": 0}));
    let input = json!({"commits": [{"message": "Fix the moon"}], "pusher": "ada"}).to_string();
    let ended = run(&database, &[&file, "--workspace", &workspace_path, "--input", &input]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = fs::read_to_string(workspace.join("reports/last-push.md"))?;
    assert!(
        report.contains("ada pushed to refs/heads/main") && report.contains("- Fix the moon"),
        "{report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn uptime_check_tries_again_while_the_page_stumbles() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| match request.nth {
        0 | 1 => Answer::now(503, json!("busy")),
        _ => Answer::now(200, json!({"status": "all is well"})),
    })
    .await?;
    let input = json!({"url": peer.url("/page"), "contains": "all is well", "webhook": peer.url("/hook")});
    let ended = run(&database, &[&example("uptime-check.yaml")?, "--input", &input.to_string()]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let output: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(output, json!({"up": true, "status": 200, "reason": "", "notified": false}));
    let keys: Vec<_> =
        peer.requests().iter().map(|request| request.idempotency_key().map(str::to_owned)).collect();
    assert_eq!(keys.len(), 3, "two failures, one success, and no notification");
    assert!(keys[0].is_some() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn uptime_check_tells_the_webhook_when_the_page_is_down() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|request| match request.path.as_str() {
        "/hook" => Answer::now(200, json!({})),
        _ => Answer::now(404, json!("gone")),
    })
    .await?;
    let input = json!({"url": peer.url("/page"), "webhook": peer.url("/hook")});
    let ended = run(&database, &[&example("uptime-check.yaml")?, "--input", &input.to_string()]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let output: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!((&output["up"], &output["notified"]), (&json!(false), &json!(true)), "{output}");
    assert!(output["reason"].as_str().is_some_and(|reason| reason.contains("404")), "{output}");
    assert_eq!(peer.requests_to("/page").len(), 1, "a 404 is not retried");
    let told = peer.requests_to("/hook");
    assert_eq!(told.len(), 1);
    assert!(told[0].body.contains("is down"), "{}", told[0].body);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn api_with_secret_sends_the_token_and_shows_none() -> Result<()> {
    const TOKEN: &str = "the-token-of-the-api";
    let database = Database::empty().await?;
    let peer = Peer::start(|request| Answer::now(200, json!({"you sent": request.headers["authorization"]})))
        .await?;
    let input = json!({"url": peer.url("/private")}).to_string();
    let mut command = database.command(&["run", &example("api-with-secret.yaml")?, "--input", &input])?;
    command
        .env("GATHERING_OUTBOUND_ALLOW", "127.0.0.0/8")
        .env("GATHERING_SECRETS_ENV_PREFIX", "GATHERING_SECRET_")
        .env("GATHERING_SECRET_API_TOKEN", TOKEN);
    let ended = Process::start(&mut command)?.end(Duration::from_secs(60)).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(peer.requests()[0].headers["authorization"], format!("Bearer {TOKEN}"));
    let output: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(output, json!({"status": 200, "body": {"you sent": "Bearer [secret API_TOKEN]"}}));
    assert!(!ended.stderr.contains(TOKEN) && !ended.stderr.contains("is not a setting"), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fan_out_writes_the_files_of_its_branches() -> Result<()> {
    let database = Database::empty().await?;
    let input = r#"{"numbers": [3, 1, 4], "pause_seconds": 0.1}"#;
    let ended = run(&database, &[&example("fan-out.yaml")?, "--input", input]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let output: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(output["squares"], json!([9, 1, 16]));
    let reports = database.directory().join("reports/fan-out");
    assert_eq!(fs::read_to_string(reports.join("largest.txt"))?.trim(), "4");
    assert_eq!(fs::read_to_string(reports.join("count.txt"))?.trim(), "3");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_progress_is_plain_lines_and_output_stays_alone() -> Result<()> {
    let database = Database::empty().await?;
    let ended = run(&database, &[&example("fan-out.yaml")?, "--input", r#"{"pause_seconds": 0.05}"#]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains('\u{1b}') && !ended.stderr.contains('\r'), "{:?}", ended.stderr);
    for node in ["begin", "wait_for_sum", "largest", "squares", "how_many", "together"] {
        let told = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.contains(&node) && words.contains(&"succeeded")
        };
        assert!(ended.stderr.lines().any(told), "{node} in {}", ended.stderr);
    }
    serde_json::from_str::<Value>(&ended.stdout).context("standard output is more than the run's output")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_json_every_line_is_json_and_the_last_is_the_result() -> Result<()> {
    let database = Database::empty().await?;
    let file = example("fan-out.yaml")?;
    let ended = run(&database, &[&file, "--json", "--input", r#"{"pause_seconds": 0.05}"#]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut lines = json_lines(&ended.stdout)?;
    let result = lines.pop().context("no line")?;
    assert_eq!((&result["kind"], &result["state"]), (&json!("result"), &json!("succeeded")), "{result}");
    assert_eq!(result["output"]["squares"], json!([4, 9, 25, 49]));
    let places: Vec<_> = lines.iter().map(|line| line["seq"].as_u64()).collect();
    let expected: Vec<_> = (1..).take(lines.len()).map(Some).collect();
    assert_eq!(places, expected, "the journal has no gaps");
    assert!(lines.iter().all(|line| line["run_id"] == result["run_id"]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_map_whose_items_wait_longer_than_their_run_is_held_ends() -> Result<()> {
    let database = Database::empty().await?;
    let graph =
        json!({"nodes": [{"id": "wait", "type": "delay", "config": {"seconds": 0.6}}], "output": "item"});
    let config = json!({"items": "input.items", "max_concurrency": 1, "graph": graph});
    let definition = pipeline(&[json!({"id": "each", "type": "map", "config": config})], &[]);
    let file = database.directory().join("map.json");
    write(&file, &definition.to_string())?;
    let input = json!({"items": ["a", "b"]}).to_string();
    let ended = run(&database, &[&file.display().to_string(), "--input", &input]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(serde_json::from_str::<Value>(&ended.stdout)?["each"], json!(["a", "b"]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_pipeline_exits_with_1_and_names_the_node_and_why() -> Result<()> {
    let database = Database::empty().await?;
    let peer = Peer::start(|_| Answer::now(418, json!("a teapot"))).await?;
    let definition =
        pipeline(&[begin(), call("brew_coffee", &peer.url("/pot"))], &[("begin", "brew_coffee")]);
    let file = database.directory().join("coffee.json");
    fs::write(&file, definition.to_string())?;
    let ended = run(&database, &[&file.display().to_string()]).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("brew_coffee") && ended.stderr.contains("418"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "there is no output");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_exits_with_2_and_every_problem_has_its_pointer() -> Result<()> {
    let database = Database::empty().await?;
    let expected: [(&str, &[&str]); 6] = [
        (
            "bad-expression.yaml",
            &[
                "/nodes/1/config/expression",
                "/nodes/2/config/expression",
                "/nodes/3/config/expression",
                "/nodes/4/config/expression",
                "/edges/4/when",
            ],
        ),
        ("cycle.yaml", &["fetch", "parse", "store"]),
        ("dangling-edge.yaml", &["/edges/1/to"]),
        (
            "many-problems.yaml",
            &[
                "/nodes/1/id",
                "/nodes/2/id",
                "/nodes/2/config/expression",
                "/nodes/3/type",
                "/nodes/4/timeout_seconds",
                "/nodes/4/retry/max_attempts",
                "/nodes/4/config/method",
                "/nodes/4/config/url",
                "/nodes/4/config/expect_status",
                "/nodes/4/config/colour",
                "/nodes/5/config/action",
                "/nodes/6/config/tool",
                "/nodes/7/config/params/path",
                "/nodes/7/config/params/content",
                "/nodes/7/config/params/mode",
                "/nodes/8/config/agent/provider",
                "/nodes/8/config/agent/tools/0",
                "/nodes/8/config/agent/temperature",
                "/nodes/8/config/agent/limits/max_steps",
                "/nodes/8/config/prompt",
                "/edges/0/to",
                "/edges/1/on",
                "/edges/2/when",
                "/max_concurrency",
                "/colour",
                "/output",
            ],
        ),
        ("not-yaml.yaml", &["neither YAML nor JSON"]),
        ("unknown-type.yaml", &["/nodes/1/type"]),
    ];
    for (name, problems) in expected {
        let file = example(&format!("invalid/{name}"))?;
        for command in ["run", "validate"] {
            let ended = Process::start(&mut database.command(&[command, &file])?)?.end(LIMIT).await?;
            assert_eq!(ended.code, Some(2), "{command} {name}: {ended:?}");
            for problem in problems {
                assert!(ended.stderr.contains(problem), "{command} {name}: {problem} in {}", ended.stderr);
            }
        }
    }
    let n_files = fs::read_dir(example("invalid")?)?.count();
    assert_eq!(n_files, expected.len(), "an invalid example is not tested");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_but_a_data_directory_it_works_the_first_and_the_second_time() -> Result<()> {
    let database = Database::embedded()?;
    for _ in 0..2 {
        let ended =
            run(&database, &[&example("fan-out.yaml")?, "--input", r#"{"pause_seconds": 0}"#]).await?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    Ok(())
}

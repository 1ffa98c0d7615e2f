//! Commands of the operator's programs, which the server launches by itself.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gathering_e2e::{Database, Process, begin, pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_runs_a_program_that_the_operator_allows_and_no_other() -> Result<()> {
    let database = Database::empty().await?;
    let workspace = database.directory().join("office");
    fs::create_dir_all(&workspace)?;
    fs::write(workspace.join("letter.txt"), "Dear reader,")?;
    let run = async |program: &str| {
        let params = json!({"program": program, "args": ["letter.txt"]});
        let node = json!({"id": "read", "type": "tool", "config": {"tool": "run_command", "params": params}});
        let mut definition = pipeline(&[begin(), node], &[("begin", "read")]);
        definition["output"] = json!("nodes.read.output");
        let file = database.directory().join(format!("{program}.json"));
        fs::write(&file, definition.to_string())?;
        let (file, workspace) = (file.display().to_string(), workspace.display().to_string());
        let mut command = database.command(&["run", &file, "--workspace", &workspace, "--json"])?;
        command
            .env("GATHERING_RUN_COMMAND_PROGRAMS", "cat=/bin/cat")
            .env("GATHERING_RUN_COMMAND_NETWORK", "on")
            .env("GATHERING_RUN_COMMAND_CONFINEMENT", "if_available");
        Process::start(&mut command)?.end(LIMIT).await
    };
    let ended = run("cat").await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let result: Value = serde_json::from_str(ended.stdout.lines().last().context("no line")?)?;
    let output = &result["output"];
    ensure!(output["stdout"] == "Dear reader," && output["exit_code"] == 0, "{output}");
    let refused = run("rm").await?;
    ensure!(refused.code != Some(0) && workspace.join("letter.txt").exists(), "{refused:?}");
    ensure!(format!("{refused:?}").contains("/params/program"), "{refused:?}");
    Ok(())
}

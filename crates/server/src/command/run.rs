//! `gathering run FILE`: runs one definition here and now, on the same engine and database as the server.

mod interrupt;
mod local;
mod plan;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use gathering_control::{LocalFile, Run};
use gathering_dag_engine::{DefinitionFile, NodeSpecs, RunStore, Seq, check_value, read_json};
use gathering_domain::{RunId, RunState};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::progress::{Progress, print_line, tell};
use super::validate::INVALID;
use crate::capabilities::Capabilities;
use crate::config::Config;
use crate::database::Database;
use interrupt::Interrupt;
use local::{CannotResume, Chosen};
pub(super) use local::{Driven, LocalRuns};
use plan::tell_plan;

/// The exit code for a run that did not succeed.
const FAILED: u8 = 1;

/// How often the journal is read.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How many entries of the journal are read at once.
const PAGE: usize = 500;

/// The arguments of `gathering run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// The definition, in YAML or JSON
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The run's input: JSON, or @FILE for a file that holds it [default: {}]
    #[arg(long, value_name = "JSON|@FILE")]
    pub input: Option<String>,
    /// The directory whose files the run's tools may use [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Print each entry of the run's journal, and then its result, as one JSON object per line; with --resume, first what
    /// is kept
    #[arg(long)]
    pub json: bool,
    /// Continue the latest run of this file: finish it after an interruption, or run what failed or was corrected since;
    /// never start from the beginning. What is kept is shown first. With --input the input is corrected
    #[arg(long)]
    pub resume: bool,
}

/// Runs a definition to its end: exit code 0 only when it succeeded, 1 when it did not, 2 when it is invalid or there is
/// nothing to resume, 128 and the signal's number when a signal interrupted it; then `--resume` finishes it.
///
/// # Errors
/// If the database cannot be opened or does not come back.
pub async fn run(config: &Config, args: &RunArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let specs = Capabilities::new(config)?.node_specs();
    let file = match DefinitionFile::read(&args.file, &specs).await {
        Ok(file) => file,
        Err(invalid) => return Ok(refuse(&invalid.to_string())),
    };
    let input = match &args.input {
        None => None,
        Some(text) => match read_input(text).await {
            Ok(input) => Some(input),
            Err(reason) => return Ok(refuse(&format!("--input: {reason}"))),
        },
    };
    let workspace = match canonical_workspace(args.workspace.as_deref()).await {
        Ok(workspace) => workspace,
        Err(reason) => return Ok(refuse(&format!("--workspace: {reason}"))),
    };
    let db = Database::open(config).await?;
    if interrupt.drain().is_cancelled() {
        // Nothing was accepted, so there is nothing to release.
        db.close().await;
        return Ok(ExitCode::from(interrupt.exit_code()));
    }
    let ended = run_on(config, &db, args, (&file, specs), input, &workspace, &interrupt).await;
    db.close().await;
    ended
}

fn refuse(reason: &str) -> ExitCode {
    tell(reason);
    ExitCode::from(INVALID)
}

async fn run_on(
    config: &Config,
    db: &Database,
    args: &RunArgs,
    (file, specs): (&DefinitionFile, NodeSpecs),
    input: Option<Value>,
    workspace: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<ExitCode> {
    let source = match local_file(&args.file, &file.document).await {
        Ok(source) => source,
        Err(reason) => return Ok(refuse(&reason)),
    };
    let local = LocalRuns::new(config, db, specs, (source, &file.document), workspace).await?;
    let chosen = if args.resume {
        match local.resume(input, interrupt).await {
            Ok(chosen) => chosen,
            Err(CannotResume::Other(error)) => return Err(error),
            Err(reason) => return Ok(refuse(&format!("{}: {reason}", args.file.display()))),
        }
    } else {
        local.start(input).await?
    };
    tell_choice(&chosen, args);
    let id = match chosen {
        Chosen::Succeeded(row) => return Ok(report(&row, args.json)),
        Chosen::Interrupted => return Ok(ExitCode::from(interrupt.exit_code())),
        Chosen::New { run, .. } | Chosen::Unfinished(run) | Chosen::Continued { run, .. } => run,
    };
    let progress = Progress::new(&file.graph, id, args.json);
    let done = CancellationToken::new();
    let driving = async {
        let driven = local.drive(id, interrupt.drain()).await;
        done.cancel();
        driven
    };
    let (driven, ()) = tokio::join!(driving, follow(&*local.store, id, progress, &done));
    match driven? {
        Driven::Ended(row) => Ok(report(&row, args.json)),
        Driven::Requeued => {
            tell(&format!(
                "run {id} is not finished; finish it with: gathering run {} --resume",
                args.file.display()
            ));
            Ok(ExitCode::from(interrupt.exit_code()))
        }
    }
}

fn tell_choice(chosen: &Chosen, args: &RunArgs) {
    match chosen {
        Chosen::Unfinished(run) => tell(&format!("resuming run {run}")),
        Chosen::Succeeded(row) => {
            tell(&format!("run {} has succeeded already; nothing is executed again", row.id));
        }
        Chosen::Continued { run, earlier, plan } => tell_plan(*run, earlier, plan, args.json),
        Chosen::New { earlier: Some(earlier), .. } => {
            let file = args.file.display();
            tell(&format!(
                "run {earlier} of this file is not finished; `gathering run {file} --resume` finishes it"
            ));
        }
        Chosen::New { earlier: None, .. } | Chosen::Interrupted => {}
    }
}

/// The file as its runs are found again.
pub(super) async fn local_file(file: &Path, document: &Value) -> Result<LocalFile, String> {
    let path = tokio::fs::canonicalize(file).await;
    let path = path.map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    let path = path.into_os_string().into_string();
    let path = path.map_err(|_| format!("{}: its path is no text in UTF-8", file.display()))?;
    // PostgreSQL compares no text with a NUL.
    let name = document["name"].as_str().map(|name| name.replace('\0', ""));
    Ok(LocalFile { path, name })
}

/// Shows the journal while the run is driven, and the rest of it once `done`.
async fn follow(store: &dyn RunStore, run: RunId, mut progress: Progress, done: &CancellationToken) {
    let mut seen: Seq = 0;
    loop {
        let is_last = done.is_cancelled();
        let full = look(store, run, &mut seen, &mut progress).await;
        progress.tick();
        if full {
            continue;
        }
        if is_last {
            return progress.end();
        }
        tokio::select! {
            () = done.cancelled() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Returns whether more entries may be available at once. The driver handles an unavailable database.
async fn look(store: &dyn RunStore, run: RunId, seen: &mut Seq, progress: &mut Progress) -> bool {
    match store.load_journal(run, *seen, PAGE).await {
        Ok(entries) => {
            for entry in &entries {
                progress.note(entry);
                *seen = entry.seq;
            }
            entries.len() == PAGE
        }
        Err(error) => {
            tracing::debug!(error = %error, "the journal cannot be read");
            false
        }
    }
}

/// Says how a run ended: its output on standard output, or why there is none on standard error.
fn report(row: &Run, json: bool) -> ExitCode {
    let took = row.ended_at.zip(row.started_at).map(|(ended, started)| ended - started);
    if json {
        print_line(&json!({
            "kind": "result",
            "run_id": row.id,
            "state": row.state.as_str(),
            "output": row.output,
            "error": row.error,
            "recoveries": row.recoveries,
            "duration_ms": took.map(|took| took.num_milliseconds()),
        }));
    }
    if row.state == RunState::Succeeded {
        if !json {
            print_output(row.output.as_ref().unwrap_or(&Value::Null));
        }
        return ExitCode::SUCCESS;
    }
    let error = row.error.as_ref();
    let why =
        error.map_or_else(|| "for no reason that is recorded".to_owned(), |error| error.message.clone());
    tell(&format!("run {} {}: {why}", row.id, row.state.as_str().replace('_', " ")));
    ExitCode::from(FAILED)
}

fn print_output(output: &Value) {
    let text = match output {
        Value::String(text) => text.clone(),
        // A value always has a pretty form; the plain one is a fallback that is never used.
        other => serde_json::to_string_pretty(other).unwrap_or_else(|_| other.to_string()),
    };
    let mut out = std::io::stdout();
    // A closed output is not an error.
    writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()).ok();
}

async fn read_input(text: &str) -> Result<Value, String> {
    let text = match text.strip_prefix('@') {
        Some(path) => {
            let read = tokio::fs::read_to_string(path).await;
            read.map_err(|error| format!("`{path}` cannot be read: {error}"))?
        }
        None => text.to_owned(),
    };
    let input = read_json(text.as_bytes()).map_err(|error| format!("is not JSON: {error}"))?;
    check_value(&input).map_err(|limit| limit.to_string())?;
    Ok(input)
}

/// The directory for the files of runs, as it is stored.
pub(super) async fn canonical_workspace(path: Option<&Path>) -> Result<String, String> {
    let path = path.unwrap_or_else(|| Path::new("."));
    let found = tokio::fs::canonicalize(path).await;
    let found = found.map_err(|error| format!("`{}` cannot be used: {error}", path.display()))?;
    if !found.is_dir() {
        return Err(format!("`{}` is no directory", path.display()));
    }
    found.into_os_string().into_string().map_err(|_| format!("`{}` is no path in UTF-8", path.display()))
}

//! What a call of a tool costs beside the tool's own work, and whether calls that wait hold each other up.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::DateTime;
use serde_json::{Value, json};

use crate::connection::{Connection, get, post_as};
use crate::load::{at_once, times};
use crate::stand::Stand;
use crate::statistics::quantile;
use crate::table::Figure::Time;
use crate::table::Report;

/// How long one turn takes.
const TURN: Duration = Duration::from_secs(1);

/// The nodes of a run that calls a tool again and again.
const N_NODES: usize = 40;

const RUNS_PER_ROUND: usize = 5;

/// The pause before a run is asked for again: asking costs the server time, too.
const POLL: Duration = Duration::from_millis(50);

const N_WAITS: usize = 200;

/// What each of them waits.
const WAIT: Duration = Duration::from_secs(1);

/// Fills the lines about tools.
pub(crate) fn measure(stand: &Stand, n_rounds: usize, report: &mut Report) -> Result<()> {
    eprintln!("calls of tools");
    let token = stand.log_in()?;
    one_by_one(stand, &token, n_rounds, report)?;
    in_a_pipeline(stand, &token, n_rounds, report)?;
    at_the_same_time(stand, &token, n_rounds, report)
}

fn call(tool: &str, params: &Value, token: &str) -> Vec<u8> {
    post_as(&format!("/api/v1/tools/{tool}/invoke"), &json!({ "params": params }), Some(token))
}

/// A tool without work of its own, and the smallest commit, in turn.
fn one_by_one(stand: &Stand, token: &str, n_rounds: usize, report: &mut Report) -> Result<()> {
    let mut connection = stand.connection()?;
    let request = call("now", &json!({}), token);
    let (mut calls, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..n_rounds {
        calls.extend(times(&mut connection, &request, TURN)?);
        commits.extend(stand.commits(TURN)?);
    }
    let of = |times: &[Duration]| quantile(times, 0.5).map(Time).context("nothing was measured");
    report.add("a call of the tool `now`, p50", of(&calls)?, ("a commit of one row, p50", of(&commits)?));
    Ok(())
}

/// Nodes that call a tool without work of its own, one after the other in one run: the run's time for each of them, and
/// the smallest commit, in turn.
fn in_a_pipeline(stand: &Stand, token: &str, n_rounds: usize, report: &mut Report) -> Result<()> {
    let name = |number: usize| format!("n{number}");
    let node = |number| json!({"id": name(number), "type": "tool", "config": {"tool": "now"}});
    let nodes: Vec<Value> = (0..N_NODES).map(node).collect();
    let edges = (1..N_NODES).map(|number| json!({"from": name(number - 1), "to": name(number)}));
    let definition = json!({"nodes": nodes, "edges": edges.collect::<Vec<_>>()});
    let mut connection = stand.connection()?;
    let body = json!({"name": "chain", "definition": definition});
    let created = connection.exchange(&post_as("/api/v1/pipelines", &body, Some(token)))?.expect(201)?;
    let start = format!("/api/v1/pipelines/{}/runs", created.text_of("id")?);
    let (mut calls, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..n_rounds * RUNS_PER_ROUND {
        let started = connection.exchange(&post_as(&start, &json!({}), Some(token)))?.expect(202)?;
        let path = format!("/api/v1/runs/{}", started.text_of("id")?);
        let ended = loop {
            let run = connection.exchange(&get(&path, Some(token)))?.expect(200)?;
            match run.text_of("state")?.as_str() {
                "succeeded" => break run,
                "queued" | "running" => std::thread::sleep(POLL),
                other => bail!("the run is {other}"),
            }
        };
        let at = |name: &str| anyhow::Ok(DateTime::parse_from_rfc3339(&ended.text_of(name)?)?);
        let took = (at("ended_at")? - at("started_at")?).to_std()?;
        calls.push(took / u32::try_from(N_NODES)?);
        commits.extend(stand.commits(TURN / 10)?);
    }
    let of = |times: &[Duration]| quantile(times, 0.5).map(Time).context("nothing was measured");
    let what = format!("a node that calls `now`, in a run of {N_NODES}, p50");
    report.add(what, of(&calls)?, ("a commit of one row, p50", of(&commits)?));
    Ok(())
}

/// Calls that wait, all at once, each on a connection of its own; the median of the rounds.
fn at_the_same_time(stand: &Stand, token: &str, n_rounds: usize, report: &mut Report) -> Result<()> {
    let request = call("wait", &json!({"seconds": WAIT.as_secs()}), token);
    let mut rounds = Vec::new();
    for _ in 0..n_rounds {
        let start_together = Barrier::new(N_WAITS);
        let ends = at_once(N_WAITS, |_| {
            let connection = Connection::open(stand.address());
            start_together.wait();
            let (mut connection, start) = (connection?, Instant::now());
            connection.exchange(&request)?.expect(200)?;
            Ok((start, Instant::now()))
        })?;
        let first = ends.iter().map(|(start, _)| *start).min().context("no call")?;
        let last = ends.iter().map(|(_, end)| *end).max().context("no call")?;
        rounds.push(last - first);
    }
    let median = quantile(&rounds, 0.5).map(Time).context("nothing was measured")?;
    let what = format!("{N_WAITS} calls of the tool `wait` at once, each of 1 s");
    report.add(what, median, ("the wait alone", Time(WAIT)));
    Ok(())
}

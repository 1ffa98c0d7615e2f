//! Many runs at once: what grouping makes of the commits.

use anyhow::Result;
use gathering_dag_engine::ClaimScope;

use crate::bare;
use crate::graphs;
use crate::stand::Stand;
use crate::table::{Figure, Report, median_rate};

const N_CROWD: usize = 100;
const CHAIN: usize = 40;

/// What a node leaves in the journal: its start and its end.
const ROWS_PER_NODE: usize = 2;

/// Keys that share the runs of a queue, and what each lets execute at once.
const N_KEYS: usize = 1000;
const PERMITS: i32 = 10;

/// How many rows a bare claim takes.
const PER_CLAIM: usize = 500;

/// 100 chains at once, against the same number of rows written by a plain loop.
pub(crate) async fn crowd(stand: &Stand, n_rounds: usize, report: &mut Report) -> Result<()> {
    eprintln!("{N_CROWD} runs at once");
    let graph = stand.graph(&graphs::chain(CHAIN)).await?;
    let n_nodes = N_CROWD * CHAIN;
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=n_rounds {
        stand.enqueue(graph, N_CROWD).await?;
        let time = stand.drain(n_nodes).await?;
        let n_rows = n_nodes * ROWS_PER_NODE;
        let limit = bare::write_rows(&stand.session, n_rows, N_CROWD * ROWS_PER_NODE).await?;
        if round > 0 {
            ours.push(n_nodes as f64 / time.as_secs_f64());
            limits.push(n_nodes as f64 / limit.as_secs_f64());
        }
    }
    let what = format!("{N_CROWD} runs of {CHAIN} nodes in a row at once, nodes");
    let limit = "the same rows in as many commits as there are steps, nodes";
    report.add(what, median_rate(&ours)?, (limit, median_rate(&limits)?));
    Ok(())
}

/// A long queue of the smallest runs.
pub(crate) async fn drain(stand: &Stand, n_runs: usize, n_rounds: usize, report: &mut Report) -> Result<()> {
    eprintln!("{n_runs} queued runs");
    let graph = stand.graph(&graphs::chain(1)).await?;
    let (mut ours, mut claims, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let (mut accepting, mut driving) = (Vec::new(), Vec::new());
    let rate = |time: std::time::Duration| n_runs as f64 / time.as_secs_f64();
    for round in 0..=n_rounds.min(3) {
        let before = stand.log_position().await?;
        stand.enqueue(graph, n_runs).await?;
        let accepted = stand.log_position().await?;
        let drained = stand.drain(n_runs).await?;
        let after = stand.log_position().await?;
        stand.enqueue(graph, n_runs).await?;
        let claimed = claim_all(stand, n_runs).await?;
        if round > 0 {
            ours.push(rate(drained));
            claims.push(rate(claimed));
            bare.push(rate(bare::claim_rows(&stand.session, n_runs, PER_CLAIM).await?));
            accepting.push((accepted - before) / n_runs as f64);
            driving.push((after - accepted) / n_runs as f64);
        }
    }
    let limit = (format!("bare claims of {PER_CLAIM} rows"), median_rate(&bare)?);
    report.add(format!("{n_runs} queued runs of one node, drained"), median_rate(&ours)?, limit.clone());
    report.add("the same, claimed in batches and not driven", median_rate(&claims)?, limit);
    let of = ("2 KiB", Figure::Bytes(2048.0));
    report.add("written to the database's log by a run of one node, accepted", least(&accepting), of);
    report.add("the same, claimed and driven", least(&driving), of);
    Ok(())
}

/// A long queue of the smallest runs, all limited by keys, against the same queue without keys.
pub(crate) async fn lines(stand: &Stand, n_runs: usize, n_rounds: usize, report: &mut Report) -> Result<()> {
    eprintln!("{n_runs} runs in the lines of {N_KEYS} keys");
    let graph = stand.graph(&graphs::chain(1)).await?;
    let (mut limited, mut free) = (Vec::new(), Vec::new());
    let rate = |time: std::time::Duration| n_runs as f64 / time.as_secs_f64();
    for round in 0..=n_rounds.min(3) {
        stand.enqueue_in_lines(graph, n_runs, N_KEYS, PERMITS).await?;
        let in_lines = stand.drain(n_runs).await?;
        stand.enqueue(graph, n_runs).await?;
        let queued = stand.drain(n_runs).await?;
        if round > 0 {
            limited.push(rate(in_lines));
            free.push(rate(queued));
        }
    }
    let what = format!("{n_runs} queued runs of one node over {N_KEYS} keys of {PERMITS} permits, drained");
    report.add(what, median_rate(&limited)?, ("the same without keys", median_rate(&free)?));
    Ok(())
}

/// Claims everything and ends it behind the engine's back, so that the next round finds an empty queue.
async fn claim_all(stand: &Stand, n_runs: usize) -> Result<std::time::Duration> {
    let (start, mut n_claimed) = (std::time::Instant::now(), 0);
    while n_claimed < n_runs {
        n_claimed +=
            stand.store().claim(stand.liveness().instance(), ClaimScope::Queue, PER_CLAIM).await?.len();
    }
    let time = start.elapsed();
    let sql = "DELETE FROM active_runs; UPDATE runs SET state = 'succeeded', ended_at = now() WHERE ended_at IS NULL";
    stand.session.batch_execute(sql).await?;
    Ok(time)
}

/// What every round writes; full pages after a checkpoint of the database come on top of it.
fn least(bytes: &[f64]) -> Figure {
    Figure::Bytes(bytes.iter().copied().fold(f64::INFINITY, f64::min))
}

//! One run at a time: the cost of durability when no runs share a commit.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::bare::Commits;
use crate::graphs;
use crate::stand::Stand;
use crate::table::{Figure, Report, quantile};

const CHAIN: usize = 40;
const WIDTH: usize = 100;
const N_DELAYS: usize = 10;

/// Runs before those that count: the first ones plan and load.
const WARM_UP: usize = 10;

/// Fills the lines about single runs.
pub(crate) async fn measure(stand: &Stand, n_runs: usize, report: &mut Report) -> Result<()> {
    eprintln!("one run at a time");
    cold(stand, report).await?;
    let chain = Shape { definition: graphs::chain(CHAIN), n_commits: CHAIN, n_runs };
    chain.compare(stand, &format!("one run of {CHAIN} nodes in a row"), report).await?;
    let one = Shape { definition: graphs::chain(1), n_commits: 1, n_runs };
    one.compare(stand, "one run of one node: claim, start, end", report).await?;
    let fan = Shape { definition: graphs::fan(WIDTH), n_commits: 10, n_runs };
    fan.compare(stand, &format!("one run of 1 to {WIDTH} to 1 nodes"), report).await?;
    delays(stand, report).await
}

struct Shape {
    definition: Value,
    n_commits: usize,
    n_runs: usize,
}

impl Shape {
    /// A run and its limit in turn.
    async fn compare(&self, stand: &Stand, what: &str, report: &mut Report) -> Result<()> {
        let graph = stand.graph(&self.definition).await?;
        let commits = Commits::prepare(&stand.session).await?;
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..WARM_UP {
            stand.drive_one(graph).await?;
            commits.write(self.n_commits).await?;
        }
        for _ in 0..self.n_runs {
            ours.push(stand.drive_one(graph).await?);
            limits.push(commits.write(self.n_commits).await?);
        }
        let n_commits = self.n_commits;
        for (q, name) in [(0.5, "p50"), (0.99, "p99")] {
            let limit = (format!("{n_commits} minimal commits, {name}"), quantile(&limits, q)?);
            report.add(format!("{what}, {name}"), quantile(&ours, q)?, limit);
        }
        Ok(())
    }
}

/// The very first run of a process: nothing is prepared.
async fn cold(stand: &Stand, report: &mut Report) -> Result<()> {
    let graph = stand.graph(&graphs::chain(CHAIN)).await?;
    let commits = Commits::prepare(&stand.session).await?;
    let ours = stand.drive_one(graph).await?;
    let limit = commits.write(CHAIN).await?;
    let name = format!("{CHAIN} minimal commits");
    report.add(
        format!("the first run of a process, {CHAIN} nodes in a row"),
        Figure::Time(ours),
        (name, Figure::Time(limit)),
    );
    Ok(())
}

async fn delays(stand: &Stand, report: &mut Report) -> Result<()> {
    let graph = stand.graph(&graphs::delays(N_DELAYS)).await?;
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(stand.drive_one(graph).await?);
    }
    let limit = ("1 s", Figure::Time(Duration::from_secs(1)));
    report.add(format!("{N_DELAYS} delays of 1 s at once, p50"), quantile(&times, 0.5)?, limit);
    Ok(())
}

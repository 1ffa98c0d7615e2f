//! What was found, as Markdown.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

/// Everything that one run found.
#[derive(Default)]
pub(crate) struct Report {
    /// What the figures depend on.
    pub(crate) machine: String,
    lines: Vec<Line>,
}

/// A figure, and what it is measured against.
struct Line {
    what: String,
    figure: Figure,
    limit: (String, Figure),
}

/// A measured value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    Time(Duration),
    PerSecond(f64),
    Bytes(f64),
    Count(f64),
}

impl Report {
    /// Adds a figure beside its limit.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        figure: Figure,
        limit: (impl Into<String>, Figure),
    ) {
        let (name, limit) = limit;
        self.push(Line { what: what.into(), figure, limit: (name.into(), limit) });
    }

    fn push(&mut self, line: Line) {
        eprintln!("{line}");
        self.lines.push(line);
    }

    /// Prints the table.
    #[expect(clippy::print_stdout, reason = "the table is the result of the benchmark")]
    pub(crate) fn print(&self) {
        println!("{self}");
    }
}

/// The sample that the share `q` of all samples does not exceed (nearest rank).
pub(crate) fn quantile(samples: &[Duration], q: f64) -> Result<Figure> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (q * sorted.len() as f64).ceil() as usize;
    let sample = sorted.get(rank.clamp(1, sorted.len().max(1)) - 1);
    sample.copied().map(Figure::Time).context("nothing was measured")
}

/// The median of some rates.
pub(crate) fn median_rate(rates: &[f64]) -> Result<Figure> {
    let mut sorted = rates.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().map(Figure::PerSecond).context("nothing was measured")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n", self.machine)?;
        writeln!(f, "| measure | figure | limit | its figure | ratio |\n|---|---:|---|---:|---:|")?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, figure, limit: (name, limit) } = self;
        let ratio = figure.value() / limit.value();
        write!(f, "| {what} | {figure} | {name} | {limit} | {ratio:.2} |")
    }
}

impl Figure {
    fn value(self) -> f64 {
        match self {
            Figure::Time(time) => time.as_secs_f64(),
            Figure::PerSecond(value) | Figure::Bytes(value) | Figure::Count(value) => value,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::PerSecond(rate) => write!(f, "{rate:.0} /s"),
            Figure::Count(count) => write!(f, "{count:.0}"),
            Figure::Bytes(bytes) if *bytes >= 1e6 => write!(f, "{:.1} MB", bytes / 1e6),
            Figure::Bytes(bytes) => write!(f, "{bytes:.0} B"),
            Figure::Time(time) => match time.as_secs_f64() * 1e6 {
                us @ 100_000.0.. => write!(f, "{:.0} ms", us / 1e3),
                us @ 1000.0.. => write!(f, "{:.2} ms", us / 1e3),
                us => write!(f, "{us:.0} µs"),
            },
        }
    }
}

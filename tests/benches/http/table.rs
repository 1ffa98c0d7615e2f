//! What was found, as Markdown.

use std::fmt;
use std::time::Duration;

use crate::COST;
use crate::statistics::RankTest;

/// From this likelihood of chance downwards a difference counts.
const SIGNIFICANT: f64 = 0.01;

/// At the usual cost a smaller share of the median drowns in the network.
const TELLING_SHARE: f64 = 0.02;

/// At another cost, where there are many samples and nothing is hidden, chance is given less room, and what counts is what
/// stands out of a network's own differences after a few requests.
const CHEAP_SIGNIFICANT: f64 = 0.001;
const CHEAP_TELLING_US: f64 = 500.0;

/// Everything that one run found.
#[derive(Default)]
pub(crate) struct Report {
    /// What the figures depend on.
    pub(crate) machine: String,
    /// Figures, each beside its limit.
    pub(crate) lines: Vec<Line>,
    /// What should not differ.
    pub(crate) comparisons: Vec<Comparison>,
    /// What a line cannot say.
    pub(crate) notes: Vec<String>,
}

/// A figure, and what it is measured against.
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) figure: Figure,
    /// `None` for what is a limit itself.
    pub(crate) limit: Option<(&'static str, Figure)>,
}

/// A measured value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    Time(Duration),
    PerSecond(f64),
}

/// Two groups of times that a client should not be able to tell apart.
pub(crate) struct Comparison {
    /// bcrypt's cost.
    pub(crate) cost: u32,
    pub(crate) names: [&'static str; 2],
    pub(crate) medians: [Duration; 2],
    pub(crate) test: RankTest,
}

impl Report {
    /// Adds a figure beside its limit.
    pub(crate) fn add(&mut self, what: impl Into<String>, figure: Figure, limit: (&'static str, Figure)) {
        self.lines.push(Line { what: what.into(), figure, limit: Some(limit) });
    }

    /// Adds a limit for its own sake.
    pub(crate) fn add_limit(&mut self, what: impl Into<String>, figure: Figure) {
        self.lines.push(Line { what: what.into(), figure, limit: None });
    }

    /// Prints the tables.
    #[expect(clippy::print_stdout, reason = "the tables are the result of the benchmark")]
    pub(crate) fn print(&self) {
        println!("{self}");
    }
}

impl Comparison {
    /// How much later the second median is, in microseconds.
    fn difference_us(&self) -> f64 {
        let [first, second] = self.medians.map(|median| median.as_secs_f64() * 1e6);
        second - first
    }

    fn is_significant(&self) -> bool {
        self.test.p <= SIGNIFICANT
    }

    /// Whether a client learns something: there is a difference, and it is large enough to be seen from afar.
    pub(crate) fn is_telling(&self) -> bool {
        let (median_us, difference_us) = (self.medians[0].as_secs_f64() * 1e6, self.difference_us().abs());
        if self.cost == COST {
            self.is_significant() && difference_us > TELLING_SHARE * median_us
        } else {
            self.test.p <= CHEAP_SIGNIFICANT && difference_us > CHEAP_TELLING_US
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.machine)?;
        if !self.lines.is_empty() {
            writeln!(f, "\n| measure | figure | limit | its figure | ratio |\n|---|---:|---|---:|---:|")?;
            self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        }
        if !self.comparisons.is_empty() {
            writeln!(
                f,
                "\n| cost | compared | medians | difference | z | p | |\n|---:|---|---:|---:|---:|---:|---|"
            )?;
            self.comparisons.iter().try_for_each(|comparison| writeln!(f, "{comparison}"))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, figure, limit } = self;
        match limit {
            None => write!(f, "| {what} | {figure} | | | |"),
            Some((name, limit)) => {
                let ratio = figure.value() / limit.value();
                // A small share keeps its two digits.
                let n_digits = if ratio < 0.1 { 3 } else { 2 };
                write!(f, "| {what} | {figure} | {name} | {limit} | {ratio:.n_digits$} |")
            }
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.medians.map(Figure::Time);
        let (difference, RankTest { z, p, .. }) = (self.difference_us(), self.test);
        let share = difference / (self.medians[0].as_secs_f64() * 1e4);
        let verdict = match (self.is_significant(), self.is_telling()) {
            (false, _) => "indistinguishable".to_owned(),
            (true, false) => format!("differ by {share:+.2} %"),
            (true, true) => format!("**differ by {share:+.2} %**"),
        };
        let p = if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") };
        write!(
            f,
            "| {} | {} / {} | {first} / {second} | {difference:+.0} µs | {z:+.2} | {p} | {verdict} |",
            self.cost, self.names[0], self.names[1]
        )
    }
}

impl Figure {
    fn value(self) -> f64 {
        match self {
            Figure::Time(time) => time.as_secs_f64(),
            Figure::PerSecond(rate) => rate,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::PerSecond(rate) if *rate >= 100.0 => write!(f, "{rate:.0} /s"),
            Figure::PerSecond(rate) => write!(f, "{rate:.2} /s"),
            Figure::Time(time) => {
                let us = time.as_secs_f64() * 1e6;
                match us {
                    100_000.0.. => write!(f, "{:.0} ms", us / 1e3),
                    1000.0.. => write!(f, "{:.2} ms", us / 1e3),
                    100.0.. => write!(f, "{us:.0} µs"),
                    _ => write!(f, "{us:.1} µs"),
                }
            }
        }
    }
}

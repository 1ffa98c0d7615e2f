//! Shows the progress of a run to the user who started it, from its journal alone.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use chrono::{DateTime, Local, Utc};
use gathering_dag_engine::{Graph, JournalEntry, JournalEvent, NodeRun, NodeState};
use gathering_domain::{NodeId, RunId, WaitingFor};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// A graph with more nodes does not fit on a screen: its events are printed line by line.
const MAX_LIVE_NODES: usize = 30;

/// How much of a failure's message is shown while the run goes on; the end shows all of it.
const MAX_MESSAGE_CHARS: usize = 200;

/// Shows a run's journal, entry by entry.
pub(super) struct Progress {
    nodes: HashMap<NodeId, NodeRun>,
    width: usize,
    shown: Shown,
    /// Whether the last entry said that the run was taken over; its recovery and its claim both say so.
    is_taken_over: bool,
}

enum Shown {
    /// A line for each node, kept up to date, on a terminal.
    Live { all: MultiProgress, lines: HashMap<NodeId, Line> },
    /// A line for each event of a node, on standard error.
    Plain,
    /// Each entry as JSON, on standard output.
    Json { run: RunId },
}

struct Line {
    bar: ProgressBar,
    since: Instant,
}

impl Progress {
    pub(super) fn new(graph: &Graph, run: RunId, json: bool) -> Self {
        let n_nodes = graph.order().count();
        let width = graph.order().map(str::len).max().unwrap_or(0);
        let shown = if json {
            Shown::Json { run }
        } else if std::io::stderr().is_terminal() && n_nodes <= MAX_LIVE_NODES {
            Shown::Live { all: MultiProgress::new(), lines: HashMap::new() }
        } else {
            Shown::Plain
        };
        Self { nodes: HashMap::new(), width, shown, is_taken_over: false }
    }

    /// Applies the next entry of the journal and shows it.
    pub(super) fn note(&mut self, entry: &JournalEntry) {
        if let Some(id) = &entry.record.node {
            let node = self.nodes.entry(id.clone()).or_default();
            if let Err(error) = node.apply(&entry.record.event, entry.record.attempt, entry.at) {
                tracing::warn!(error = %error, "the journal of this run does not add up");
                return;
            }
        }
        let was_taken_over =
            std::mem::replace(&mut self.is_taken_over, entry.record.event == JournalEvent::TakenOver);
        // Written when the run was accepted: results of an earlier run, which the plan has shown.
        let is_kept = entry.epoch == 0;
        match &mut self.shown {
            Shown::Json { run } => print_line(&entry_json(*run, entry)),
            Shown::Plain | Shown::Live { .. } if is_kept => {}
            Shown::Plain if was_taken_over && self.is_taken_over => {}
            Shown::Plain => {
                if let Some(line) = plain_line(entry, &self.nodes, self.width) {
                    tell(&line);
                }
            }
            Shown::Live { all, lines } => {
                let Some(id) = &entry.record.node else { return };
                let Some(node) = self.nodes.get(id) else { return };
                let line = lines.entry(id.clone()).or_insert_with(|| Line::begin(all));
                line.show(id, node, &entry.record.event, self.width);
            }
        }
    }

    /// Updates the elapsed time.
    pub(super) fn tick(&self) {
        if let Shown::Live { lines, .. } = &self.shown {
            for (id, line) in lines {
                if let Some(node) = self.nodes.get(id).filter(|node| !node.state.is_resolved()) {
                    line.bar.set_message(line.text(id, node, self.width));
                    line.bar.tick();
                }
            }
        }
    }

    /// Keeps the lines as they are: the run has no more entries.
    pub(super) fn end(&self) {
        if let Shown::Live { lines, .. } = &self.shown {
            for line in lines.values().filter(|line| !line.bar.is_finished()) {
                line.bar.abandon();
            }
            if !lines.is_empty() {
                // The lines leave the cursor at the end of the last one.
                tell("");
            }
        }
    }
}

impl Line {
    fn begin(all: &MultiProgress) -> Self {
        let bar = all.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        Self { bar, since: Instant::now() }
    }

    fn show(&mut self, id: &NodeId, node: &NodeRun, event: &JournalEvent, width: usize) {
        if *event == JournalEvent::Started {
            self.since = Instant::now();
        }
        let text = self.text(id, node, width);
        if node.state.is_resolved() {
            let sign = match node.state {
                NodeState::Succeeded => "✓",
                NodeState::Skipped => "-",
                _ => "✗",
            };
            if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_msg}") {
                self.bar.set_style(style);
            }
            self.bar.set_prefix(sign);
            self.bar.finish_with_message(text);
        } else {
            self.bar.set_message(text);
        }
    }

    fn text(&self, id: &NodeId, node: &NodeRun, width: usize) -> String {
        let took = took(node).unwrap_or_else(|| self.since.elapsed());
        describe(id, node, Some(took), width)
    }
}

/// `fetch      succeeded  attempt 1  0.12 s`.
fn describe(id: &NodeId, node: &NodeRun, took: Option<Duration>, width: usize) -> String {
    let mut text = format!("{:<width$}  {:<9}", id.as_str(), node.state.as_str());
    if node.attempt > 0 {
        text.push_str(&format!("  attempt {}", node.attempt));
        if let Some(took) = took {
            text.push_str(&format!("  {:.2} s", took.as_secs_f64()));
        }
    }
    if node.waiting_for == Some(WaitingFor::BudgetExceeded) {
        text.push_str("  for its budget");
    }
    if let Some(until) = node.until {
        text.push_str(&format!("  until {}", clock(until)));
    }
    if let Some(failure) = node.failure.as_ref().filter(|_| node.state != NodeState::Running) {
        text.push_str("  ");
        text.push_str(&one_line(&failure.message));
    }
    text.trim_end().to_owned()
}

fn took(node: &NodeRun) -> Option<Duration> {
    (node.ended_at? - node.started_at?).to_std().ok()
}

fn plain_line(entry: &JournalEntry, nodes: &HashMap<NodeId, NodeRun>, width: usize) -> Option<String> {
    let time = clock(entry.at);
    match (&entry.record.node, &entry.record.event) {
        (
            _,
            JournalEvent::EffectStarted(_)
            | JournalEvent::EffectDone { .. }
            | JournalEvent::EffectFailed { .. }
            | JournalEvent::EffectUnknown { .. },
        ) => None,
        (None, JournalEvent::TakenOver) => Some(format!("{time}  the run resumes")),
        (None, other) => Some(format!("{time}  {}", other.kind())),
        (Some(id), event) => {
            let node = nodes.get(id)?;
            let since = |at: DateTime<Utc>| (entry.at - at).to_std().ok();
            let took = match event {
                JournalEvent::Started | JournalEvent::Woken => None,
                _ => took(node).or_else(|| node.started_at.and_then(since)),
            };
            Some(format!("{time}  {}", describe(id, node, took, width)))
        }
    }
}

fn clock(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%H:%M:%S").to_string()
}

fn one_line(text: &str) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(MAX_MESSAGE_CHARS) {
        line.truncate(at);
        line.push('…');
    }
    line
}

/// An entry of the journal, with the names that the HTTP interface gives them.
fn entry_json(run: RunId, entry: &JournalEntry) -> Value {
    json!({
        "run_id": run,
        "seq": entry.seq,
        "node_id": entry.record.node,
        "attempt": entry.record.attempt,
        "kind": entry.record.event.kind(),
        "payload": entry.record.event.payload(),
        "owner": entry.owner,
        "epoch": entry.epoch,
        "at": entry.at,
    })
}

/// One JSON line on standard output. A closed output is not an error.
pub(super) fn print_line(value: &Value) {
    writeln!(std::io::stdout(), "{value}").ok();
}

/// One line on standard error.
pub(super) fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use gathering_dag_engine::{NodeFailure, Record};

    use gathering_domain::FailureKind;

    use super::*;

    fn lines(events: Vec<(i32, JournalEvent)>) -> Vec<String> {
        let id: NodeId = "fetch".parse().unwrap();
        let start: DateTime<Utc> = "2026-11-23T12:00:00Z".parse().unwrap();
        let mut nodes = HashMap::new();
        let mut lines = Vec::new();
        for (seq, (attempt, event)) in (1..).zip(events) {
            let at = start + chrono::TimeDelta::milliseconds(seq * 120);
            let record = Record::of_node(id.clone(), attempt, event);
            let entry = JournalEntry { seq, record, owner: None, epoch: 1, at };
            let node: &mut NodeRun = nodes.entry(id.clone()).or_default();
            node.apply(&entry.record.event, attempt, at).unwrap();
            lines.extend(plain_line(&entry, &nodes, 8).map(|line| line[10..].to_owned()));
        }
        lines
    }

    #[test]
    fn each_event_of_a_node_is_one_line() {
        let failure = NodeFailure::retryable(FailureKind::HttpStatus, "503\nfrom the peer");
        let until = "2026-11-23T12:00:01Z".parse().unwrap();
        let told = lines(vec![
            (1, JournalEvent::Started),
            (1, JournalEvent::Retrying { failure, until }),
            (2, JournalEvent::Started),
            (2, JournalEvent::Succeeded { output: Value::Null }),
        ]);
        assert_eq!(told[0], "fetch     running    attempt 1");
        assert!(told[1].starts_with("fetch     retrying   attempt 1  0.12 s  until "), "{told:?}");
        assert!(told[1].ends_with("  503 from the peer"), "{told:?}");
        assert_eq!(told[2], "fetch     running    attempt 2");
        assert_eq!(told[3], "fetch     succeeded  attempt 2  0.12 s");
        assert_eq!(lines(vec![(0, JournalEvent::Skipped)]), ["fetch     skipped"]);
    }
}

//! Finds text in the files of a directory. Everything is bounded: files, bytes, matches and time.

use std::io::Read as _;
use std::time::{Duration, Instant};

use regex::{Regex, RegexBuilder};

use super::inside::Inside;
use super::list::{self, EntryKind, ListOptions};
use super::{WorkspaceError, WorkspacePath, open_file};
use crate::cut::mark;

/// How many files one search opens.
const MAX_FILES: usize = 10_000;
/// How much it reads: 256 MiB.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// How long it takes.
const MAX_TIME: Duration = Duration::from_secs(10);
/// The time is read again after this many lines.
const LINES_PER_LOOK: usize = 4096;
/// The memory of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;
/// A longer line is cut around its match.
const MAX_LINE_BYTES: usize = 500;
/// How much of a cut line is shown before its match.
const BEFORE_MATCH_BYTES: usize = 100;
/// A file with a zero byte in its beginning is binary, as for `grep` and `git`.
const BINARY_LOOK_BYTES: usize = 8 * 1024;

/// What to search for, and how much.
#[derive(Debug, Clone)]
pub struct SearchOptions {
    pattern: Regex,
    files: ListOptions,
    /// The most matches of the answer.
    pub max_matches: usize,
    /// How many lines to show before and after each match.
    pub context_lines: usize,
    /// Only this much of each file is searched.
    pub max_bytes_per_file: u64,
}

/// A text that is not a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a regular expression: {0}")]
pub struct InvalidPattern(String);

impl SearchOptions {
    /// Searches every file line by line: at most 100 matches without context, and the first 1 MiB of each file. The
    /// pattern is a regular expression that takes linear time.
    ///
    /// # Errors
    /// [`InvalidPattern`] if it is none, or too large.
    pub fn new(pattern: &str, case_sensitive: bool) -> Result<Self, InvalidPattern> {
        let pattern = RegexBuilder::new(pattern)
            .case_insensitive(!case_sensitive)
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES)
            .build()
            .map_err(|error| InvalidPattern(reason(&error)))?;
        let files = ListOptions::recursive();
        Ok(Self { pattern, files, max_matches: 100, context_lines: 0, max_bytes_per_file: 1024 * 1024 })
    }

    /// Searches only the files that match, as [`ListOptions::matching`].
    #[must_use]
    pub fn in_files(mut self, glob: &str) -> Self {
        self.files = self.files.matching(glob);
        self
    }
}

/// The last line of the error; the lines above draw the place.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().next_back().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    }
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// The matches in the order of lists, and then of lines. One for each line.
    pub matches: Vec<TextMatch>,
    /// The files that were searched.
    pub n_files: usize,
    /// The files that were skipped because they are binary.
    pub n_binary: usize,
    /// The files that were skipped because they cannot be read.
    pub n_unreadable: usize,
    /// The files of which only the beginning was searched.
    pub n_partly: usize,
    /// Why the search ended early, if it did.
    pub stopped: Option<SearchStop>,
}

/// A line that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextMatch {
    /// The file.
    pub path: WorkspacePath,
    /// The number of the line, from 1.
    pub line: usize,
    /// The character where the first match of the line begins, from 1.
    pub column: usize,
    /// The line. A long one is cut around the match.
    pub text: String,
    /// The lines before it.
    pub before: Vec<String>,
    /// The lines after it.
    pub after: Vec<String>,
}

/// Why a search ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchStop {
    /// There are more matches than asked for.
    Matches,
    /// There are too many files.
    Files,
    /// The files are too large.
    Bytes,
    /// It took too long.
    Time,
}

impl SearchStop {
    /// The reason's name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            SearchStop::Matches => "matches",
            SearchStop::Files => "files",
            SearchStop::Bytes => "bytes",
            SearchStop::Time => "time",
        }
    }
}

/// Searches the file `path`, or every file below the directory `path`.
pub(super) fn search(
    inside: &Inside,
    path: &WorkspacePath,
    options: &SearchOptions,
) -> Result<Search, WorkspaceError> {
    let mut searching =
        Searching { inside, options, begun: Instant::now(), left_bytes: MAX_BYTES, found: Search::default() };
    if list::entry(inside, path)?.kind == EntryKind::File {
        searching.file(path);
        return Ok(searching.found);
    }
    let mut files = options.files.clone().limit(ListOptions::MAX_LIMIT);
    loop {
        let page = list::list(inside, path, &files)?;
        for entry in page.items.iter().filter(|entry| entry.kind == EntryKind::File) {
            searching.file(&entry.path);
            if searching.found.stopped.is_some() {
                return Ok(searching.found);
            }
        }
        match page.next {
            Some(next) if searching.is_in_time() => files = files.after(next),
            _ => return Ok(searching.found),
        }
    }
}

struct Searching<'a> {
    inside: &'a Inside,
    options: &'a SearchOptions,
    begun: Instant,
    left_bytes: u64,
    found: Search,
}

impl Searching<'_> {
    fn is_in_time(&mut self) -> bool {
        let in_time = self.begun.elapsed() < MAX_TIME;
        if !in_time {
            self.found.stopped = Some(SearchStop::Time);
        }
        in_time
    }

    fn file(&mut self, path: &WorkspacePath) {
        if !self.is_in_time() {
            return;
        }
        if self.found.n_files + self.found.n_binary + self.found.n_unreadable >= MAX_FILES {
            self.found.stopped = Some(SearchStop::Files);
            return;
        }
        let limit = self.options.max_bytes_per_file;
        let Some((bytes, size)) = self.read(path, limit) else {
            self.found.n_unreadable += 1;
            return;
        };
        let n_bytes = bytes.len() as u64;
        if n_bytes > self.left_bytes {
            self.found.stopped = Some(SearchStop::Bytes);
            return;
        }
        self.left_bytes -= n_bytes;
        if bytes.iter().take(BINARY_LOOK_BYTES).any(|byte| *byte == 0) {
            self.found.n_binary += 1;
            return;
        }
        self.found.n_files += 1;
        self.found.n_partly += usize::from(size > n_bytes);
        self.text(path, &String::from_utf8_lossy(&bytes));
    }

    /// The beginning of a file and its size. `None` if it has vanished or cannot be read.
    fn read(&self, path: &WorkspacePath, limit: u64) -> Option<(Vec<u8>, u64)> {
        self.inside.check_open(path).ok()?;
        let (file, facts) = open_file::open(self.inside.root(), path).ok()?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some((bytes, facts.size_bytes))
    }

    fn text(&mut self, path: &WorkspacePath, text: &str) {
        let mut start = 0;
        for (index, with_end) in text.split_inclusive('\n').enumerate() {
            if index % LINES_PER_LOOK == LINES_PER_LOOK - 1 && !self.is_in_time() {
                return;
            }
            let (line, end) = (without_end(with_end), start + with_end.len());
            if let Some(found) = self.options.pattern.find(line) {
                if self.found.matches.len() >= self.options.max_matches {
                    self.found.stopped = Some(SearchStop::Matches);
                    return;
                }
                let context = self.options.context_lines;
                let mut before: Vec<String> =
                    text[..start].lines().rev().take(context).map(|line| shown(line, 0)).collect();
                before.reverse();
                self.found.matches.push(TextMatch {
                    path: path.clone(),
                    line: index + 1,
                    column: line[..found.start()].chars().count() + 1,
                    text: shown(line, found.start()),
                    before,
                    after: text[end..].lines().take(context).map(|line| shown(line, 0)).collect(),
                });
            }
            start = end;
        }
    }
}

fn without_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// The line, or the part of a long one around the byte `at`.
fn shown(line: &str, at: usize) -> String {
    if line.len() <= MAX_LINE_BYTES {
        return line.to_owned();
    }
    let from = match at {
        0..=BEFORE_MATCH_BYTES => 0,
        at => line.floor_char_boundary(at - BEFORE_MATCH_BYTES),
    };
    let to = line.floor_char_boundary(from + MAX_LINE_BYTES);
    let left_out = if from > 0 { "…" } else { "" };
    format!("{left_out}{}{}", &line[from..to], mark(to - from, line.len()))
}

//! The cost of one evaluation, in iterations and in work: bytes that are read, compared, copied or created.
//!
//! It counts work, not time: the same scope costs the same on every machine and every replay, so a replay decides as the
//! live run did, however busy the machine is. An operation is charged before it is done, so nothing is allocated beyond
//! the budget.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cel::ExecutionError;
use cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString};
use cel::common::value::Val;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{MAX_STEPS, MAX_WORK};

/// The cost of a value besides its text and its elements: about its size in memory.
const VALUE: usize = 32;

/// The cost of compiling a regular expression, once per evaluation.
const REGEX: usize = 2 * 1024 * 1024;

/// How large a compiled regular expression may be.
const REGEX_BYTES: usize = 1024 * 1024;

/// The cost of each evaluation of a node of the syntax tree.
pub(super) const NODE: usize = 8;

#[derive(Debug)]
pub(super) struct Budget {
    steps: AtomicU32,
    work: AtomicUsize,
    /// The limit that was exceeded first. Boolean operators may hide the error, but not this.
    spent: OnceLock<String>,
    regexes: Mutex<HashMap<String, Regex>>,
}

impl Budget {
    pub(super) fn new(work: usize) -> Self {
        Self {
            steps: AtomicU32::new(MAX_STEPS),
            work: AtomicUsize::new(work),
            spent: OnceLock::new(),
            regexes: Mutex::default(),
        }
    }

    /// The limit that was exceeded, if any.
    pub(super) fn spent(&self) -> Option<&str> {
        self.spent.get().map(String::as_str)
    }

    /// Charges one iteration, whose body has `nodes` nodes.
    pub(super) fn step(&self, nodes: usize) -> Result<(), ExecutionError> {
        let paid = self.steps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        paid.map_err(|_| self.run_out(format!("more than {MAX_STEPS} iterations")))?;
        self.pay(nodes.saturating_mul(NODE))
    }

    pub(super) fn pay(&self, work: usize) -> Result<(), ExecutionError> {
        let paid =
            self.work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(work));
        paid.map(drop).map_err(|_| self.run_out(too_much()))
    }

    fn run_out(&self, what: String) -> ExecutionError {
        let error = ExecutionError::function_error("expression", &what);
        self.spent.get_or_init(|| what);
        error
    }

    /// Charges a whole value, and answers with its cost.
    pub(super) fn read<'v>(&self, value: &(dyn Val + 'v)) -> Result<usize, ExecutionError> {
        let mut cost = 0usize;
        let mut pay = |work: usize| {
            cost = cost.saturating_add(work);
            self.pay(work)
        };
        pay(VALUE)?;
        let mut open: Vec<&(dyn Val + 'v)> = vec![value];
        while let Some(value) = open.pop() {
            if let Some(text) = value.downcast_ref::<CelString<'_>>() {
                pay(text.len())?;
            } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
                pay(bytes.len())?;
            } else if let Some(list) = value.downcast_ref::<CelList<'_>>() {
                pay(list.len().saturating_mul(VALUE))?;
                open.extend(list.iter().map(|item| &**item));
            } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
                pay(map.inner().len().saturating_mul(2 * VALUE))?;
                for (key, value) in map.inner() {
                    open.extend([key.inner(), &**value]);
                }
            } else if let Some(inner) = value.downcast_ref::<CelOptional<'_>>().and_then(CelOptional::inner) {
                open.push(inner);
            }
        }
        Ok(cost)
    }

    /// Whether the pattern is found in the text.
    pub(super) fn matches(&self, text: &str, pattern: &str) -> Result<bool, ExecutionError> {
        // An automaton takes a few steps per byte; one that is large falls back to a slower way.
        self.pay(text.len().saturating_mul(4 + pattern.len() / 8))?;
        let mut regexes = self.regexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = regexes.get(pattern) {
            return Ok(regex.is_match(text));
        }
        self.pay(REGEX)?;
        let regex = RegexBuilder::new(pattern).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build();
        let regex = regex.map_err(|error| {
            ExecutionError::function_error(
                "matches",
                format!("'{pattern:.200}' is no regular expression: {error}"),
            )
        })?;
        let found = regex.is_match(text);
        regexes.insert(pattern.to_owned(), regex);
        Ok(found)
    }
}

/// The message about too much work.
pub(super) fn too_much() -> String {
    format!("it reads and makes more than {MAX_WORK} bytes")
}

/// Takes the cost of a value from `left` before it is converted for the interpreter. Answers whether that was enough.
pub(super) fn is_within(value: &Value, left: &mut usize) -> bool {
    let own = VALUE
        + match value {
            Value::String(text) => text.len(),
            Value::Object(fields) => fields.keys().map(|name| VALUE + name.len()).sum(),
            _ => 0,
        };
    let Some(rest) = left.checked_sub(own) else { return false };
    *left = rest;
    match value {
        Value::Array(items) => items.iter().all(|item| is_within(item, left)),
        Value::Object(fields) => fields.values().all(|value| is_within(value, left)),
        _ => true,
    }
}

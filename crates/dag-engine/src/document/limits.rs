//! The limits of a definition's size. A larger one is not checked any further.

use gathering_domain::{Pointer, Problems};
use serde_json::Value;

/// The most nodes that one graph may have.
pub const MAX_NODES: usize = 100_000;

/// The most edges that one graph may have.
pub const MAX_EDGES: usize = 500_000;

/// How large a definition may be: this many bytes when written as JSON without spaces.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// How deep the objects and lists of a definition may be nested; the definition itself is the first level.
pub const MAX_NESTING: usize = 64;

/// How many problems of one definition are named.
const MAX_PROBLEMS: usize = 1000;

/// Checks the limits; returns whether to check the definition further.
pub(crate) fn check(document: &Value, problems: &mut Problems) -> bool {
    // First of all, since everything else follows a document down.
    if let Some(at) = too_deep(document) {
        problems.add(at, format!("is nested more than {MAX_NESTING} levels deep"));
        return false;
    }
    let mut is_within = true;
    let size = size_of(document);
    if size > MAX_DOCUMENT_BYTES {
        let message = format!("must have at most {MAX_DOCUMENT_BYTES} bytes, not {size}");
        problems.add(Pointer::root(), message);
        is_within = false;
    }
    for (name, limit) in [("nodes", MAX_NODES), ("edges", MAX_EDGES)] {
        let n = document.get(name).and_then(Value::as_array).map_or(0, Vec::len);
        if n > limit {
            problems.add(Pointer::root().join(name), format!("must hold at most {limit} {name}, not {n}"));
            is_within = false;
        }
    }
    is_within
}

/// The problems in their order, as far as they are named.
pub(crate) fn named(problems: Problems) -> Problems {
    let n = problems.iter().count();
    if n <= MAX_PROBLEMS {
        return problems;
    }
    let mut named = Problems::new();
    for problem in problems.into_iter().take(MAX_PROBLEMS) {
        named.add(problem.pointer, problem.message);
    }
    named.add(Pointer::root(), format!("has {} more problems", n - MAX_PROBLEMS));
    named
}

/// The place of something that is nested too deep, if there is any. Goes no deeper than that itself.
fn too_deep(document: &Value) -> Option<Pointer> {
    // What is still to be looked at, with its depth; pointers are only made of what is found.
    let mut path = Vec::new();
    descend(document, MAX_NESTING, &mut path)
        .then(|| path.iter().rev().fold(Pointer::root(), |at: Pointer, token: &String| at.join(token)))
}

fn descend(value: &Value, left: usize, path: &mut Vec<String>) -> bool {
    let mut below = |token: &dyn ToString, value: &Value| {
        let found = descend(value, left - 1, path);
        if found {
            path.push(token.to_string());
        }
        found
    };
    match value {
        Value::Array(_) | Value::Object(_) if left == 0 => true,
        Value::Array(items) => items.iter().enumerate().any(|(index, item)| below(&index, item)),
        Value::Object(fields) => fields.iter().any(|(name, value)| below(name, value)),
        _ => false,
    }
}

fn size_of(document: &Value) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, document) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}

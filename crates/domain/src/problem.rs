//! The problems of an input, all at once, each with its location.

use std::fmt;

use crate::Pointer;

/// One problem of an input, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The location.
    pub pointer: Pointer,
    /// The problem, and how to fix it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.as_str().is_empty() { "/" } else { self.pointer.as_str() };
        write!(f, "{place}: {}", self.message)
    }
}

/// Collects every problem of an input, so that its author can fix all of them at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// No problems.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Exactly one problem.
    pub fn one(pointer: Pointer, message: impl Into<String>) -> Self {
        Self(vec![Problem { pointer, message: message.into() }])
    }

    /// Adds a problem.
    pub fn add(&mut self, pointer: Pointer, message: impl Into<String>) {
        self.0.push(Problem { pointer, message: message.into() });
    }

    /// Adds the problems of another check of the same input.
    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }

    /// The same problems as those of a value that has theirs at `place`.
    #[must_use]
    pub fn below(self, place: &Pointer) -> Self {
        let below = |problem: Problem| Problem {
            pointer: Pointer::from(format!("{}{}", place.as_str(), problem.pointer.as_str())),
            ..problem
        };
        Self(self.0.into_iter().map(below).collect())
    }

    /// Whether there are no problems.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// `Ok` if there are no problems.
    ///
    /// # Errors
    /// The problems themselves, if there are any.
    pub fn into_result(self) -> Result<(), Problems> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

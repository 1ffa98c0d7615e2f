//! What a change or deletion is meant for.

/// The thing that a change or deletion is meant for, by its revision: [`Pipeline::revision`](crate::Pipeline::revision) or
/// [`Agent::revision`](crate::Agent::revision).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedRevision {
    /// However it stands.
    Any,
    /// One of these revisions.
    OneOf(Vec<String>),
}

impl ExpectedRevision {
    /// Whether a thing with this revision is the expected one.
    pub(crate) fn includes(&self, revision: &str) -> bool {
        match self {
            ExpectedRevision::Any => true,
            ExpectedRevision::OneOf(revisions) => revisions.iter().any(|expected| expected == revision),
        }
    }
}

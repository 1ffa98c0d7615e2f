//! The mark of a text that was cut.

/// Says how much of a text is left.
pub(crate) fn mark(kept: usize, of: usize) -> String {
    format!("…[cut: {kept} of {of} bytes]")
}

//! The size of values as JSON without spaces, without writing them.

use std::io::{self, Write};

use serde_json::Value;

/// The size of a value.
pub(super) fn json_size(value: &Value) -> usize {
    let mut counter = Counter(0);
    // Counting never fails, and a value can always be written.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

/// The size of a text with its quotes.
pub(super) fn text_size(text: &str) -> usize {
    "\"\"".len() + text.chars().map(char_size).sum::<usize>()
}

/// The size of a character within a text.
pub(super) const fn char_size(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

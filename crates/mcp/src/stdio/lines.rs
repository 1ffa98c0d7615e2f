//! Lines of bounded length.
//!
//! Invariant: a line costs no more memory than its limit, however long it is.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// What is kept of each end of a line that is too long. It tells which request the line answers.
const ENDS: usize = 256;
/// A line longer than this is no line: the server writes without end.
const MAX_SKIPPED: u64 = 1 << 30;

/// Reads lines.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    limit: usize,
    partial: Partial,
}

/// A line without its line feed.
#[derive(Debug, PartialEq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    /// It was longer than the limit; this is how it began and ended.
    TooLong {
        head: Vec<u8>,
        tail: Vec<u8>,
    },
}

#[derive(Default)]
struct Partial {
    kept: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, reader), limit, partial: Partial::default() }
    }

    /// The next line; `None` at the end. Cancel: safe, what was read is kept.
    ///
    /// # Errors
    /// If the stream fails, or a line has no end.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return Ok((self.partial.total > 0).then(|| self.partial.take(self.limit)));
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            self.partial.add(part, self.limit);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(self.partial.take(self.limit)));
            }
            if self.partial.total > MAX_SKIPPED {
                return Err(io::Error::other("a line has no end"));
            }
        }
    }
}

impl Partial {
    fn add(&mut self, part: &[u8], limit: usize) {
        self.total += part.len() as u64;
        if self.total <= limit as u64 {
            self.kept.extend_from_slice(part);
            return;
        }
        if self.tail.is_empty() {
            self.tail = std::mem::take(&mut self.kept);
            let room = ENDS.saturating_sub(self.tail.len()).min(part.len());
            self.kept = self.tail.iter().chain(&part[..room]).take(ENDS).copied().collect();
        }
        self.tail.extend_from_slice(part);
        let surplus = self.tail.len().saturating_sub(ENDS);
        self.tail.drain(..surplus);
        self.tail.shrink_to(64 * 1024);
    }

    fn take(&mut self, limit: usize) -> Line {
        let Partial { kept, tail, total } = std::mem::take(self);
        if total <= limit as u64 { Line::Whole(kept) } else { Line::TooLong { head: kept, tail } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], limit: usize) -> Vec<Line> {
        let mut lines = Lines::new(text, limit);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn lines_end_at_the_line_feed_or_with_the_stream() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(lines(b"a\nbc\r\n\nlast", 8).await, [whole("a"), whole("bc\r"), whole(""), whole("last")]);
        assert_eq!(lines(b"12345678\n", 8).await, [whole("12345678")]);
    }

    #[tokio::test]
    async fn of_a_line_that_is_too_long_only_its_ends_are_kept() {
        let long = [b"head".as_slice(), &vec![b'x'; 300_000], b"tail\nnext\n"].concat();
        let found = lines(&long, 1000).await;
        let [Line::TooLong { head, tail }, Line::Whole(next)] = &found[..] else { panic!("{found:?}") };
        assert!(head.starts_with(b"headxxx") && head.len() == ENDS);
        assert!(tail.ends_with(b"xxxtail") && tail.len() == ENDS);
        assert_eq!(next, b"next");
    }
}

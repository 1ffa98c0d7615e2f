//! Server-sent events, as far as MCP uses them: the data of each event, and where the stream can be read on.

use std::time::Duration;

/// The longest id of an event that is kept, in bytes.
const MAX_ID: usize = 1024;
/// The pause before reading on, if the server names none.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest and the longest pause that a server may ask for.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(30)];

/// Reads a stream of events from its parts.
#[derive(Debug)]
pub(crate) struct SseReader {
    /// The longest data of an event, in bytes.
    limit: usize,
    /// What follows the last line feed.
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    last_id: Option<String>,
    pause: Duration,
}

/// Where a stream that broke can be read on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// The id of the last event.
    pub(super) last_id: String,
    /// How long to wait before.
    pub(super) pause: Duration,
}

/// An event is longer than its limit.
#[derive(Debug, PartialEq)]
pub(crate) struct EventTooLong;

impl SseReader {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), data: Vec::new(), has_data: false, last_id: None, pause: PAUSE }
    }

    /// Begins a new stream at the place where the last one ended, and says where that is; `None` if the server named no
    /// place.
    pub(super) fn read_on(&mut self) -> Option<Place> {
        self.line.clear();
        self.data.clear();
        self.has_data = false;
        let last_id = self.last_id.clone()?;
        Some(Place { last_id, pause: self.pause })
    }

    /// Takes a part of the stream, and returns the data of the events that end in it. Events without data (priming
    /// events, comments that keep the connection open) are passed over.
    ///
    /// # Errors
    /// [`EventTooLong`]; the stream cannot be read on.
    pub(crate) fn take(&mut self, part: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLong> {
        let mut events = Vec::new();
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                events.extend(self.end_line(&line));
            }
            if self.line.len() + self.data.len() > self.limit {
                return Err(EventTooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            self.has_data = false;
            return Some(std::mem::take(&mut self.data)).filter(|data| !data.is_empty());
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        } else if let Ok(line) = str::from_utf8(line) {
            self.take_place(line);
        }
        None
    }

    fn take_place(&mut self, line: &str) {
        if let Some(id) = line.strip_prefix("id:") {
            let id = id.trim();
            self.last_id = (1..=MAX_ID).contains(&id.len()).then(|| id.to_owned());
        } else if let Some(milliseconds) =
            line.strip_prefix("retry:").and_then(|text| text.trim().parse().ok())
        {
            let [shortest, longest] = PAUSES;
            self.pause = Duration::from_millis(milliseconds).clamp(shortest, longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&str]) -> Vec<String> {
        let mut reader = SseReader::new(100);
        let events = parts.iter().flat_map(|part| reader.take(part.as_bytes()).unwrap());
        events.map(|data| String::from_utf8(data).unwrap()).collect()
    }

    #[test]
    fn events_without_data_are_passed_over() {
        let text = "id: 1\nretry: 500\ndata:\n\n: still here\n\nevent: message\nid: 2\ndata: {}\n\n";
        assert_eq!(read(&[text]), ["{}"]);
    }

    #[test]
    fn events_may_be_cut_anywhere_and_end_their_lines_with_crlf() {
        assert_eq!(
            read(&["event: mess", "age\r\ndata: {\"a\"", ":1}\r", "\n\r\ndata: 2\r\n\r\n"]),
            ["{\"a\":1}", "2"]
        );
        assert_eq!(read(&["data: a\ndata: b\n\ndata: cut"]), ["a\nb"]);
    }

    #[test]
    fn a_stream_says_where_it_can_be_read_on() {
        let mut reader = SseReader::new(100);
        assert_eq!(reader.read_on(), None);
        reader.take(b"id: 7\r\nretry: 50\r\ndata:\r\n\r\ndata: cut").unwrap();
        let place = Place { last_id: "7".to_owned(), pause: Duration::from_millis(50) };
        assert_eq!(reader.read_on(), Some(place));
        assert_eq!(reader.take(b"data: 1\n\n").unwrap(), [b"1"], "what was cut is read anew");
    }

    #[test]
    fn an_event_costs_no_more_memory_than_its_limit() {
        let mut reader = SseReader::new(10);
        assert_eq!(reader.take(b"data: 1\n\n").map(|events| events.len()), Ok(1));
        assert_eq!(reader.take(b"data: 12345678901"), Err(EventTooLong));
    }
}

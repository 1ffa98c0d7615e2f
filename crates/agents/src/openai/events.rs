//! Server-sent events out of bytes, however they are cut into chunks.
//!
//! Never knows what the events mean.

use super::MAX_REPLY_BYTES;

/// An event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its data: the lines of it, joined.
    pub(super) data: Vec<u8>,
    /// Whether the server calls it an error, as `event: error` or as llama.cpp does with `error: ...`.
    pub(super) is_error: bool,
}

/// Reads events. Holds one event at most, and no more than [`MAX_REPLY_BYTES`] of it.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    line: Vec<u8>,
    event: Event,
    /// The last chunk ended with a carriage return, whose line feed may follow.
    is_after_return: bool,
}

/// An event is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl EventReader {
    /// The events that end in these bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        if let Some((first, rest)) = bytes.split_first()
            && std::mem::take(&mut self.is_after_return)
            && *first == b'\n'
        {
            bytes = rest;
        }
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.keep(&bytes[..at])?;
            let is_return = bytes[at] == b'\r';
            bytes = &bytes[at + 1..];
            self.is_after_return = is_return && bytes.is_empty();
            if is_return {
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            events.extend(self.end_line());
        }
        self.keep(bytes)?;
        Ok(events)
    }

    /// The event that the end of the stream ends: some servers leave out the last empty line.
    pub(super) fn end(&mut self) -> Option<Event> {
        self.end_line().or_else(|| self.end_line())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.event.data.len() + bytes.len() > MAX_REPLY_BYTES {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// An empty line ends an event. Comments are lines with a field of no name; other fields mean nothing here.
    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(at + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..at] {
            b"data" => self.add(value),
            b"error" => {
                self.event.is_error = true;
                self.add(value);
            }
            b"event" => self.event.is_error = value == b"error",
            _ => {}
        }
        None
    }

    fn add(&mut self, value: &[u8]) {
        if !self.event.data.is_empty() {
            self.event.data.push(b'\n');
        }
        self.event.data.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}: hello\r\ndata: {\"a\":\r\ndata: \"ä€🙂\"}\r\n\r\nid: 7\n\ndata:x\r\rretry: 1\nevent: \
                          error\ndata:  y\n\n: ping\n\nerror: z\n\ndata: [DONE]";

    fn events(chunks: impl Iterator<Item = Vec<u8>>) -> Vec<(String, bool)> {
        let mut reader = EventReader::default();
        let mut events: Vec<Event> = chunks.flat_map(|chunk| reader.read(&chunk).unwrap()).collect();
        events.extend(reader.end());
        assert_eq!(reader.end(), None);
        events.into_iter().map(|event| (String::from_utf8(event.data).unwrap(), event.is_error)).collect()
    }

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let expected =
            [("{\"a\":\n\"ä€🙂\"}", false), ("x", false), (" y", true), ("z", true), ("[DONE]", false)]
                .map(|(data, is_error)| (data.to_owned(), is_error));
        for size in 1..=STREAM.len() {
            assert_eq!(events(STREAM.as_bytes().chunks(size).map(<[u8]>::to_vec)), expected, "{size}");
        }
    }

    #[test]
    fn no_event_and_no_line_grows_without_bound() {
        for line in ["x", "data: x\n"] {
            let mut reader = EventReader::default();
            let chunk = line.repeat(100_000);
            let n_chunks = (0..1000).take_while(|_| reader.read(chunk.as_bytes()).is_ok()).count();
            assert!(n_chunks < 100, "{n_chunks}");
        }
    }
}

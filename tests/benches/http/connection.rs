//! One keep-alive connection to a server, with as little as possible between a request and its time.
//!
//! Owns just enough of HTTP/1.1 for servers that announce the length of every body.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// More than any answer may take, so that a benchmark fails rather than hangs.
const TIMEOUT: Duration = Duration::from_secs(120);

const LARGEST_HEAD_BYTES: usize = 64 * 1024;

/// A connection; one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// From the first byte sent to the last received.
    pub(crate) time: Duration,
    /// Whole seconds, from `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    /// Connects to `address`.
    pub(crate) fn open(address: &str) -> Result<Connection> {
        let stream = TcpStream::connect(address).context("the server does not answer")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Sends a whole request and reads the whole answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        self.buffer.clear();
        let start = Instant::now();
        self.stream.write_all(request)?;
        let head_end = loop {
            match self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(position) => break position + 4,
                None => self.read_more()?,
            }
            ensure!(self.buffer.len() <= LARGEST_HEAD_BYTES, "the head of an answer does not end");
        };
        let head = std::str::from_utf8(&self.buffer[..head_end])?;
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).context("no status")?;
        let length: Option<usize> = header(head, "content-length").map(str::parse).transpose()?;
        let retry_after: Option<u64> = header(head, "retry-after").map(str::parse).transpose()?;
        let whole = head_end + length.with_context(|| format!("no length: {head}"))?;
        while self.buffer.len() < whole {
            self.read_more()?;
        }
        let time = start.elapsed();
        let body = self.buffer[head_end..].to_vec();
        Ok(Answer { status, time, retry_after: retry_after.map(Duration::from_secs), body })
    }

    fn read_more(&mut self) -> Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk).context("the answer does not come")? {
            0 => bail!("the server closed the connection"),
            n_bytes => self.buffer.extend_from_slice(&chunk[..n_bytes]),
        }
        Ok(())
    }
}

impl Answer {
    /// The answer, if its status is the one expected.
    pub(crate) fn expect(self, status: u16) -> Result<Answer> {
        let body = String::from_utf8_lossy(&self.body);
        ensure!(self.status == status, "{} instead of {status}: {body}", self.status);
        Ok(self)
    }

    /// A text of the body, which is JSON.
    pub(crate) fn text_of(&self, name: &str) -> Result<String> {
        let body: Value = serde_json::from_slice(&self.body)?;
        Ok(body[name].as_str().with_context(|| format!("no `{name}` in an answer"))?.to_owned())
    }
}

/// A GET request, as whom the token says.
pub(crate) fn get(path: &str, token: Option<&str>) -> Vec<u8> {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n").into_bytes()
}

/// A POST request without credentials, which seems to come from a network that has sent no request before.
///
/// Attempts to log in are counted per network; so no attempt meets the count of another.
pub(crate) fn post(path: &str, body: &Value) -> Vec<u8> {
    post_as(path, body, None)
}

/// The same, as whom the token says.
pub(crate) fn post_as(path: &str, body: &Value, token: Option<&str>) -> Vec<u8> {
    let (body, address) = (body.to_string(), fresh_address());
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n{token}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The next address of 198.18.0.0/15, which is set aside for benchmarks (RFC 2544).
fn fresh_address() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) % (1 << 17);
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + count)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

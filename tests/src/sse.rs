//! A stream of server-sent events, as a client reads it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::Value;

use crate::Client;

/// How long a test waits for the next event.
const LIMIT: Duration = Duration::from_secs(30);

/// An event as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct SseEvent {
    /// Its id, if it has one.
    pub id: Option<i64>,
    /// Its name.
    pub kind: String,
    /// Its data.
    pub data: Value,
}

/// What comes over one stream.
#[derive(Debug)]
pub struct Sse {
    response: reqwest::Response,
    text: String,
    /// How many comments came.
    pub n_comments: usize,
}

impl Sse {
    /// Opens a stream after the event `after`.
    ///
    /// # Errors
    /// If the answer is no stream.
    pub async fn open(client: &Client, path: &str, after: Option<i64>) -> Result<Sse> {
        // A stream may be open for longer than any answer takes.
        let mut request = client.request(Method::GET, path).timeout(LIMIT * 20);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await?;
        let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let is_stream = response.status() == 200 && media_type == Some("text/event-stream");
        ensure!(is_stream, "{} {media_type:?}", response.status());
        Ok(Sse { response, text: String::new(), n_comments: 0 })
    }

    /// The next event; `None` when the stream ends.
    ///
    /// # Errors
    /// If nothing comes, or the stream breaks off.
    pub async fn next(&mut self) -> Result<Option<SseEvent>> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = self.read(&block)? {
                    return Ok(Some(event));
                }
            }
            let chunk =
                tokio::time::timeout(LIMIT, self.response.chunk()).await.context("nothing comes")??;
            match chunk {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes)?),
                None if self.text.is_empty() => return Ok(None),
                None => bail!("the stream ends within an event: {}", self.text),
            }
        }
    }

    /// The event of a block, unless it has none.
    fn read(&mut self, block: &str) -> Result<Option<SseEvent>> {
        let mut event = SseEvent { id: None, kind: String::new(), data: Value::Null };
        for line in block.lines() {
            match line.split_once(':').with_context(|| format!("no field: {line}"))? {
                ("", _) => self.n_comments += 1,
                ("retry", _) => {}
                ("id", id) => event.id = Some(id.trim().parse()?),
                ("event", kind) => event.kind = kind.trim().to_owned(),
                ("data", data) => event.data = serde_json::from_str(data)?,
                other => bail!("an unknown field: {other:?}"),
            }
        }
        Ok((!event.kind.is_empty()).then_some(event))
    }

    /// The next `n_events`.
    ///
    /// # Errors
    /// As [`Sse::next`]; if the stream ends before.
    pub async fn take(&mut self, n_events: usize) -> Result<Vec<SseEvent>> {
        let mut events = Vec::new();
        while events.len() < n_events {
            let next = self.next().await.with_context(|| format!("after {} events", events.len()))?;
            events.push(next.with_context(|| format!("the stream ends after {} events", events.len()))?);
        }
        Ok(events)
    }

    /// Everything that is left of it.
    ///
    /// # Errors
    /// As [`Sse::next`].
    pub async fn rest(&mut self) -> Result<Vec<SseEvent>> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await? {
            events.push(event);
        }
        Ok(events)
    }
}

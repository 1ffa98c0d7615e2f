//! A WebSocket, as a client speaks it: frame by frame.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long a test waits for the next frame.
const LIMIT: Duration = Duration::from_secs(30);

/// A frame of a server.
#[derive(Debug, Clone, PartialEq)]
pub enum SocketFrame {
    /// A text, which is JSON.
    Json(Value),
    /// A ping.
    Ping,
    /// A pong with these bytes.
    Pong(Vec<u8>),
    /// The end, with its code.
    Close(u16),
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: BufReader<TcpStream>,
}

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// If the server does not agree.
    pub async fn open(address: &str, token: &str, target: &str) -> Result<Socket> {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nupgrade: websocket\r\n\
             connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.get_mut().write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let n_bytes = tokio::time::timeout(LIMIT, stream.read_line(&mut head)).await??;
            ensure!(n_bytes > 0, "the connection ends: {head}");
        }
        ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
        Ok(Socket { stream })
    }

    /// The next frame; `None` when the connection ends.
    ///
    /// # Errors
    /// If nothing comes, or what comes is no whole frame.
    pub async fn next(&mut self) -> Result<Option<SocketFrame>> {
        tokio::time::timeout(LIMIT, self.read()).await.context("nothing comes")?
    }

    async fn read(&mut self) -> Result<Option<SocketFrame>> {
        let mut head = [0; 2];
        if self.stream.read_exact(&mut head).await.is_err() {
            return Ok(None);
        }
        ensure!(head[0] & 0x80 != 0 && head[1] & 0x80 == 0, "a part, or masked: {head:?}");
        let length = match head[1] {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut payload).await?;
        Ok(Some(match head[0] & 0x0f {
            1 => SocketFrame::Json(serde_json::from_slice(&payload)?),
            8 => SocketFrame::Close(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))),
            9 => SocketFrame::Ping,
            10 => SocketFrame::Pong(payload),
            other => bail!("an unknown frame: {other}"),
        }))
    }

    /// The next frame that is JSON.
    ///
    /// # Errors
    /// As [`Socket::next`]; if the socket ends before.
    pub async fn json(&mut self) -> Result<Value> {
        loop {
            match self.next().await? {
                Some(SocketFrame::Json(value)) => return Ok(value),
                Some(SocketFrame::Ping | SocketFrame::Pong(_)) => {}
                other => bail!("the socket ends: {other:?}"),
            }
        }
    }

    /// Sends a frame of this kind (9 ping, 8 close, 1 text) with at most 125 bytes.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn send(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        ensure!(payload.len() <= 125, "too long for a short frame");
        // The mask is all zeros, so the payload stays as it is.
        let mut frame = vec![0x80 | kind, 0x80 | u8::try_from(payload.len())?, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        Ok(self.stream.get_mut().write_all(&frame).await?)
    }
}

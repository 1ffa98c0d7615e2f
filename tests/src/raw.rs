//! HTTP over a socket, with the bytes exactly as a test gives them: paths that a client library would tidy, slow
//! clients, framing that is wrong.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// More than any answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);
const MOST_HEAD: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Raw {
    stream: BufReader<TcpStream>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct RawReply {
    /// The status.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl RawReply {
    /// A header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Raw {
    /// Connects to an address and port.
    ///
    /// # Errors
    /// If nothing listens there.
    pub async fn connect(address: &str) -> Result<Raw> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Raw { stream: BufReader::with_capacity(1 << 20, stream) })
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes.as_ref()).await?)
    }

    /// Sends a whole request on a connection that is to be kept: method, target exactly as given, headers, body.
    ///
    /// # Errors
    /// As [`Raw::send`].
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<()> {
        let mut bytes = head(method, target, headers, body.len() as u64);
        bytes.extend_from_slice(body);
        self.send(bytes).await
    }

    /// The next answer to a request that was no HEAD.
    ///
    /// # Errors
    /// If there is none in time, or it breaks off.
    pub async fn reply(&mut self) -> Result<RawReply> {
        let mut body = Vec::new();
        let (status, headers) = self.reply_into(|bytes| body.extend_from_slice(bytes)).await?;
        Ok(RawReply { status, headers, body })
    }

    /// As [`Raw::reply`], but the body goes to `take`, piece by piece.
    ///
    /// # Errors
    /// As [`Raw::reply`].
    pub async fn reply_into(&mut self, take: impl FnMut(&[u8])) -> Result<(u16, Vec<(String, String)>)> {
        tokio::time::timeout(TIMEOUT, self.read_reply(take)).await.context("no whole answer in time")?
    }

    async fn read_reply(&mut self, mut take: impl FnMut(&[u8])) -> Result<(u16, Vec<(String, String)>)> {
        let (status, headers) = loop {
            let (status, headers) = self.read_head().await?;
            // "100 Continue" and the like announce the answer that follows.
            if status >= 200 {
                break (status, headers);
            }
        };
        let header =
            |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        if status == 204 || status == 304 {
            return Ok((status, headers));
        }
        if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                let size = u64::from_str_radix(self.line().await?.trim(), 16)?;
                self.read_body(size, &mut take).await?;
                self.line().await?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = header("content-length") {
            self.read_body(length.parse()?, &mut take).await?;
        } else {
            self.read_body(u64::MAX, &mut take).await.ok();
        }
        Ok((status, headers))
    }

    async fn read_head(&mut self) -> Result<(u16, Vec<(String, String)>)> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1).with_context(|| format!("no status in {first:?}"))?.parse()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').with_context(|| format!("no header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.stream.read_u8().await.context("the answer breaks off")?);
            ensure!(line.len() < MOST_HEAD, "the line is too long");
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    async fn read_body(&mut self, mut length: u64, take: &mut impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        while length > 0 {
            let most = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
            let n_read = self.stream.read(&mut buffer[..most]).await?;
            if n_read == 0 {
                bail!("the body ends {length} bytes too early");
            }
            take(&buffer[..n_read]);
            length -= n_read as u64;
        }
        Ok(())
    }

    /// Waits until the server closes the connection; what it sent before is the answer.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn closed(&mut self, limit: Duration) -> Result<Vec<u8>> {
        let mut rest = Vec::new();
        let read = async {
            let mut buffer = [0; 4096];
            // A reset is an end as well.
            while let Ok(n_read @ 1..) = self.stream.read(&mut buffer).await {
                rest.extend_from_slice(&buffer[..n_read]);
            }
        };
        tokio::time::timeout(limit, read).await.with_context(|| format!("still open after {limit:?}"))?;
        Ok(rest)
    }
}

/// The head of a request with a body of this length.
pub fn head(method: &str, target: &str, headers: &[(&str, &str)], length: u64) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: gathering.test\r\n");
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("authorization") {
            crate::secrets::note_authorization(value);
        }
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if length > 0 || ["POST", "PUT", "PATCH"].contains(&method) {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

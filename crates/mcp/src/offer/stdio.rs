//! Messages on a pipe, a line each.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
    BufReader,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{McpHeaders, McpOffer, answer};

/// The most messages that are answered at the same time; further ones wait in the pipe.
const MAX_AT_ONCE: usize = 64;

/// The longest line, in bytes. A longer one ends the connection: what follows it cannot be trusted to be a message.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Answers the messages of one client, until it closes the pipe and the last message is answered. Requests are answered
/// side by side, in the order in which they end.
///
/// Cancel: calls that go on are dropped.
///
/// # Errors
/// If the pipe breaks, or for a line that is too long.
pub async fn serve_lines<O: McpOffer + 'static>(
    offer: Arc<O>,
    caller: Arc<O::Caller>,
    input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin + Send + 'static,
) -> std::io::Result<()>
where
    O::Caller: 'static,
{
    let (replies, mut written) = mpsc::channel::<Value>(MAX_AT_ONCE);
    let writer = async move {
        while let Some(reply) = written.recv().await {
            output.write_all(format!("{reply}\n").as_bytes()).await?;
            output.flush().await?;
        }
        Ok(())
    };
    let reader = async move {
        let room = Arc::new(Semaphore::new(MAX_AT_ONCE));
        let mut calls = JoinSet::new();
        let mut input = BufReader::new(input);
        while let Some(line) = next_line(&mut input).await? {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
            let (offer, caller, replies) = (Arc::clone(&offer), Arc::clone(&caller), replies.clone());
            calls.spawn(async move {
                let reply = answer(&*offer, &caller, &line, &McpHeaders::default()).await;
                if let Some(body) = reply.body {
                    // Nobody reads any more if this fails, which the writer reports.
                    replies.send(body).await.ok();
                }
                drop(permit);
            });
            while calls.try_join_next().is_some() {}
        }
        drop(replies);
        calls.join_all().await;
        Ok::<(), std::io::Error>(())
    };
    tokio::try_join!(reader, writer).map(|((), ())| ())
}

/// The next line that is not empty.
async fn next_line(input: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        let mut line = Vec::new();
        let n_read = (&mut *input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
        if n_read == 0 {
            return Ok(None);
        }
        if n_read as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
            let message = format!("a message has more than {MAX_LINE_BYTES} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            return Ok(Some(text.to_vec()));
        }
    }
}

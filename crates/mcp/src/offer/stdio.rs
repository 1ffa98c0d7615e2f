//! What is offered to a client on a pipe.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{McpHeaders, McpOffer, answer};
use crate::pipe::{self, Answering, PipeStop, Replies};

/// Answers the messages of one client, a line each, until it closes the pipe and the last message is answered, or until
/// `stop`. Requests are answered side by side, in the order in which they end; the call of one
/// that the client cancels is dropped, and not answered. A line of more than 16 MiB is refused.
///
/// Cancel: calls that go on are dropped.
///
/// # Errors
/// If the input breaks, or has a line without an end.
pub async fn serve_lines<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
    stop: &PipeStop,
) -> std::io::Result<()> {
    pipe::serve(&Offering { offer, caller }, input, output, stop).await
}

/// An offer to one caller.
struct Offering<'a, O: McpOffer> {
    offer: &'a O,
    caller: &'a O::Caller,
}

impl<O: McpOffer> Answering for Offering<'_, O> {
    async fn answer(&self, message: Vec<u8>, replies: Replies) {
        let reply = answer(self.offer, self.caller, &message, &McpHeaders::default()).await;
        if let Some(body) = reply.body {
            replies.send(body.to_string().into_bytes()).await;
        }
    }
}

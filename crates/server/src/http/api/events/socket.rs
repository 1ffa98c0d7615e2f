//! The log over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::UPGRADE;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::{CloseCode, CloseReason, Message, MessageStream, ProtocolError, Session};
use tokio::time::{Instant, timeout};

use super::read::ReadEvents;
use super::stream::{Envelope, GAP};
use super::view::GapView;
use super::watch::{Frame, Next, Watch, Watches};
use gathering_edge::caller::Authenticated;
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::query::Query;

/// About how many bytes are taken for the connection at a time.
const PIECE: usize = 64 * 1024;

/// The largest message of a client: it has nothing to say but `ping`, `pong` and `close`.
const MAX_MESSAGE: usize = 4096;

/// A client that takes nothing for so long is cut off, and so is one that answers no ping.
const PATIENCE: Duration = Duration::from_secs(45);

/// The events as [they are streamed](super::read::read), over a WebSocket: each frame is a text with one JSON object.
///
/// The server sends a ping every 15 seconds. It closes the socket with 1001 when the instance stops, and with 1008 when
/// the caller has lost access: connect again with `after`.
#[utoipa::path(get, path = "/api/v1/events/ws", tag = "events", operation_id = "watch_events", params(ReadEvents), responses(
    (status = 101, description = "The connection is a WebSocket from here on"),
    (status = 400, description = "It is no request for a WebSocket"),
    (status = 404, description = "No such project"),
    (status = 429, description = "Too many streams of this account"),
    (status = 503, description = "Too many streams, or the server is shutting down"),
))]
pub(crate) async fn watch(
    watches: web::Data<Watches>,
    caller: Authenticated,
    query: Query<ReadEvents>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ProblemDetails> {
    let query = query.read()?;
    let refused = |detail: String| ProblemDetails::new(Kind::Malformed, detail);
    if !request.headers().contains_key(UPGRADE) {
        return Err(refused(
            "connect with a WebSocket: the header `Upgrade: websocket` is missing".to_owned(),
        ));
    }
    let watches = watches.into_inner();
    let envelope = query.envelope(request.headers());
    let watch = query.begin(Arc::clone(&watches), caller.0, request.headers(), None).await?;
    let (response, session, messages) =
        actix_ws::handle(&request, payload).map_err(|error| refused(error.to_string()))?;
    let socket =
        Socket { session, messages: messages.max_frame_size(MAX_MESSAGE), envelope, heard: Instant::now() };
    // It ends with the connection, and at the latest when the instance stops, which waits for it.
    actix_web::rt::spawn(watches.sockets.track_future(socket.run(watch)));
    Ok(response)
}

struct Socket {
    session: Session,
    messages: MessageStream,
    envelope: Envelope,
    /// When the client was heard last.
    heard: Instant,
}

/// The connection is gone, or the client takes nothing more.
struct Gone;

impl Socket {
    async fn run(mut self, mut watch: Watch) {
        let reason = self.follow(&mut watch).await;
        if let Ok(reason) = reason {
            timeout(PATIENCE, self.session.close(reason)).await.ok();
        }
    }

    /// Sends what is watched; answers with why the socket is closed.
    async fn follow(&mut self, watch: &mut Watch) -> Result<Option<CloseReason>, Gone> {
        loop {
            tokio::select! {
                message = self.messages.recv() => {
                    self.heard = Instant::now();
                    match message {
                        Some(Ok(Message::Ping(bytes))) => self.pong(&bytes).await?,
                        Some(Ok(Message::Close(reason))) => return Ok(reason),
                        Some(Ok(_)) => {}
                        Some(Err(ProtocolError::Overflow)) => return Ok(Some(CloseCode::Size.into())),
                        Some(Err(_)) => return Ok(Some(CloseCode::Protocol.into())),
                        None => return Err(Gone),
                    }
                }
                next = watch.next(PIECE) => match next {
                    Next::Frames(frames) => self.send(&frames).await?,
                    Next::Idle if self.heard.elapsed() > PATIENCE => return Err(Gone),
                    Next::Idle => self.ping().await?,
                    Next::Stopped => return Ok(Some(CloseCode::Away.into())),
                    Next::Denied => return Ok(Some(CloseCode::Policy.into())),
                },
            }
        }
    }

    async fn send(&mut self, frames: &[Frame]) -> Result<(), Gone> {
        for frame in frames {
            let text = self.text_of(frame);
            patient(self.session.text(text)).await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Gone> {
        patient(self.session.ping(b"")).await
    }

    async fn pong(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        patient(self.session.pong(bytes)).await
    }

    fn text_of(&self, frame: &Frame) -> String {
        match frame {
            Frame::Event(event) => {
                let data = self.envelope.text_of(event);
                let event = event.event();
                // A type has no character that JSON escapes.
                format!(r#"{{"id":{},"event":"{}","data":{data}}}"#, event.seq, event.event_type)
            }
            Frame::Gap { after, until } => {
                format!(r#"{{"event":"{GAP}","data":{}}}"#, GapView::text(*after, *until))
            }
        }
    }
}

/// What a client takes in time.
async fn patient(sending: impl Future<Output = Result<(), actix_ws::Closed>>) -> Result<(), Gone> {
    timeout(PATIENCE, sending).await.map_err(|_elapsed| Gone)?.map_err(|_closed| Gone)
}

//! Uploads: a body that goes to the disk piece by piece, bounded in size, silence and time.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE};
use actix_web::web::{Bytes, BytesMut, Payload};
use futures::{Stream, StreamExt as _};
use gathering_tools::{Upload, WorkspaceError, Written};
use tokio::time::Instant;

use crate::envelope::current_request_id;
use crate::problem::{Kind, ProblemDetails};

/// The part of a file in memory for each upload: 256 KiB.
const PIECE: usize = 256 * 1024;

/// The limits for a client.
const PATIENCE: Patience =
    Patience { silence: Duration::from_secs(30), least: Duration::from_secs(60), bytes_per_second: 4 * 1024 };

/// The time that a client may take; the time of the disk does not count.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// A client that sends nothing for this long is gone.
    silence: Duration,
    /// The minimum for the whole body.
    least: Duration,
    /// The average rate beyond that, so that no client holds a file open for days with a byte now and then.
    bytes_per_second: u32,
}

impl Patience {
    /// The time left for a client that has taken `waited` and has sent `n_bytes`.
    fn left(&self, waited: Duration, n_bytes: u64) -> Duration {
        let earned = Duration::from_secs(n_bytes / u64::from(self.bytes_per_second.max(1)));
        (self.least + earned).saturating_sub(waited)
    }
}

/// The body of a request that writes a file, not yet received.
pub struct Incoming {
    payload: Payload,
    announced: Option<u64>,
    max_bytes: u64,
}

impl Incoming {
    /// The body of this request; a file has at most `max_bytes`.
    ///
    /// # Errors
    /// Before anything is read: 413 for an announced length over `max_bytes`, 415 for a content encoding, which would
    /// have to be stored with the file, and 400 for a part of a file.
    pub fn of(request: &HttpRequest, payload: Payload, max_bytes: u64) -> Result<Self, ProblemDetails> {
        Ok(Self { announced: announced(request, max_bytes)?, payload, max_bytes })
    }

    /// Receives the body and publishes the file if the body is whole and the sender still `may`; else nothing is left.
    ///
    /// # Errors
    /// 400 for a body that breaks off, 408 for one that is too slow, 413 for one over the limit, and what `may` or the
    /// workspace refuses.
    pub async fn receive(
        self,
        mut upload: Upload,
        may: impl AsyncFnOnce() -> Result<(), ProblemDetails>,
    ) -> Result<Written, ProblemDetails> {
        tracing::debug!(request.id = %current_request_id(), "waiting for the rest of a body");
        copy(self.payload, &mut upload, self.max_bytes, PATIENCE).await?;
        if self.announced.is_some_and(|announced| announced != upload.size_bytes()) {
            return Err(ProblemDetails::new(
                Kind::Malformed,
                "the body is shorter or longer than `Content-Length` announces",
            ));
        }
        may().await?;
        Ok(upload.commit().await?)
    }
}

/// The announced length of the body.
fn announced(request: &HttpRequest, max_bytes: u64) -> Result<Option<u64>, ProblemDetails> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) = header(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let detail = format!("the content encoding `{encoding:.40}` is not supported");
        return Err(ProblemDetails::new(Kind::UnsupportedMediaType, detail));
    }
    if request.headers().contains_key(CONTENT_RANGE) {
        return Err(ProblemDetails::new(
            Kind::Malformed,
            "`Content-Range` is not supported: send the whole file",
        ));
    }
    let announced: Option<u64> = header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    match announced {
        Some(length) if length > max_bytes => Err(WorkspaceError::TooLarge { limit_bytes: max_bytes }.into()),
        announced => Ok(announced),
    }
}

/// Each piece is on its way to the disk before more is read, so a slow disk slows the client.
async fn copy(
    mut payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    upload: &mut Upload,
    max_bytes: u64,
    patience: Patience,
) -> Result<(), ProblemDetails> {
    let mut piece = BytesMut::with_capacity(PIECE);
    let mut waited = Duration::ZERO;
    loop {
        let left = patience.left(waited, upload.size_bytes() + piece.len() as u64);
        let asked = Instant::now();
        let next = tokio::time::timeout(left.min(patience.silence), payload.next()).await;
        waited += asked.elapsed();
        let chunk = match next {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => {
                return Err(ProblemDetails::new(
                    Kind::Malformed,
                    format!("the body did not arrive: {error}"),
                ));
            }
            Ok(None) => break,
            Err(_elapsed) if left < patience.silence => {
                let detail = format!("the body did not arrive within {} seconds", waited.as_secs());
                return Err(ProblemDetails::new(Kind::RequestTimeout, detail));
            }
            Err(_elapsed) => {
                let detail = format!("no data arrived for {} seconds", patience.silence.as_secs());
                return Err(ProblemDetails::new(Kind::RequestTimeout, detail));
            }
        };
        piece.extend_from_slice(&chunk);
        // A body over the limit is refused now, not when a piece is full.
        let is_too_large = upload.size_bytes() + piece.len() as u64 > max_bytes;
        if piece.len() >= PIECE || is_too_large {
            upload.append(piece.split().freeze()).await?;
            piece.reserve(PIECE);
        }
    }
    upload.append(piece.freeze()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use futures::stream;
    use gathering_tools::{BlockingPool, Precondition, Workspace, WorkspacePath};
    use tempfile::TempDir;

    use super::*;

    fn refused(headers: &[(&str, &str)]) -> Option<u16> {
        let request =
            headers.iter().fold(TestRequest::put(), |request, header| request.insert_header(*header));
        announced(&request.to_http_request(), 100).err().map(|problem| problem.status().as_u16())
    }

    #[test]
    fn what_the_head_gives_away_is_refused_before_anything_is_read() {
        assert_eq!(refused(&[("content-length", "101")]), Some(413));
        assert_eq!(refused(&[("content-encoding", "gzip")]), Some(415));
        assert_eq!(refused(&[("content-range", "bytes 0-1/2")]), Some(400));
        assert_eq!(refused(&[("content-encoding", "identity"), ("content-length", "100")]), None);
        assert_eq!(refused(&[]), None);
    }

    async fn upload(directory: &TempDir, max_bytes: u64) -> Upload {
        let workspace = Workspace::open(directory.path(), BlockingPool::new(1)).await.unwrap();
        let path: WorkspacePath = "a/f".parse().unwrap();
        workspace.begin_write(&path, Precondition::None, max_bytes).await.unwrap()
    }

    fn chunk(length: usize) -> Result<Bytes, PayloadError> {
        Ok(Bytes::from(vec![7; length]))
    }

    #[actix_web::test]
    async fn a_body_in_odd_chunks_arrives_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut upload = upload(&directory, 10_000_000).await;
        let chunks = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5, 17];
        copy(stream::iter(chunks.map(chunk)), &mut upload, 10_000_000, PATIENCE).await.unwrap();
        assert!(upload.commit().await.unwrap().created);
        let written = std::fs::read(directory.path().join("a/f")).unwrap();
        assert!(written.len() == chunks.iter().sum::<usize>() && written.iter().all(|byte| *byte == 7));
    }

    #[actix_web::test]
    async fn a_body_that_falls_silent_breaks_off_or_gets_too_large_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let silent = Patience { silence: Duration::from_millis(20), ..PATIENCE };
        let begun = || stream::iter([chunk(PIECE + 1)]);
        let mut first = upload(&directory, 10_000_000).await;
        let silent = copy(begun().chain(stream::pending()), &mut first, 10_000_000, silent).await;
        assert_eq!(silent.unwrap_err().status(), 408);
        let broken = stream::iter([Err(PayloadError::Incomplete(None))]);
        let broken =
            copy(begun().chain(broken), &mut upload(&directory, 10_000_000).await, 10_000_000, PATIENCE)
                .await;
        assert_eq!(broken.unwrap_err().status(), 400);
        let little = stream::iter([chunk(60), chunk(60)]).chain(stream::pending());
        let large = copy(little, &mut upload(&directory, 100).await, 100, PATIENCE).await;
        assert_eq!(large.unwrap_err().status(), 413, "as soon as it is, not at its end");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[actix_web::test]
    async fn a_body_that_never_stops_but_takes_too_long_on_the_whole_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let patience = Patience { least: Duration::from_millis(50), bytes_per_second: 1_000_000, ..PATIENCE };
        let dripping = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((chunk(1), ()))
        });
        let mut first = upload(&directory, 10_000_000).await;
        let slow = copy(Box::pin(dripping), &mut first, 10_000_000, patience).await.unwrap_err();
        assert_eq!(slow.status(), 408);
        drop(first);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn who_has_sent_more_may_take_longer() {
        let left = |seconds, n_bytes| PATIENCE.left(Duration::from_secs(seconds), n_bytes).as_secs();
        assert_eq!((left(0, 0), left(59, 0), left(60, 0), left(600, 0)), (60, 1, 0, 0));
        assert_eq!((left(60, 40 * 1024), left(60, 1024 * 1024), left(400, 1024 * 1024)), (10, 256, 0));
    }
}

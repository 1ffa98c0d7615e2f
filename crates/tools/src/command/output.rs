//! What is kept of an output.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The beginning of an output, and how much follows.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    pub(crate) n_dropped: u64,
}

impl Output {
    /// Reads everything, so that the program never waits, and keeps `limit` bytes.
    pub(super) async fn read(&mut self, mut source: impl AsyncRead + Unpin, limit: usize) {
        let mut buffer = vec![0; 16 * 1024];
        // An output that cannot be read any more has ended.
        while let Ok(n_read @ 1..) = source.read(&mut buffer).await {
            let kept = n_read.min(limit - self.bytes.len());
            self.bytes.extend_from_slice(&buffer[..kept]);
            self.n_dropped += (n_read - kept) as u64;
        }
    }
}

//! Responses whose bodies are read in parts.

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::HeaderMap;

use super::OutboundError;

/// A response, of any status, whose body is still to be read. Dropping it hangs up.
#[derive(Debug)]
pub struct OutboundStream {
    /// The HTTP status.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: HeaderMap,
    response: Response,
    host: String,
    limit_bytes: usize,
    left_bytes: usize,
}

impl OutboundStream {
    pub(super) fn new(mut response: Response, host: String, limit_bytes: usize) -> Self {
        let headers = std::mem::take(response.headers_mut());
        let status = response.status().as_u16();
        Self { status, headers, response, host, limit_bytes, left_bytes: limit_bytes }
    }

    /// The next part of the body; `None` at its end.
    /// Cancel: safe; no part is lost.
    ///
    /// # Errors
    /// [`OutboundError::BrokenOff`], or [`OutboundError::TooLarge`] if the whole body exceeds the request's limit.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, OutboundError> {
        let chunk = self.response.chunk().await.map_err(|source| OutboundError::BrokenOff {
            host: self.host.clone(),
            source: source.without_url(),
        })?;
        let len = chunk.as_ref().map_or(0, Bytes::len);
        match self.left_bytes.checked_sub(len) {
            Some(left) => self.left_bytes = left,
            None => {
                return Err(OutboundError::TooLarge {
                    host: self.host.clone(),
                    limit_bytes: self.limit_bytes,
                });
            }
        }
        Ok(chunk)
    }
}

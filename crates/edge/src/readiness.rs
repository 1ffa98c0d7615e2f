//! Whether this process takes new requests.

use tokio_util::sync::CancellationToken;

use crate::problem::{Kind, ProblemDetails};

/// Whether requests should be sent here. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(CancellationToken);

impl Readiness {
    /// From now on no new ones should.
    pub fn drain(&self) {
        self.0.cancel();
    }

    /// Whether the server is on its way out.
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Refuses what another instance should do.
    ///
    /// # Errors
    /// 503 while the server is on its way out.
    pub fn check(&self) -> Result<(), ProblemDetails> {
        if !self.is_draining() {
            return Ok(());
        }
        let detail = "this instance is shutting down; another one will answer";
        Err(ProblemDetails::new(Kind::Draining, detail).retry_after(1))
    }

    /// Ends when the server is on its way out.
    pub async fn drained(&self) {
        self.0.cancelled().await;
    }
}

//! Whether this process takes new requests.

use tokio_util::sync::CancellationToken;

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

    /// Ends when the server is on its way out.
    pub async fn drained(&self) {
        self.0.cancelled().await;
    }
}

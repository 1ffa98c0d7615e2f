//! A background task with a name and an owner that ends it.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A task that ends when it is stopped, or with its owner.
pub(super) struct Task {
    name: &'static str,
    stop: CancellationToken,
    handle: AbortOnDropHandle<()>,
}

impl Task {
    pub(super) fn start<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let handle = AbortOnDropHandle::new(tokio::spawn(run(stop.clone())));
        Self { name, stop, handle }
    }

    /// Asks it to stop and waits until it has.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.handle.await {
            tracing::error!(task = self.name, error = %error, "the task `{}` ended abnormally", self.name);
        }
    }
}

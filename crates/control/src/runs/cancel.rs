//! Cancelling runs.

use gathering_auth::Caller;
use gathering_domain::RunId;

use super::{Run, RunControl};
use crate::access::right;
use crate::{Conflict, ControlError};

impl RunControl {
    /// Requests the cancellation of a run, and answers with the run as it stands then. A run that was never claimed ends
    /// at once; else the request reaches the instance that drives it. Repeats: safe, until the run has ended.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`Conflict::RunEnded`]. After
    /// [`ControlError::Unavailable`] it is unknown whether the request is recorded.
    pub async fn cancel(&self, caller: &Caller, run: RunId) -> Result<Run, ControlError> {
        let scoped = self.find::<right::Run>(caller, run).await?;
        let cancelled = self.store.cancel_run(&scoped).await?.ok_or(Conflict::RunEnded)?;
        tracing::info!(run.id = %run, "cancellation of run {run} requested");
        Ok(cancelled)
    }
}

//! Deleting a pipeline, if it is still the one that the caller saw.

use gathering_auth::Caller;
use gathering_domain::PipelineId;

use super::{Pipeline, PipelineControl};
use crate::access::right;
use crate::{Conflict, ControlError, ExpectedRevision};

/// A deletion that is to be made. Only this crate makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDeletion {
    expected: ExpectedRevision,
}

impl PlannedDeletion {
    /// Whether the pipeline may be deleted as it stands; `has_active_runs` says whether any run of it has not ended.
    ///
    /// # Errors
    /// [`ControlError::PipelineChanged`] or [`Conflict::PipelineRunsActive`].
    pub fn permitted(&self, pipeline: &Pipeline, has_active_runs: bool) -> Result<(), ControlError> {
        pipeline.check_expected(&self.expected)?;
        if has_active_runs { Err(Conflict::PipelineRunsActive.into()) } else { Ok(()) }
    }
}

impl PipelineControl {
    /// Deletes a pipeline with its versions if it is the expected one and all its runs have ended. Its runs stay, and
    /// name no pipeline any more. Once this returns, nobody finds the pipeline and no run of it starts.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`ControlError::PipelineChanged`];
    /// [`Conflict::PipelineRunsActive`]. After [`ControlError::Unavailable`] it is unknown whether it is deleted.
    pub async fn delete(
        &self,
        caller: &Caller,
        pipeline: PipelineId,
        expected: ExpectedRevision,
    ) -> Result<(), ControlError> {
        let head = self.find::<right::Write>(caller, pipeline).await?;
        self.store.delete_pipeline(&head, &PlannedDeletion { expected }).await
    }
}

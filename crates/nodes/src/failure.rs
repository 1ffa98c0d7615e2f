//! Failed calls as failures of their node.

use gathering_dag_engine::{ActFailed, NodeFailure};
use gathering_domain::with_causes;
use gathering_tools::ToolError;

/// The failure of a node whose call of a tool failed.
pub(crate) fn failure_of_tool(error: &ToolError) -> NodeFailure {
    let message = with_causes(error);
    let failure = if error.is_retryable() {
        NodeFailure::retryable(error.kind(), message)
    } else {
        NodeFailure::permanent(error.kind(), message)
    };
    failure.with_retry_after(error.retry_after())
}

/// As [`failure_of_tool`], for a call that is an effect.
pub(crate) fn act_failed(error: &ToolError) -> ActFailed {
    let failure = failure_of_tool(error);
    if error.may_have_taken_place() { failure.into() } else { ActFailed::before_it_took_place(failure) }
}

//! Requests that are one run and wait for its end: a call of a tool, a message to an agent.

use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue, LOCATION};
use actix_web::{HttpRequest, HttpResponse};
use gathering_control::{ControlError, Run};
use gathering_dag_engine::NodeFailure;
use gathering_domain::{RunId, RunState, UserId};
use gathering_edge::limits::Slot;
use gathering_edge::prefer::Preference;
use gathering_edge::problem::{Kind, ProblemDetails};
use serde::Serialize;
use serde_json::json;

use crate::http::api::run_view::RunView;
use crate::http::api::runs::accepted;
use crate::http::run_ends::RunEnds;

/// How long a request waits that does not say so, and the most that one may ask for.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);
const MAX_WAIT: Duration = Duration::from_secs(3600);

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How a request waits for its run.
pub(super) struct Awaited<'a> {
    ends: &'a RunEnds,
    /// Absent: it does not wait.
    slot: Option<Slot>,
    limit: Duration,
}

impl<'a> Awaited<'a> {
    /// As the request prefers it, with a place to wait that is taken before anything is started.
    ///
    /// # Errors
    /// 429 if the account waits for as many runs as it may, 503 if the instance does.
    pub(super) fn new(
        request: &HttpRequest,
        ends: &'a RunEnds,
        user: UserId,
    ) -> Result<Self, ProblemDetails> {
        let preference = Preference::of(request);
        let slot = if preference.respond_async { None } else { Some(ends.take_slot(user)?) };
        Ok(Self { ends, slot, limit: preference.wait.unwrap_or(DEFAULT_WAIT).min(MAX_WAIT) })
    }

    /// The answer: `view` of the run if it succeeds in time, 202 if it goes on.
    ///
    /// # Errors
    /// `failed` (424) if the run ended otherwise, with what `find_failure` knows of it.
    pub(super) async fn answer<T, F, Fut>(
        self,
        run: Run,
        failed: Kind,
        view: fn(Run) -> T,
        find_failure: F,
    ) -> Result<HttpResponse, ProblemDetails>
    where
        T: Serialize,
        F: FnOnce(RunId) -> Fut,
        Fut: Future<Output = Result<Option<NodeFailure>, ControlError>>,
    {
        let Some(slot) = self.slot else {
            let mut response = accepted(RunView::of(run));
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
            return Ok(response);
        };
        match self.ends.wait(&slot, &run, self.limit).await {
            Ok(Some(ended)) if ended.state == RunState::Succeeded => Ok(HttpResponse::Ok().json(view(ended))),
            Ok(Some(ended)) => Err(problem_of(failed, &ended, find_failure(ended.id).await?.as_ref())),
            // The run was accepted, and this is all that is known.
            Ok(None) | Err(_) => Ok(accepted(RunView::of(run))),
        }
    }
}

/// The answer if the run failed, or was ended before its node: by `failure`, or else by the error of the run.
fn problem_of(kind: Kind, run: &Run, failure: Option<&NodeFailure>) -> ProblemDetails {
    let (why, message) = match (failure, &run.error) {
        (Some(failure), _) => (failure.kind.to_string(), failure.message.as_str()),
        (None, Some(error)) => (error.kind.to_string(), error.message.as_str()),
        (None, None) => (run.state.as_str().to_owned(), "the run has ended"),
    };
    let detail = format!("the run {}: {message}", run.state.as_str().replace('_', " "));
    let retryable = failure.is_some_and(|failure| failure.retryable);
    let error = json!({ "kind": why, "message": message, "retryable": retryable });
    ProblemDetails::new(kind, detail)
        .with_header(LOCATION, format!("/api/v1/runs/{}", run.id))
        .with_member("run_id", json!(run.id))
        .with_member("error", error)
}

//! A message to an agent, and its reply.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control::{AgentControl, Chat};
use gathering_domain::AgentId;
use gathering_edge::body::Body;
use gathering_edge::idempotency::keyed_body;
use gathering_edge::input::{self, Input};
use gathering_edge::problem::{Kind, ProblemDetails};
use serde::Deserialize;
use utoipa::ToSchema;

use super::view::ChatReplyView;
use crate::http::api::awaited::Awaited;
use crate::http::api::run_view::RunView;
use crate::http::run_ends::RunEnds;

/// A message to an agent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SendMessage {
    /// What it is to answer: 1 to 1,000,000 characters.
    #[schema(min_length = 1, max_length = 1_000_000)]
    message: String,
    /// How long the reply may take, with its time in the queue; without a limit if absent.
    #[schema(required = false, exclusive_minimum = 0, maximum = 31_536_000)]
    timeout_seconds: Option<f64>,
}

impl Input for SendMessage {}

/// Sends a message to an agent. Its reply is a run of its own: it is recorded, it can be cancelled, it goes on after a
/// crash where it was, and no token is paid twice.
///
/// The answer comes when the run has ended, after 300 seconds at most, or `Prefer: wait=SECONDS` (up to 3600). If the
/// run goes on then, or with `Prefer: respond-async`, the answer is 202 with the run.
#[utoipa::path(post, path = "/api/v1/agents/{id}/chat", tag = "agents", operation_id = "chat_with_agent", params(
    ("id" = Uuid, Path),
    ("Prefer" = Option<String>, Header, description = "`respond-async`, or `wait=SECONDS`"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same run"),
), request_body = SendMessage, responses(
    (status = 200, body = ChatReplyView),
    (status = 202, body = RunView, description = "The reply goes on, as this run"),
    (status = 409, description = "The key was used for another request"),
    (status = 424, description = "The reply failed, or the run was cancelled; `run_id` and `error` say more"),
))]
pub(crate) async fn send(
    agents: web::Data<AgentControl>,
    ends: web::Data<RunEnds>,
    id: web::Path<AgentId>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let awaited = Awaited::new(&request, &ends, caller.user)?;
    let run = source.placing(async {
        let SendMessage { message, timeout_seconds } = input::read(value)?;
        let timeout = timeout_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(agents.chat(&caller, *id, Chat { message, timeout, once }).await?)
    });
    awaited.answer(run.await?, Kind::AgentFailed, ChatReplyView::of, |run| agents.find_failure(run)).await
}

//! A call from outside, which needs no login.

use std::num::NonZeroU32;

use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control::{CallRefused, CalledHook, DeliveryOutcome, HookControl, ReceivedCall, RefusalReason};
use gathering_domain::{HookId, Pointer, Problems};
use gathering_tools::ReceivedHeaders;
use serde::Serialize;
use utoipa::ToSchema;

use super::view::AnswerView;
use gathering_edge::body::RawBody;
use gathering_edge::limits::KeyedLimiters;
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::values::AnyObject;

/// How often each hook may be called.
pub(crate) struct HookLimits(KeyedLimiters<HookId>);

impl HookLimits {
    /// For at most `n_entries` hooks at a time.
    pub(crate) fn new(n_entries: u64) -> Self {
        Self(KeyedLimiters::new("hook_limiters", n_entries))
    }

    fn admit(&self, called: &CalledHook) -> Result<(), ProblemDetails> {
        let Some((hook, most)) = called.limit() else { return Ok(()) };
        let per_minute = NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN);
        self.0.admit(hook, per_minute).map_err(|retry_after| {
            metrics::counter!("gathering_rate_limited_total", "tier" => "hook").increment(1);
            let detail = format!("more than {per_minute} calls of this hook in a minute");
            ProblemDetails::rate_limited(detail, retry_after)
        })
    }
}

/// The answer to a sender that wants to have a text repeated.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HookChallenge)]
pub(crate) struct ChallengeView {
    challenge: String,
}

/// Calls a hook: its address has the token, and the headers prove who sends it. The body is JSON, a form or a CloudEvent.
///
/// An unknown token, a wrong signature and an old time stamp are answered alike.
#[utoipa::path(post, path = "/api/v1/hooks/in/{token}", tag = "hooks", operation_id = "call_hook", params(("token" = String, Path)), request_body(
    content((AnyObject = "application/json"), (AnyObject = "application/cloudevents+json"))
), responses(
    (status = 202, description = "It became an event, or started a run", body = AnswerView),
    (status = 200, description = "Nothing came of it, or it came before", body = AnswerView),
    (status = 400, description = "The body cannot be read"),
    (status = 401, description = "Unknown token, wrong signature, or old time stamp"),
    (status = 409, description = "The hook or its pipeline is disabled, or the pipeline is gone"),
    (status = 413, description = "The body is larger than the hook accepts"),
    (status = 422, description = "The filter or the mapping of the hook has no value for it, or it makes no event"),
))]
pub(crate) async fn receive(
    hooks: web::Data<HookControl>,
    limits: web::Data<HookLimits>,
    request: HttpRequest,
    token: web::Path<String>,
    body: RawBody,
) -> Result<HttpResponse, ProblemDetails> {
    let body = body.receive().await;
    let called = hooks.find_called(&token).await?;
    limits.admit(&called).inspect_err(|_| hooks.note_refusal(&called, RefusalReason::RateLimited))?;
    let body = body.inspect_err(|problem| {
        if problem.status() == 413 {
            hooks.note_refusal(&called, RefusalReason::TooLarge);
        }
    })?;
    let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let headers: ReceivedHeaders = headers.collect();
    match hooks.receive(called, &headers, &body).await {
        Ok(ReceivedCall::Challenge(challenge)) => Ok(HttpResponse::Ok().json(ChallengeView { challenge })),
        Ok(ReceivedCall::Answer(answer)) => {
            let is_new = answer.outcome == DeliveryOutcome::Accepted && !answer.is_repeated;
            let mut response = if is_new { HttpResponse::Accepted() } else { HttpResponse::Ok() };
            Ok(response.json(AnswerView::from(answer)))
        }
        Err(refused) => Err(problem_of(refused)),
    }
}

fn problem_of(refused: CallRefused) -> ProblemDetails {
    const CHALLENGE: &str = r#"Hook realm="gathering""#;
    match refused {
        CallRefused::Untrusted => ProblemDetails::not_authenticated(
            "the address, the signature or the time stamp is wrong",
            CHALLENGE,
        ),
        CallRefused::Store(error) => error.into(),
        CallRefused::Refused { reason, detail, delivery } => {
            let detail = format!("{detail} (delivery {delivery})");
            match reason {
                RefusalReason::TooLarge => ProblemDetails::new(Kind::TooLarge, detail),
                RefusalReason::NotJson => ProblemDetails::new(Kind::Malformed, detail),
                RefusalReason::Disabled | RefusalReason::NotStartable => ProblemDetails::conflict(detail),
                RefusalReason::Expression
                | RefusalReason::Invalid
                | RefusalReason::BadSignature
                | RefusalReason::TooOld
                | RefusalReason::RateLimited => {
                    ProblemDetails::invalid(Problems::one(Pointer::root(), detail))
                }
            }
        }
    }
}

//! Accepting runs, whatever asks for them: once for each idempotency key, and answered alike.

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse};
use gathering_dag_engine::{NewRun, Record};
use gathering_domain::Digest;
use gathering_persistence::{Acceptance, RunOrigin, RunRow};
use serde_json::Value;

use super::super::body::{FromFields, Received, read_object};
use super::super::problem::{Kind, Problem};
use super::super::run_view::RunView;
use super::super::state::AppState;

const MAX_KEY_LEN: usize = 255;

/// A run as it shall be accepted.
pub(super) struct Planned {
    pub(super) run: NewRun,
    /// Without the key.
    pub(super) origin: RunOrigin,
    /// What its journal begins with.
    pub(super) begins_with: Vec<Record>,
}

/// Accepts the run that `plan` makes of the body: once this is answered, it will reach a terminal state. The same key
/// and body, about the same thing, answer the same run.
///
/// # Errors
/// 422 for a key or a body that cannot be, 409 for a key that was used for another request, and what `plan` says.
pub(super) async fn accept<T: FromFields>(
    state: &AppState,
    request: &HttpRequest,
    body: Received,
    about: Value,
    plan: impl AsyncFnOnce(T) -> Result<Planned, Problem>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency_key(request.headers())?;
    let (body, source) = body.value()?;
    let mut planned = source.placing(async { plan(read_object(&body)?).await }).await?;
    planned.origin.idempotency = key.map(|key| (key, request_digest(about, body)));
    let run = accepted(state, &planned).await?;
    let location = format!("/api/v1/runs/{}", run.id);
    Ok(HttpResponse::Accepted().insert_header(("location", location)).json(RunView::of(run)))
}

async fn accepted(state: &AppState, planned: &Planned) -> Result<RunRow, Problem> {
    let Planned { run, origin, begins_with } = planned;
    let acceptance = if begins_with.is_empty() {
        state.runs.accept(run, origin).await?
    } else {
        state.runs.accept_rerun(run, origin, begins_with).await?
    };
    match acceptance {
        Acceptance::Accepted(run) => {
            tracing::info!(run.id = %run.id, project.id = %run.project, "run {} is accepted", run.id);
            Ok(*run)
        }
        Acceptance::AcceptedBefore(run) => {
            state.runs.find(run).await?.ok_or_else(|| Problem::internal("an accepted run is not there"))
        }
        Acceptance::OtherRequest => {
            Err(Problem::conflict("this idempotency key was used for another request"))
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY_LEN => Ok(Some(key.to_owned())),
        _ => {
            let detail = format!("the Idempotency-Key must have 1 to {MAX_KEY_LEN} visible ASCII characters");
            Err(Problem::new(Kind::Invalid, detail))
        }
    }
}

/// What makes two requests the same: what they are about, and the body as it was sent.
fn request_digest(about: Value, body: Value) -> Digest {
    let mut whole = about;
    if let Value::Object(fields) = &mut whole {
        fields.insert("body".to_owned(), body);
    }
    Digest::of_json(&whole)
}

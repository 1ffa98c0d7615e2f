//! Accepting runs, whatever asks for them: once for each idempotency key, and answered alike.

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse};
use gathering_dag_engine::{NewRun, Record};
use gathering_domain::{Digest, ProjectId, RunId};
use gathering_persistence::{Acceptance, RunOrigin, RunRow};
use serde_json::Value;

use crate::http::api::run_view::RunView;
use crate::http::edge::body::{FromFields, Received, read_object};
use crate::http::edge::problem::{Kind, Problem};
use crate::http::state::AppState;

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
/// and body, about the same thing in the project, answer the same run, whatever has become of what it was made of: so the
/// key is looked up before anything is planned. The caller may run things in the project, and so may see its runs.
///
/// # Errors
/// 422 for a key or a body that cannot be, 409 for a key that was used for another request, and what `plan` says.
pub(super) async fn accept<T: FromFields>(
    state: &AppState,
    request: &HttpRequest,
    body: Received,
    project: ProjectId,
    about: Value,
    plan: impl AsyncFnOnce(T) -> Result<Planned, Problem>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency_key(request.headers())?;
    let (body, source) = body.value()?;
    let idempotency = key.map(|key| (key, request_digest(about, &body)));
    if let Some((key, digest)) = &idempotency
        && let Some(Acceptance::AcceptedBefore(run)) = state.runs.find_by_key(project, key, *digest).await?
    {
        return Ok(answer(accepted_before(state, run).await?));
    }
    let mut planned = source.placing(async { plan(read_object(&body)?).await }).await?;
    planned.origin.idempotency = idempotency;
    Ok(answer(accepted(state, &planned).await?))
}

fn answer(run: RunRow) -> HttpResponse {
    let location = format!("/api/v1/runs/{}", run.id);
    HttpResponse::Accepted().insert_header(("location", location)).json(RunView::of(run))
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
        Acceptance::AcceptedBefore(run) => accepted_before(state, run).await,
        Acceptance::OtherRequest => {
            Err(Problem::conflict("this idempotency key was used for another request"))
        }
    }
}

async fn accepted_before(state: &AppState, run: RunId) -> Result<RunRow, Problem> {
    state.runs.find(run).await?.ok_or_else(|| Problem::internal("an accepted run is not there"))
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
fn request_digest(about: Value, body: &Value) -> Digest {
    let mut whole = about;
    if let Value::Object(fields) = &mut whole {
        fields.insert("body".to_owned(), body.clone());
    }
    Digest::of_json(&whole)
}

//! Runs taken up again: as new runs, which begin with what stands of the old ones.

use actix_web::{HttpRequest, HttpResponse, web};
use gathering_auth::Action;
use gathering_dag_engine::{Fields, NewRun, Record, RerunFrom, RerunRefused, Shape, records_that_stand};
use gathering_domain::RunId;
use gathering_persistence::{RunOrigin, RunRow};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::accept::{Planned, accept};
use super::load_journal;
use super::start::run_input;
use crate::http::api::run_view::RunView;
use crate::http::edge::body::{Body, FromFields};
use crate::http::edge::problem::{Problem, ProblemView};
use crate::http::state::AppState;

/// From where a run is taken up again.
#[derive(ToSchema)]
pub(crate) struct Rerun {
    /// `start`: everything runs again. `failed`: what did not succeed, and what follows on it; where that is the output
    /// alone, it is computed again. A node's id: this node, what follows on it, and what did not come to an end that the
    /// run could live with.
    #[schema(value_type = String, example = "failed")]
    from: RerunFrom,
    /// What it is started with; as the run before by default. What stands was made of the old one.
    #[schema(required = false)]
    input: Option<Value>,
}

impl FromFields for Rerun {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let from = match fields.required("from", Shape::Text).and_then(Value::as_str) {
            None => None,
            Some("start") => Some(RerunFrom::Start),
            Some("failed") => Some(RerunFrom::Failed),
            Some(node) => match node.parse() {
                Ok(node) => Some(RerunFrom::Node(node)),
                Err(_) => {
                    fields.problem("from", "must be `start`, `failed` or the id of a node");
                    None
                }
            },
        };
        let input = run_input(fields);
        Some(Self { from: from?, input })
    }
}

/// Takes up a run that has ended, as a new run that refers to it: what succeeded before the chosen point is not executed
/// again.
#[utoipa::path(post, path = "/api/v1/runs/{id}/rerun", tag = "runs", operation_id = "rerun", params(
    ("id" = Uuid, Path, description = "The run that has ended"),
    ("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same run"),
), request_body = Rerun, responses(
    (status = 202, description = "The new run", body = RunView),
    (status = 404, body = ProblemView, content_type = "application/problem+json"),
    (status = 409, description = "The run has not ended, nothing in it failed, another one started it, its pipeline is disabled, or the key was used for another request", body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn rerun(
    state: web::Data<AppState>,
    id: web::Path<String>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    let (caller, body) = body.receive().await?;
    let old = state.run(&caller, &id, Action::Run).await?;
    let about = json!({ "rerun_of": old.id });
    let trigger = json!({ "type": "rerun", "user_id": caller.user, "run_id": old.id });
    let project = old.project;
    accept(&state, &request, body, project, about, async |wanted| plan(&state, old, trigger, wanted).await)
        .await
}

async fn plan(state: &AppState, old: RunRow, trigger: Value, wanted: Rerun) -> Result<Planned, Problem> {
    check_repeatable(state, &old).await?;
    let begins_with = standing(state, &old, wanted.from).await?;
    let run = NewRun {
        id: RunId::new(),
        project: old.project,
        graph: old.graph,
        input: wanted.input.unwrap_or(old.input),
        priority: old.priority,
        available_at: None,
        timeout: state.graph_summary(old.graph).await?.timeout,
    };
    let origin = RunOrigin {
        kind: old.kind,
        trigger,
        pipeline: old.pipeline,
        rerun_of: Some(old.id),
        ..RunOrigin::default()
    };
    Ok(Planned { run, origin, begins_with })
}

/// Whether the run may be taken up at all.
async fn check_repeatable(state: &AppState, old: &RunRow) -> Result<(), Problem> {
    if !old.state.is_terminal() {
        return Err(Problem::conflict("the run has not ended: wait for it, or cancel it"));
    }
    if let Some(parent) = old.parent {
        return Err(Problem::conflict(format!("the run is a part of run {parent}: take that one up again")));
    }
    if let Some((pipeline, _)) = old.pipeline
        && state.pipelines.find(pipeline).await?.is_some_and(|pipeline| !pipeline.enabled)
    {
        return Err(Problem::conflict("the pipeline is disabled: enable it first"));
    }
    Ok(())
}

/// What the new run's journal begins with. Computed on a thread of its own, since a large graph takes a while.
async fn standing(state: &AppState, old: &RunRow, from: RerunFrom) -> Result<Vec<Record>, Problem> {
    let definition = state.engine.store().load_graph(old.graph).await?;
    let journal = if from == RerunFrom::Start { Vec::new() } else { load_journal(state, old.id).await? };
    // A run that was claimed has a journal for as long as retention keeps it.
    if from != RerunFrom::Start && journal.is_empty() && old.started_at.is_some() {
        let message = "the journal of this run is no longer kept: rerun it from `start`";
        return Err(Problem::conflict(message));
    }
    let (specs, ended) = (state.engine.node_specs().clone(), old.state);
    let computed = tokio::task::spawn_blocking(move || {
        let graph = gathering_dag_engine::Graph::validate(&definition, &specs);
        graph.map(|graph| records_that_stand(&graph, &journal, ended, &from))
    });
    let computed = computed.await.map_err(Problem::internal)?;
    computed.map_err(Problem::internal)?.map_err(|refused| match refused {
        RerunRefused::NothingFailed => Problem::conflict(refused.to_string()),
        RerunRefused::UnknownNode(_) => Problem::invalid_field("from", refused.to_string()),
        corrupt @ RerunRefused::Corrupt(_) => Problem::internal(corrupt),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::edge::body::read_object;

    #[test]
    fn a_run_is_taken_up_at_its_start_at_what_failed_or_at_a_node() {
        let from = |text: &str| read_object::<Rerun>(&json!({ "from": text })).map(|Rerun { from, .. }| from);
        assert_eq!(from("start").unwrap(), RerunFrom::Start);
        assert_eq!(from("failed").unwrap(), RerunFrom::Failed);
        assert_eq!(from("a-1").unwrap(), RerunFrom::Node("a-1".parse().unwrap()));
        for wrong in ["", "1a", "a b", "a.b"] {
            assert_eq!(from(wrong).err().map(|problem| problem.status().as_u16()), Some(422), "{wrong}");
        }
        assert!(read_object::<Rerun>(&json!({})).is_err());
        assert!(read_object::<Rerun>(&json!({"from": "start", "version": 1})).is_err());
    }
}

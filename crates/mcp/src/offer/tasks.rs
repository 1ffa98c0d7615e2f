//! Tasks: calls that outlive their requests, in the forms of both generations.

use chrono::SecondsFormat;
use gathering_domain::{Pointer, Problems};
use serde_json::{Map, Value, json};

use super::error::OfferError;
use super::request::Request;
use super::{McpOffer, OfferedTask, TaskAnswer, TaskQuestion, TaskState};
use crate::message::RpcError;

/// The extension that tasks are since 2026-07-28.
pub(super) const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// How often a client should ask what became of a task, in milliseconds.
const POLL_INTERVAL_MS: u64 = 1000;

/// Whether the client follows a task that its call becomes.
pub(super) fn follows(request: &Request) -> bool {
    if !request.is_modern {
        return request.params["task"].is_object();
    }
    let capabilities = &request.params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    capabilities["extensions"].get(EXTENSION).is_some()
}

/// The answer to a call that goes on.
pub(super) fn created(task: &OfferedTask, request: &Request) -> Value {
    if request.is_modern {
        let mut created = shown(task, true);
        created["resultType"] = json!("task");
        return created;
    }
    json!({ "task": shown(task, false) })
}

pub(super) async fn get<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    request: &Request,
) -> Result<Value, RpcError> {
    let task = offer.find_task(caller, request.text("taskId")?).await?;
    Ok(detailed(&task, request))
}

pub(super) async fn cancel<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    request: &Request,
) -> Result<Value, RpcError> {
    let task = offer.cancel_task(caller, request.text("taskId")?).await?;
    Ok(if request.is_modern { json!({}) } else { shown(&task, false) })
}

/// Waits for the end, and answers with what the call would have been answered with.
pub(super) async fn result<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    request: &Request,
) -> Result<Value, RpcError> {
    let task = offer.wait_for_task(caller, request.text("taskId")?).await?;
    let mut result = match &task.state {
        TaskState::Ended(result) => result.shown(),
        TaskState::Cancelled => return Err(OfferError::Conflict("the task was cancelled".to_owned()).into()),
        TaskState::Working | TaskState::InputRequired(_) => {
            return Err(OfferError::Unavailable("the task goes on: ask again".to_owned()).into());
        }
    };
    result["_meta"] = json!({"io.modelcontextprotocol/related-task": {"taskId": task.id}});
    Ok(result)
}

pub(super) async fn update<O: McpOffer>(
    offer: &O,
    caller: &O::Caller,
    request: &Request,
) -> Result<Value, RpcError> {
    let answers = answers(&request.params["inputResponses"]).map_err(OfferError::Invalid)?;
    offer.answer_task(caller, request.text("taskId")?, answers).await?;
    Ok(json!({}))
}

/// The answers to questions: those of a form that asks for `approve` and `comment`.
fn answers(responses: &Value) -> Result<Vec<TaskAnswer>, Problems> {
    let at = Pointer::root().join("inputResponses");
    let Some(responses) = responses.as_object() else {
        return Err(Problems::one(at, "must be an object"));
    };
    let mut problems = Problems::new();
    let mut answers = Vec::new();
    for (key, response) in responses {
        // Some clients send the result of the request alone, others in its envelope.
        let result = response.get("result").unwrap_or(response);
        let content = &result["content"];
        let approve = match (result["action"].as_str(), content["approve"].as_bool()) {
            (Some("accept"), Some(approve)) => approve,
            (Some("decline"), _) => false,
            // Nobody has decided.
            (Some("cancel"), _) => continue,
            _ => {
                problems.add(at.join(key.as_str()), "must be an elicitation result with `content.approve`");
                continue;
            }
        };
        let comment = content["comment"].as_str().filter(|comment| !comment.is_empty()).map(str::to_owned);
        answers.push(TaskAnswer { key: key.clone(), approve, comment });
    }
    problems.into_result().map(|()| answers)
}

/// A task with what it has come to.
fn detailed(task: &OfferedTask, request: &Request) -> Value {
    let mut detailed = shown(task, request.is_modern);
    if !request.is_modern {
        return detailed;
    }
    match &task.state {
        TaskState::Working | TaskState::Cancelled => {}
        TaskState::Ended(result) => {
            detailed["result"] = result.shown();
            detailed["result"]["resultType"] = json!("complete");
        }
        TaskState::InputRequired(questions) => {
            let requests: Map<String, Value> =
                questions.iter().map(|question| (question.key.clone(), elicitation(question))).collect();
            detailed["inputRequests"] = Value::Object(requests);
        }
    }
    detailed
}

fn elicitation(question: &TaskQuestion) -> Value {
    json!({
        "method": "elicitation/create",
        "params": {
            "mode": "form",
            "message": question.message,
            "requestedSchema": {
                "type": "object",
                "properties": {
                    "approve": {"type": "boolean", "title": "Approve"},
                    "comment": {"type": "string", "title": "Comment"},
                },
                "required": ["approve"],
            },
        },
    })
}

fn shown(task: &OfferedTask, is_modern: bool) -> Value {
    let status = match &task.state {
        TaskState::Working => "working",
        TaskState::InputRequired(_) => "input_required",
        TaskState::Ended(_) => "completed",
        TaskState::Cancelled => "cancelled",
    };
    let (ttl, poll_interval) = if is_modern { ("ttlMs", "pollIntervalMs") } else { ("ttl", "pollInterval") };
    let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut shown = json!({
        "taskId": task.id,
        "status": status,
        "createdAt": time(task.created_at),
        "lastUpdatedAt": time(task.updated_at),
        ttl: null,
        poll_interval: POLL_INTERVAL_MS,
    });
    if let Some(message) = &task.message {
        shown["statusMessage"] = json!(message);
    }
    shown
}

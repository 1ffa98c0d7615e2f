//! Posting events, in the form of this API or as CloudEvents.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control::{
    self as control, EventControl, MAX_POSTED_EVENTS, PostEvent, cloud_event_of_headers, read_cloud_event,
};
use gathering_domain::{Pointer, Problems, ProjectId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::view::{PostAnswerView, PostedEventView, PostedEventsView};
use gathering_edge::body::Body;
use gathering_edge::input::{self, Input};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use gathering_edge::values::AnyObject;

/// An event to be posted, or a batch of them (`events`), of which all are posted or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostEvents {
    /// Absent: the caller's default project.
    #[schema(required = false)]
    project_id: Option<Uuid>,
    /// A dotted lower-case name of at most 128 bytes. The types of the server, such as `run.started`, are not yours.
    #[schema(required = false, example = "order.paid")]
    r#type: Option<String>,
    /// Any JSON of at most 64 KiB; an empty object by default.
    #[schema(required = false)]
    data: Option<Value>,
    /// Posts the event once: another one of the same type and key in the project is answered with the first.
    #[schema(required = false)]
    key: Option<String>,
    /// What it is about.
    #[schema(required = false)]
    subject: Option<String>,
    /// A batch: each with `type`, `data`, `key` and `subject`.
    #[schema(required = false, min_items = 1, max_items = 1000)]
    events: Option<Vec<EventOfBatch>>,
}

/// One event of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventOfBatch {
    /// As of a single event.
    #[schema(example = "order.paid")]
    r#type: String,
    /// As of a single event.
    #[schema(required = false)]
    data: Option<Value>,
    /// As of a single event.
    #[schema(required = false)]
    key: Option<String>,
    /// As of a single event.
    #[schema(required = false)]
    subject: Option<String>,
}

impl Input for PostEvents {
    fn judge(object: &Map<String, Value>, problems: &mut Problems) {
        let is_given = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
        let at = |name: &str| Pointer::root().join(name);
        if !is_given("events") {
            if !is_given("type") {
                problems.add(at("type"), "is missing: send `type`, or a batch as `events`");
            }
            return;
        }
        for name in ["type", "data", "key", "subject"] {
            if is_given(name) {
                problems.add(at(name), "must not be together with `events`");
            }
        }
    }
}

/// Where CloudEvents are posted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PostedInto {
    /// The project, where the body does not name one; the caller's default project if absent.
    project_id: Option<Uuid>,
}

/// In which form events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Own,
    CloudEvent,
    CloudEvents,
    CloudEventInHeaders,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/cloudevents+json" => Form::CloudEvent,
            "application/cloudevents-batch+json" => Form::CloudEvents,
            _ if headers.contains_key("ce-specversion") => Form::CloudEventInHeaders,
            _ => Form::Own,
        }
    }
}

/// Posts an event, or up to 1,000 of them. What was answered is in the log, and reaches its readers on every instance.
///
/// CloudEvents 1.0 are taken, too: in structured, batch and binary mode, with JSON data. One `id` of one `source` is
/// posted once.
#[utoipa::path(post, path = "/api/v1/events", tag = "events", operation_id = "post_events", params(PostedInto), request_body(
    content((PostEvents = "application/json"), (AnyObject = "application/cloudevents+json"), (Vec<AnyObject> = "application/cloudevents-batch+json"))
), responses(
    (status = 201, description = "At least one event is new", body = PostAnswerView),
    (status = 200, description = "All were there before", body = PostAnswerView),
    (status = 404, description = "No such project"),
))]
pub(crate) async fn post(
    events: web::Data<EventControl>,
    request: HttpRequest,
    query: Query<PostedInto>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let into = query.read()?.project_id;
    let form = Form::of(request.headers());
    let (value, source) = body.value()?;
    let posted = source.placing(async {
        let (posting, is_batch) = read(form, value, request.headers(), into)?;
        Ok((events.post(&caller, posting).await?, is_batch))
    });
    let (posted, is_batch) = posted.await?;
    let is_new = posted.iter().any(|posted| !posted.is_repeated);
    let mut items: Vec<PostedEventView> = posted.into_iter().map(Into::into).collect();
    let answer = match items.pop() {
        Some(one) if !is_batch => PostAnswerView::One(Box::new(one)),
        last => {
            items.extend(last);
            PostAnswerView::Batch(PostedEventsView { items })
        }
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(HttpResponse::build(status).json(answer))
}

/// The events of a request, and whether they are a batch.
fn read(
    form: Form,
    value: Value,
    headers: &HeaderMap,
    into: Option<Uuid>,
) -> Result<(control::PostEvents, bool), ProblemDetails> {
    let root = Pointer::root();
    let mut problems = Problems::new();
    let (project, events, is_batch) = match form {
        Form::Own => return read_own(value, into),
        Form::CloudEvent => {
            let event = read_cloud_event(value, &root, &mut problems);
            (into, event.map(|event| (root, event)).into_iter().collect(), false)
        }
        Form::CloudEventInHeaders => {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().ok()));
            let event = cloud_event_of_headers(headers, value, &mut problems);
            let event = event.and_then(|event| read_cloud_event(event, &root, &mut problems));
            (into, event.map(|event| (root, event)).into_iter().collect(), false)
        }
        Form::CloudEvents => (into, read_batch(value, &mut problems), true),
    };
    problems.into_result().map_err(ProblemDetails::invalid)?;
    Ok((control::PostEvents { project: project.map(ProjectId::from), events }, is_batch))
}

fn read_own(value: Value, into: Option<Uuid>) -> Result<(control::PostEvents, bool), ProblemDetails> {
    let PostEvents { project_id, r#type, data, key, subject, events } = input::read(value)?;
    let is_batch = events.is_some();
    let single = || r#type.map(|r#type| EventOfBatch { r#type, data, key, subject }).into_iter().collect();
    let at = |number: usize| match is_batch {
        true => Pointer::root().join("events").join(number.to_string()),
        false => Pointer::root(),
    };
    let events = events.unwrap_or_else(single).into_iter().enumerate().map(|(number, event)| {
        let EventOfBatch { r#type: event_type, data, key, subject } = event;
        let data = data.unwrap_or_else(|| json!({}));
        (at(number), PostEvent { event_type, data, key, subject, ..PostEvent::default() })
    });
    let project = project_id.or(into).map(ProjectId::from);
    Ok((control::PostEvents { project, events: events.collect() }, is_batch))
}

fn read_batch(value: Value, problems: &mut Problems) -> Vec<(Pointer, PostEvent)> {
    let Value::Array(events) = value else {
        problems.add(Pointer::root(), "must be a batch of CloudEvents: an array");
        return Vec::new();
    };
    if events.is_empty() || events.len() > MAX_POSTED_EVENTS {
        problems.add(Pointer::root(), format!("must have 1 to {MAX_POSTED_EVENTS} events"));
        return Vec::new();
    }
    let read = events.into_iter().enumerate().filter_map(|(number, event)| {
        let at = Pointer::root().join(number.to_string());
        Some((at.clone(), read_cloud_event(event, &at, problems)?))
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn pointers(form: Form, value: Value, lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let problem = read(form, value, &headers(lines), None).unwrap_err();
        assert_eq!(problem.status().as_u16(), 422);
        problem.errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn an_event_comes_alone_or_in_a_batch() {
        let one = json!({"type": "order.paid", "key": "7", "data": [1]});
        let (posting, is_batch) = read(Form::Own, one, &headers(&[]), None).unwrap();
        assert_eq!(
            (posting.events[0].0.as_str(), &posting.events[0].1.data, is_batch),
            ("", &json!([1]), false)
        );
        let batch = json!({"events": [{"type": "a.b"}, {"type": "a.c", "subject": "s"}]});
        let project = Uuid::now_v7();
        let (posting, is_batch) = read(Form::Own, batch, &headers(&[]), Some(project)).unwrap();
        assert_eq!((posting.project, is_batch), (Some(project.into()), true));
        assert_eq!((posting.events[1].0.as_str(), &posting.events[0].1.data), ("/events/1", &json!({})));
    }

    #[test]
    fn everything_wrong_with_the_form_is_named() {
        assert_eq!(pointers(Form::Own, json!({}), &[]), ["/type"]);
        let both = json!({"type": "a.b", "events": [{"typ": "a.c"}], "key": 3});
        assert_eq!(pointers(Form::Own, both, &[]), ["/events/0/typ", "/events/0/type", "/key", "/type"]);
        let too_many = vec![json!({"type": "a.b"}); MAX_POSTED_EVENTS + 1];
        assert_eq!(pointers(Form::Own, json!({"events": too_many}), &[]), ["/events"]);
        assert_eq!(pointers(Form::Own, json!({"events": []}), &[]), ["/events"]);
        assert_eq!(pointers(Form::CloudEvents, json!([]), &[]), [""]);
        assert_eq!(pointers(Form::CloudEvents, json!({}), &[]), [""]);
        let second = json!([{"specversion": "1.0", "id": "1", "source": "/", "type": "a.b"}, 7]);
        assert_eq!(pointers(Form::CloudEvents, second, &[]), ["/1"]);
    }

    #[test]
    fn a_cloud_event_comes_in_headers() {
        let lines = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "A-1"),
            ("ce-source", "/shop"),
            ("ce-type", "order.paid"),
            ("ce-subject", "caf%C3%A9"),
            ("ce-traceparent", "00-x"),
        ];
        assert_eq!(Form::of(&headers(&lines)), Form::CloudEventInHeaders);
        let data = json!({"total": 1});
        let (posting, _) = read(Form::CloudEventInHeaders, data.clone(), &headers(&lines), None).unwrap();
        let event = &posting.events[0].1;
        assert_eq!((event.key.as_deref(), event.subject.as_deref()), (Some("A-1"), Some("café")));
        assert_eq!((&event.data, &event.attributes["traceparent"]), (&data, &json!("00-x")));
        let wrong = [&lines[..], &[("ce-id", "A-2"), ("ce-time", "%zz")]].concat();
        assert_eq!(pointers(Form::CloudEventInHeaders, data, &wrong), ["/id", "/time"]);
        let structured = headers(&[("content-type", "application/CloudEvents+json; charset=utf-8")]);
        assert_eq!(Form::of(&structured), Form::CloudEvent);
        assert_eq!(Form::of(&headers(&[])), Form::Own);
    }
}

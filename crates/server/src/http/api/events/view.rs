//! How events are shown.

use chrono::{DateTime, Utc};
use gathering_control::{LoggedEvent, PostedEvent};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use gathering_edge::values::AnyObject;

/// An event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView {
    /// Its place in the log, for `after` and `Last-Event-ID`. It grows, with gaps.
    seq: i64,
    /// Its id; of a CloudEvent the `id` that it came with.
    id: String,
    /// What happened.
    #[schema(example = "order.paid")]
    r#type: String,
    /// Null: of the whole installation.
    project_id: Option<Uuid>,
    /// What it is about: of an event of the server the id of the run, schedule, task or user.
    subject: Option<String>,
    key: Option<String>,
    /// The `source` of a CloudEvent.
    source: Option<String>,
    /// The other attributes of a CloudEvent.
    #[schema(value_type = AnyObject)]
    attributes: Value,
    data: Value,
    /// When it was written.
    at: DateTime<Utc>,
}

impl From<LoggedEvent> for EventView {
    fn from(event: LoggedEvent) -> Self {
        let id = event.name();
        let LoggedEvent { seq, project, event_type, key, source, subject, attributes, data, at, .. } = event;
        Self {
            seq,
            id,
            r#type: event_type,
            project_id: project.map(|project| project.as_uuid()),
            subject,
            key,
            source,
            attributes: Value::Object(attributes),
            data,
            at,
        }
    }
}

/// An event that was posted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PostedEvent)]
pub(crate) struct PostedEventView {
    /// Whether an event with this key was there before: it is shown as it was posted first.
    repeated: bool,
    #[serde(flatten)]
    event: EventView,
}

impl From<PostedEvent> for PostedEventView {
    fn from(posted: PostedEvent) -> Self {
        Self { repeated: posted.is_repeated, event: posted.event.into() }
    }
}

/// The events that were posted together.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PostedEvents)]
pub(crate) struct PostedEventsView {
    /// In the order of the request.
    pub(crate) items: Vec<PostedEventView>,
}

/// What a request to post events is answered with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = EventsAnswer)]
pub(crate) enum PostAnswerView {
    /// For one event.
    One(Box<PostedEventView>),
    /// For a batch.
    Batch(PostedEventsView),
}

/// Which events may be missing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventGap)]
pub(crate) struct GapView {
    /// The last event that the reader has seen.
    after: i64,
    /// The last one that may be missing.
    until: i64,
}

impl GapView {
    /// The gap as JSON.
    pub(super) fn text(after: i64, until: i64) -> String {
        serde_json::to_string(&Self { after, until }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn an_event_is_shown_as_expressions_see_it() {
        let event = LoggedEvent {
            seq: 7,
            project: Some(gathering_domain::ProjectId::new()),
            event_type: "order.paid".to_owned(),
            id: Some(Uuid::now_v7()),
            key: Some("k".to_owned()),
            source: None,
            subject: Some("order 7".to_owned()),
            attributes: Map::new(),
            data: json!({"total": 3}),
            at: Utc::now(),
        };
        let seen = event.to_json();
        assert_eq!(serde_json::to_value(EventView::from(event)).unwrap(), seen);
    }
}

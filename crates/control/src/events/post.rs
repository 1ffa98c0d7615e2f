//! Posting events.

use std::io;

use gathering_auth::Caller;
use gathering_dag_engine::check_value;
use gathering_domain::{Pointer, Problems, ProjectId};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EventControl, EventType, LoggedEvent};
use crate::ControlError;
use crate::access::right;

/// The most bytes of the data of an event, as JSON.
pub const MAX_EVENT_DATA_BYTES: usize = 64 * 1024;

/// The most events of one request.
pub const MAX_POSTED_EVENTS: usize = 1000;

/// The most bytes of a key and of a subject.
const MAX_KEY_BYTES: usize = 256;

/// The most bytes of a source.
const MAX_SOURCE_BYTES: usize = 1024;

/// The most bytes of the other attributes of a CloudEvent, as JSON.
const MAX_ATTRIBUTES_BYTES: usize = 8 * 1024;

/// An event to be posted, not checked yet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PostEvent {
    /// What happened.
    pub event_type: String,
    /// What else there is to say.
    pub data: Value,
    /// What makes it the same as an earlier one.
    pub key: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// Of a CloudEvent: where it comes from. The key is its `id` then.
    pub source: Option<String>,
    /// Of a CloudEvent: its other attributes.
    pub attributes: Map<String, Value>,
}

/// Events to be posted together, all or none.
#[derive(Debug, Clone, PartialEq)]
pub struct PostEvents {
    /// The project; the caller's default project if absent.
    pub project: Option<ProjectId>,
    /// The events, each with its place in the request, where its problems are named.
    pub events: Vec<(Pointer, PostEvent)>,
}

/// An event that a store appends. Only this crate makes one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NewEvent {
    /// Its id.
    pub id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// What makes it the same as an earlier one: of its project and type, or of its project and source.
    pub key: Option<String>,
    /// Of a CloudEvent: where it comes from.
    pub source: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// Of a CloudEvent: its other attributes.
    pub attributes: Map<String, Value>,
    /// Its data.
    pub data: Value,
}

/// An event that was posted, now or before.
#[derive(Debug, Clone, PartialEq)]
pub struct PostedEvent {
    /// The event in the log: the first one of its key.
    pub event: LoggedEvent,
    /// Whether it was there before.
    pub is_repeated: bool,
}

impl PostEvent {
    /// The event if everything is right with it; else its problems are added, below its place in the request.
    pub(crate) fn check(self, at: &Pointer, problems: &mut Problems) -> Option<NewEvent> {
        let Self { event_type, data, key, subject, source, attributes } = self;
        let mut found = Problems::new();
        let parsed = event_type.parse::<EventType>();
        if let Err(error) = &parsed {
            found.add(at.join("type"), error.to_string());
        }
        let key_name = if source.is_some() { "id" } else { "key" };
        for (name, text, most) in [
            (key_name, &key, MAX_KEY_BYTES),
            ("subject", &subject, MAX_KEY_BYTES),
            ("source", &source, MAX_SOURCE_BYTES),
        ] {
            if text.as_ref().is_some_and(|text| !is_line(text, most)) {
                let message = format!("must be 1 to {most} bytes on one line");
                found.add(at.join(name), message);
            }
        }
        if let Err(limit) = check_value(&data) {
            found.add(at.join("data"), limit.to_string());
        } else if json_bytes(&data) > MAX_EVENT_DATA_BYTES {
            let message =
                format!("has more than {MAX_EVENT_DATA_BYTES} bytes: store it elsewhere, and refer to it");
            found.add(at.join("data"), message);
        }
        if !attributes.is_empty() && json_bytes(&Value::Object(attributes.clone())) > MAX_ATTRIBUTES_BYTES {
            found.add(at.clone(), format!("its attributes have more than {MAX_ATTRIBUTES_BYTES} bytes"));
        }
        let is_right = found.is_empty();
        problems.extend(found);
        let event_type = parsed.ok().filter(|_| is_right)?;
        Some(NewEvent { id: Uuid::now_v7(), event_type, key, source, subject, attributes, data })
    }
}

/// Whether it is some text on one line.
fn is_line(text: &str, most: usize) -> bool {
    !text.trim().is_empty() && text.len() <= most && !text.chars().any(char::is_control)
}

/// The length of a value as JSON.
fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What is written to a count does not fail.
    serde_json::to_writer(&mut count, value).ok();
    count.0
}

impl EventControl {
    /// Posts events into a project, all of them or none, and answers with each as it stands in the log.
    ///
    /// An event with a key is posted once: a second one of the same type and key in the project, or of the same source and
    /// id, is answered with the first. That holds as long as the first is in the log. Those without a key are always new.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`] for the project; [`ControlError::Invalid`] with
    /// everything that is wrong with the events, or if no project is named and the caller has no default project. After
    /// [`ControlError::Unavailable`] it is unknown whether they were posted: with keys, posting them again is safe.
    pub async fn post(&self, caller: &Caller, post: PostEvents) -> Result<Vec<PostedEvent>, ControlError> {
        let PostEvents { project, events } = post;
        let project = self.projects.find_or_default::<right::Run>(caller, project).await?;
        let mut problems = Problems::new();
        let new: Vec<NewEvent> =
            events.into_iter().filter_map(|(at, event)| event.check(&at, &mut problems)).collect();
        problems.into_result().map_err(ControlError::Invalid)?;
        if new.is_empty() {
            return Ok(Vec::new());
        }
        self.store.append_events(&project, &new).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems_of(event: PostEvent) -> Vec<String> {
        let mut problems = Problems::new();
        let checked = event.check(&Pointer::root().join("events").join("3"), &mut problems);
        assert_eq!(checked.is_none(), !problems.is_empty());
        problems.iter().map(|problem| problem.pointer.as_str().to_owned()).collect()
    }

    #[test]
    fn every_problem_of_an_event_is_named_at_its_place() {
        let right = PostEvent { event_type: "order.paid".to_owned(), ..PostEvent::default() };
        assert_eq!(problems_of(right.clone()), [""; 0]);
        let wrong = PostEvent {
            event_type: "run.started".to_owned(),
            data: json!("x".repeat(MAX_EVENT_DATA_BYTES)),
            key: Some("a\nb".to_owned()),
            subject: Some(" ".to_owned()),
            ..PostEvent::default()
        };
        let places = ["/events/3/type", "/events/3/key", "/events/3/subject", "/events/3/data"];
        assert_eq!(problems_of(wrong), places);
        let of_cloud =
            PostEvent { key: Some(String::new()), source: Some("s".repeat(1025)), ..right.clone() };
        assert_eq!(problems_of(of_cloud), ["/events/3/id", "/events/3/source"]);
        let fits = PostEvent { data: json!("x".repeat(MAX_EVENT_DATA_BYTES - 2)), ..right };
        assert_eq!(problems_of(fits), [""; 0]);
    }
}

//! Events as CloudEvents 1.0 (<https://cloudevents.io>), in both directions.

use gathering_domain::{Pointer, Problems};
use serde_json::{Map, Value, json};

use super::{LoggedEvent, PostEvent};

/// The most extension attributes of an event.
const MAX_EXTENSIONS: usize = 20;

/// The header fields of a CloudEvent in binary mode begin so.
const BINARY: &str = "ce-";

/// The attributes that the specification names, beside those that are read here one by one.
const OPTIONAL: &[&str] = &["dataschema", "time"];

/// Reads a CloudEvent in its JSON format. Its problems are added, below its place `at` in the request.
///
/// Its `id` is the key of the event: one `id` of one `source` is posted once.
pub fn read_cloud_event(value: Value, at: &Pointer, problems: &mut Problems) -> Option<PostEvent> {
    let Value::Object(mut fields) = value else {
        problems.add(at.clone(), "must be a CloudEvent: an object");
        return None;
    };
    let n_before = problems.iter().count();
    if fields.remove("specversion").as_ref().and_then(Value::as_str) != Some("1.0") {
        problems.add(at.join("specversion"), "must be `1.0`");
    }
    let mut text = |name: &str, is_required: bool| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        None | Some(Value::Null) if !is_required => None,
        None => {
            problems.add(at.join(name), "is missing");
            None
        }
        Some(_) => {
            problems.add(at.join(name), "must be text");
            None
        }
    };
    let (id, source, event_type) = (text("id", true), text("source", true), text("type", true));
    let (subject, media_type) = (text("subject", false), text("datacontenttype", false));
    if media_type.is_some_and(|media_type| !is_json(&media_type)) {
        problems.add(at.join("datacontenttype"), "must be JSON: other data is not stored");
    }
    if fields.remove("data_base64").is_some() {
        problems.add(at.join("data_base64"), "is not supported: send JSON as `data`");
    }
    let data = fields.remove("data").unwrap_or_default();
    fields.retain(|_, value| !value.is_null());
    check_attributes(&fields, at, problems);
    let is_right = problems.iter().count() == n_before;
    let (key, source, event_type) = (id?, source?, event_type?);
    is_right.then_some(PostEvent {
        event_type,
        data,
        key: Some(key),
        subject,
        source: Some(source),
        attributes: fields,
    })
}

/// The CloudEvent, in its JSON format, whose attributes are header fields and whose data are the body. Problems are added;
/// the value of a header is absent if it is no text.
pub fn cloud_event_of_headers<'a>(
    headers: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    data: Value,
    problems: &mut Problems,
) -> Option<Value> {
    let mut fields = Map::new();
    let mut attributes: Vec<_> =
        headers.filter_map(|(name, value)| Some((name.strip_prefix(BINARY)?, value))).collect();
    attributes.sort_by_key(|(name, _)| *name);
    for (name, value) in attributes {
        let Some(text) = value.and_then(percent_decoded) else {
            problems.add(Pointer::root().join(name), "must be text, percent-encoded where it is not ASCII");
            continue;
        };
        if matches!(name, "data" | "data_base64" | "datacontenttype") {
            problems.add(Pointer::root().join(name), "is no attribute in a header");
        }
        if fields.insert(name.to_owned(), Value::String(text)).is_some() {
            problems.add(Pointer::root().join(name), "is given twice");
        }
    }
    fields.insert("data".to_owned(), data);
    problems.is_empty().then_some(Value::Object(fields))
}

/// A text with percent-encoding, as headers and forms have it.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

fn check_attributes(attributes: &Map<String, Value>, at: &Pointer, problems: &mut Problems) {
    if attributes.len() > MAX_EXTENSIONS + OPTIONAL.len() {
        problems.add(at.clone(), format!("has more than {MAX_EXTENSIONS} extension attributes"));
    }
    for (name, value) in attributes {
        let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if name.is_empty() || !is_name {
            problems.add(at.join(name), "is not an attribute name: use only `a-z` and `0-9`");
        } else if OPTIONAL.contains(&name.as_str()) && !value.is_string() {
            problems.add(at.join(name), "must be text");
        } else if !(value.is_string() || value.is_boolean() || value.as_i64().is_some()) {
            problems.add(at.join(name), "must be text, a whole number or a boolean");
        }
        let is_time = |text: &str| chrono::DateTime::parse_from_rfc3339(text).is_ok();
        if name == "time" && value.as_str().is_some_and(|text| !is_time(text)) {
            problems.add(at.join(name), "must be a time in RFC 3339");
        }
    }
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// An event of the log as a CloudEvent in its JSON format. The extension `sequence` has its place in the log, `projectid`
/// its project, and `partitionkey` its key, if it was not posted as a CloudEvent.
pub fn cloud_event_of(event: &LoggedEvent) -> Value {
    let source = match (&event.source, event.project) {
        (Some(source), _) => source.clone(),
        (None, Some(project)) => format!("/projects/{project}"),
        (None, None) => "/".to_owned(),
    };
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    for (name, value) in &event.attributes {
        set(name, value.clone());
    }
    set("specversion", json!("1.0"));
    set("id", json!(event.name()));
    set("source", json!(source));
    set("type", json!(event.event_type));
    set("sequence", json!(event.seq.to_string()));
    if let Some(subject) = &event.subject {
        set("subject", json!(subject));
    }
    if let Some(project) = event.project {
        set("projectid", json!(project));
    }
    if let (Some(key), None) = (&event.key, &event.source) {
        set("partitionkey", json!(key));
    }
    if !event.attributes.contains_key("time") {
        set("time", json!(event.at));
    }
    if !event.data.is_null() {
        set("datacontenttype", json!("application/json"));
        set("data", event.data.clone());
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn read(value: Value) -> Result<PostEvent, Vec<String>> {
        let mut problems = Problems::new();
        let event = read_cloud_event(value, &Pointer::root(), &mut problems);
        let pointers = problems.iter().map(|problem| problem.pointer.as_str().to_owned()).collect();
        event.ok_or(pointers)
    }

    fn whole() -> Value {
        json!({
            "specversion": "1.0", "id": "A-1", "source": "https://example.org/shop", "type": "order.paid",
            "subject": "order 7", "time": "2026-11-30T08:00:00Z", "dataschema": "https://example.org/schema",
            "datacontenttype": "application/json; charset=utf-8", "traceparent": "00-x", "n": 3, "data": {"total": 1},
        })
    }

    #[test]
    fn what_was_posted_as_a_cloud_event_is_read_as_the_same() {
        let post = read(whole()).unwrap();
        assert_eq!((post.key.as_deref(), post.subject.as_deref()), (Some("A-1"), Some("order 7")));
        let event = LoggedEvent {
            seq: 9,
            project: None,
            event_type: post.event_type,
            id: Some(uuid::Uuid::now_v7()),
            key: post.key,
            source: post.source,
            subject: post.subject,
            attributes: post.attributes,
            data: post.data,
            at: Utc::now(),
        };
        let mut expected = whole();
        expected["datacontenttype"] = json!("application/json");
        expected["sequence"] = json!("9");
        assert_eq!(cloud_event_of(&event), expected);
    }

    #[test]
    fn an_event_of_the_server_is_a_cloud_event_with_what_it_needs() {
        let event = LoggedEvent {
            seq: 9,
            project: None,
            event_type: "run.failed".to_owned(),
            id: None,
            key: None,
            source: None,
            subject: Some("r".to_owned()),
            attributes: Map::new(),
            data: Value::Null,
            at: "2026-11-30T08:00:00Z".parse().unwrap(),
        };
        let expected = json!({
            "specversion": "1.0", "id": "9", "source": "/", "type": "run.failed", "sequence": "9", "subject": "r",
            "time": "2026-11-30T08:00:00Z",
        });
        assert_eq!(cloud_event_of(&event), expected);
    }

    #[test]
    fn every_problem_of_a_cloud_event_is_named() {
        assert_eq!(read(json!([])).unwrap_err(), [""]);
        assert_eq!(read(json!({})).unwrap_err(), ["/specversion", "/id", "/source", "/type"]);
        for (field, value) in [
            ("specversion", json!("0.3")),
            ("id", json!(1)),
            ("datacontenttype", json!("text/xml")),
            ("data_base64", json!("AAAA")),
            ("time", json!("yesterday")),
            ("dataschema", json!(1)),
            ("trace-parent", json!("x")),
            ("n", json!(1.5)),
            ("n", json!({})),
        ] {
            let mut event = whole();
            event[field] = value;
            assert_eq!(read(event).unwrap_err(), [format!("/{field}")]);
        }
    }
}

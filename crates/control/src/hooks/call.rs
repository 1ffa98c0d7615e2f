//! A call as filter and mapping see it: headers without secrets, and a body that was read.

use gathering_dag_engine::read_json;
use gathering_domain::{Digest, Pointer, Problems};
use gathering_tools::{HOOK_TOKEN_HEADER, ReceivedHeaders, WebhookScheme};
use serde_json::{Map, Value, json};

use super::HookVerification;
use crate::events::{cloud_event_of_headers, percent_decoded, read_cloud_event};

/// Headers whose names have one of these parts may authenticate: filter and mapping do not see them.
const SECRET_PARTS: [&str; 8] =
    ["authorization", "cookie", "token", "secret", "signature", "password", "api-key", "apikey"];

/// The most bytes of a header that is kept.
const MAX_HEADER_BYTES: usize = 2048;
/// The most bytes of all headers that are kept.
const MAX_HEADERS_BYTES: usize = 16 * 1024;
/// The longest delivery id that is kept as it is; of a longer one its digest is kept.
const MAX_KEY_BYTES: usize = 200;

/// A call that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// The headers that do not authenticate, by name in lower case.
    pub(super) headers: Value,
    /// The body: JSON, the fields of a form, or a CloudEvent in its JSON format, in whatever mode it came.
    pub(super) body: Value,
    /// Whether the body is a CloudEvent.
    pub(super) is_cloud_event: bool,
}

/// The form of a body, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Fields,
    CloudEvent,
    CloudEventInHeaders,
    CloudEvents,
}

impl Form {
    fn of(headers: &ReceivedHeaders) -> Self {
        let media_type = headers.get("content-type").unwrap_or_default();
        match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/cloudevents+json" => Form::CloudEvent,
            "application/cloudevents-batch+json" => Form::CloudEvents,
            _ if headers.get("ce-specversion").is_some() => Form::CloudEventInHeaders,
            "application/x-www-form-urlencoded" => Form::Fields,
            _ => Form::Json,
        }
    }
}

impl Call {
    /// Reads a call.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub(super) fn read(
        headers: &ReceivedHeaders,
        body: &[u8],
        verification: &HookVerification,
    ) -> Result<Self, String> {
        let form = Form::of(headers);
        let value = match form {
            Form::Fields => read_fields(body)?,
            _ if body.trim_ascii().is_empty() => json!({}),
            _ => read_json(body).map_err(|error| format!("the body is no JSON: {error}"))?,
        };
        let mut problems = Problems::new();
        let value = match form {
            Form::CloudEventInHeaders => {
                let fields = headers.iter().map(|(name, value)| (name, Some(value)));
                cloud_event_of_headers(fields, value, &mut problems).unwrap_or_default()
            }
            Form::CloudEvents => return Err("a batch of CloudEvents is not supported: send one".to_owned()),
            _ => value,
        };
        let is_cloud_event = matches!(form, Form::CloudEvent | Form::CloudEventInHeaders);
        if is_cloud_event && problems.is_empty() {
            read_cloud_event(value.clone(), &Pointer::root(), &mut problems);
        }
        problems.into_result().map_err(|problems| format!("the body is no CloudEvent: {problems}"))?;
        Ok(Self { headers: shown(headers, verification), body: value, is_cloud_event })
    }

    /// As the ledger keeps it.
    pub(super) fn to_json(&self) -> Value {
        let Self { headers, body, is_cloud_event } = self;
        json!({ "headers": headers, "body": body, "is_cloud_event": is_cloud_event })
    }

    /// The call that the ledger kept.
    pub(super) fn of_json(mut kept: Value) -> Self {
        let mut take = |name: &str| kept.get_mut(name).map(Value::take).unwrap_or_default();
        Self {
            headers: take("headers"),
            body: take("body"),
            is_cloud_event: take("is_cloud_event").as_bool().unwrap_or_default(),
        }
    }

    /// Its header of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.as_str()
    }

    /// The sender's id of this delivery, the same each time that it is sent; `None` if it has none. `source` is the body
    /// as it came.
    pub(super) fn key(&self, scheme: WebhookScheme, source: &[u8]) -> Option<String> {
        let field = |name: &str| self.body.get(name)?.as_str().map(str::to_owned);
        let header = |name: &str| self.header(name).map(str::to_owned);
        let of_sender = match scheme {
            WebhookScheme::GitHub => header("x-github-delivery"),
            // Events that one webhook causes by another have one UUID in common: only with the body it names one.
            WebhookScheme::GitLab => header("idempotency-key")
                .or_else(|| Some(format!("{} {}", header("x-gitlab-event-uuid")?, Digest::of(source)))),
            WebhookScheme::Stripe => field("id"),
            WebhookScheme::Slack => field("event_id"),
            WebhookScheme::Standard => header("webhook-id"),
            WebhookScheme::None | WebhookScheme::Token => {
                header("idempotency-key").or_else(|| header("webhook-id"))
            }
        };
        let of_cloud_event = || {
            let (source, id) = (field("source")?, field("id")?);
            self.is_cloud_event.then(|| format!("{source} {id}"))
        };
        of_sender.or_else(of_cloud_event).filter(|key| !key.trim().is_empty()).map(|key| {
            let is_plain = key.len() <= MAX_KEY_BYTES && !key.chars().any(char::is_control);
            if is_plain { key } else { Digest::of(key.as_bytes()).to_string() }
        })
    }
}

/// The headers that filter and mapping see.
fn shown(headers: &ReceivedHeaders, verification: &HookVerification) -> Value {
    let mut left = MAX_HEADERS_BYTES;
    let mut shown = Map::new();
    for (name, value) in headers.iter() {
        let is_secret = name == HOOK_TOKEN_HEADER
            || (verification.scheme == WebhookScheme::Token && name == verification.header)
            || SECRET_PARTS.iter().any(|part| name.contains(part));
        let n_bytes = name.len() + value.len();
        if is_secret || value.len() > MAX_HEADER_BYTES || n_bytes > left {
            continue;
        }
        left -= n_bytes;
        shown.insert(name.to_owned(), json!(value));
    }
    Value::Object(shown)
}

/// The fields of a form. One that has `payload` alone, as GitHub and Slack send it, is the JSON in it.
fn read_fields(body: &[u8]) -> Result<Value, String> {
    let no_form = || "the body is no form".to_owned();
    let text = std::str::from_utf8(body).map_err(|_| no_form())?;
    let mut fields = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
        let (name, value) = (decoded(name).ok_or_else(no_form)?, decoded(value).ok_or_else(no_form)?);
        fields.insert(name, Value::String(value));
    }
    match fields.get("payload").and_then(Value::as_str) {
        Some(payload) if fields.len() == 1 => {
            read_json(payload.as_bytes()).map_err(|error| format!("the field `payload` is no JSON: {error}"))
        }
        _ => Ok(Value::Object(fields)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> ReceivedHeaders {
        lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    fn read(scheme: WebhookScheme, lines: &[(&str, &str)], body: &str) -> Result<Call, String> {
        let verification = HookVerification { scheme, header: "x-mine".to_owned() };
        Call::read(&headers(lines), body.as_bytes(), &verification)
    }

    fn key(scheme: WebhookScheme, lines: &[(&str, &str)], body: &str) -> Option<String> {
        read(scheme, lines, body).unwrap().key(scheme, body.as_bytes())
    }

    const CLOUD: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "A-1"), ("ce-source", "/shop"), ("ce-type", "Order.Paid")];

    #[test]
    fn headers_that_authenticate_are_left_out() {
        let lines = [
            ("Authorization", "Bearer x"),
            ("Cookie", "x"),
            ("X-Gitlab-Token", "x"),
            ("X-Hub-Signature-256", "x"),
            ("Stripe-Signature", "x"),
            ("webhook-signature", "x"),
            ("X-Api-Key", "x"),
            ("X-Mine", "x"),
            ("X-GitHub-Event", "push"),
            ("X-Large", &"x".repeat(MAX_HEADER_BYTES + 1)),
        ];
        let call = read(WebhookScheme::Token, &lines, "{}").unwrap();
        assert_eq!(call.headers, json!({ "x-github-event": "push" }));
        let other = read(WebhookScheme::GitHub, &lines, "{}").unwrap();
        assert_eq!(other.headers, json!({ "x-github-event": "push", "x-mine": "x" }));
    }

    #[test]
    fn a_body_is_json_or_a_form_or_nothing() {
        let of = |media_type: &str, body: &str| {
            read(WebhookScheme::None, &[("content-type", media_type)], body).map(|call| call.body)
        };
        assert_eq!(of("application/json", r#"{"a": [1]}"#).unwrap(), json!({ "a": [1] }));
        assert_eq!(of("text/plain", "[]").unwrap(), json!([]));
        assert_eq!(of("application/json", " ").unwrap(), json!({}));
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(of(form, "text=a+b%26c&user=").unwrap(), json!({ "text": "a b&c", "user": "" }));
        assert_eq!(of(form, "payload=%7B%22a%22%3A1%7D").unwrap(), json!({ "a": 1 }));
        for (media_type, body) in [
            ("application/json", "{"),
            ("application/json", "{\"a\": 1, \"a\": 2}"),
            (form, "a=%zz"),
            (form, "payload=x"),
            ("application/cloudevents-batch+json", "[]"),
            ("application/cloudevents+json", "{}"),
        ] {
            assert!(of(media_type, body).is_err(), "{media_type} {body}");
        }
    }

    #[test]
    fn a_cloud_event_is_the_same_in_both_modes() {
        let structured = json!({
            "specversion": "1.0", "id": "A-1", "source": "/shop", "type": "Order.Paid", "data": { "n": 1 },
        });
        let media_type = [("content-type", "application/cloudevents+json")];
        let one = read(WebhookScheme::None, &media_type, &structured.to_string()).unwrap();
        let other = read(WebhookScheme::None, &CLOUD, r#"{"n": 1}"#).unwrap();
        assert!(one.is_cloud_event && other.is_cloud_event);
        assert_eq!((&one.body, &other.body), (&structured, &structured));
        assert_eq!(Call::of_json(one.to_json()), one);
    }

    #[test]
    fn each_sender_names_its_deliveries_in_its_own_way() {
        use WebhookScheme::{GitHub, GitLab, None as Unverified, Slack, Standard, Stripe, Token};
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(key(GitHub, &[("X-GitHub-Delivery", "d1")], "{}"), some("d1"));
        assert_eq!(key(GitLab, &[("Idempotency-Key", "d2"), ("X-Gitlab-Event-UUID", "u")], "{}"), some("d2"));
        let uuid = [("X-Gitlab-Event-UUID", "u")];
        assert_eq!(key(GitLab, &uuid, "{}"), key(GitLab, &uuid, "{}"));
        assert_ne!(key(GitLab, &uuid, "{}"), key(GitLab, &uuid, "[]"), "events of one cause share it");
        assert_eq!(key(Stripe, &[], r#"{"id": "evt_1"}"#), some("evt_1"));
        assert_eq!(key(Slack, &[], r#"{"event_id": "Ev1"}"#), some("Ev1"));
        assert_eq!(key(Standard, &[("webhook-id", "msg_1")], "{}"), some("msg_1"));
        assert_eq!(key(Token, &[("idempotency-key", "k")], "{}"), some("k"));
        assert_eq!(key(Unverified, &CLOUD, "{}"), some("/shop A-1"));
        assert_eq!(key(Unverified, &[], r#"{"id": "1", "source": "s"}"#), None);
        assert_eq!(key(GitHub, &[], r#"{"id": "1"}"#), None);
        let long = key(Stripe, &[], &json!({ "id": "x".repeat(MAX_KEY_BYTES + 1) }).to_string()).unwrap();
        assert!(long.len() <= MAX_KEY_BYTES, "{long}");
        let control = key(Stripe, &[], r#"{"id": "a\u0000b"}"#).unwrap();
        assert!(!control.contains('\0'));
    }
}

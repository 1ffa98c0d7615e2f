//! `action: send_notification`: a message to another system.

use gathering_dag_engine::{Attempt, Fields, NodeFailure, Shape};
use gathering_tools::{SendNotification, ToolContext, Toolbox};
use serde_json::{Map, Value};

use crate::config::add_problems;
use crate::failure::{act_failed, failure_of_tool};

const TOOL: &str = "send_notification";

/// The key of the node's only effect.
const EFFECT: &str = "notify";

/// The fields of each channel, without `channel`.
const WEBHOOK: &[(&str, Shape)] = &[
    ("url", Shape::Text),
    ("message", Shape::Text),
    ("payload", Shape::Object),
    ("headers", Shape::FlatObject),
    ("sign_with", Shape::Text),
];

/// `send_notification {channel, ...}`, sent by the tool of the same name, whose output is the node's.
pub(crate) struct Notification {
    tools: Toolbox,
}

impl Notification {
    pub(crate) const fn new(tools: Toolbox) -> Self {
        Self { tools }
    }

    pub(crate) fn check(config: &mut Fields<'_>) {
        let channel = config.required("channel", Shape::OneOf(&["webhook"])).and_then(Value::as_str);
        if channel != Some("webhook") {
            // The other fields depend on the channel.
            return Self::know_fields(config);
        }
        check_fields(config, "webhook", &["url"], WEBHOOK);
        if !config.has("message") && !config.has("payload") {
            config.problem("message", "is missing: give `message`, `payload` or both");
        }
    }

    /// Reads all fields, so that none is reported as unknown.
    pub(crate) fn know_fields(config: &mut Fields<'_>) {
        for name in WEBHOOK.iter().map(|(name, _)| *name).chain(["channel"]) {
            config.optional(name, Shape::Any);
        }
    }

    pub(crate) async fn execute(&self, attempt: &Attempt) -> Result<Value, NodeFailure> {
        let mut params = Value::clone(&attempt.config);
        if let Some(fields) = params.as_object_mut() {
            fields.shift_remove("action");
            fields.retain(|_, value| !value.is_null());
            let headers = fields.get_mut("headers").and_then(Value::as_object_mut);
            for value in headers.into_iter().flat_map(|headers| headers.values_mut()) {
                if matches!(value, Value::Number(_) | Value::Bool(_)) {
                    *value = Value::String(value.to_string());
                }
            }
        }
        let class = self.tools.class_of(TOOL, &params).map_err(|error| failure_of_tool(&error))?;
        let context =
            ToolContext::new().with_idempotency_key(attempt.effects.idempotency_key(EFFECT, &params));
        let send = || async {
            let sent = self.tools.call(TOOL, params.clone(), &context).await;
            sent.map_err(|error| act_failed(&error))
        };
        attempt.effects.once(EFFECT, class, &params, send).await
    }
}

/// Checks the shapes of a channel's fields, and then the values of those that fit.
fn check_fields(
    config: &mut Fields<'_>,
    channel: &str,
    required: &[&str],
    fields: &'static [(&'static str, Shape)],
) {
    let mut fitting = Map::new();
    fitting.insert("channel".to_owned(), Value::from(channel));
    for (name, shape) in fields {
        let value = if required.contains(name) {
            config.required(name, *shape)
        } else {
            config.optional(name, *shape)
        };
        if let Some(value) = value {
            fitting.insert((*name).to_owned(), value.clone());
        }
    }
    let fitting = Value::Object(fitting);
    add_problems(config, &fitting, SendNotification::check_values(&fitting));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::problems;

    #[test]
    fn every_bad_field_is_named() {
        let config = json!({"action": "send_notification", "channel": "pigeon", "url": "x", "payload": 1, "whom": "me"});
        let found = problems("action", &config);
        let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(places, ["/channel", "/whom"]);
        let config = json!({
            "action": "send_notification", "channel": "webhook", "url": "x", "message": 7, "payload": 1,
            "headers": {"Webhook-Id": "x", "host": "y", "a b": 1, "ok": 2}, "sign_with": "", "to": "me"
        });
        let found = problems("action", &config);
        let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(
            places,
            [
                "/message",
                "/payload",
                "/sign_with",
                "/url",
                "/headers/Webhook-Id",
                "/headers/host",
                "/headers/a b",
                "/to"
            ]
        );
        let nothing =
            json!({"action": "send_notification", "channel": "webhook", "url": "https://example.org/"});
        assert_eq!(problems("action", &nothing), ["/message: is missing: give `message`, `payload` or both"]);
    }

    #[test]
    fn a_computed_field_passes_validation() {
        let config = json!({
            "action": "send_notification", "channel": "webhook", "url": "${{ input.url }}", "message": "m ${{ input.m }}",
            "payload": "${{ input.payload }}", "headers": {"x": "${{ input.x }}"}
        });
        assert!(problems("action", &config).is_empty());
    }
}

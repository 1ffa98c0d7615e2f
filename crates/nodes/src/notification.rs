//! `action: send_notification`: a message to another system.

use gathering_dag_engine::{Attempt, Fields, NodeFailure, Shape};
use gathering_tools::{OutboundRequest, ToolContext, Toolbox};
use serde_json::Value;

use crate::config::is_computed_text;
use crate::failure::{act_failed, failure_of_tool};

const TOOL: &str = "send_notification";

/// The key of the node's only effect.
const EFFECT: &str = "notify";

/// `send_notification {channel: webhook, url, message?, payload?, headers?}`, sent by the tool of the same name; its output
/// is `{delivered, status}`.
pub(crate) struct Notification {
    tools: Toolbox,
}

impl Notification {
    pub(crate) const fn new(tools: Toolbox) -> Self {
        Self { tools }
    }

    pub(crate) fn check(config: &mut Fields<'_>) {
        config.required("channel", Shape::OneOf(&["webhook"]));
        let url = config.required("url", Shape::Text).and_then(Value::as_str);
        if let Some(url) = url.filter(|url| !is_computed_text(url))
            && let Err(error) = OutboundRequest::new("POST", url)
        {
            config.problem("url", error.to_string());
        }
        config.optional("message", Shape::Text);
        config.optional("payload", Shape::Object);
        config.optional("headers", Shape::FlatObject);
        if !config.has("message") && !config.has("payload") {
            config.problem("message", "is missing: give `message`, `payload` or both");
        }
    }

    /// Reads all fields, so that none is reported as unknown.
    pub(crate) fn know_fields(config: &mut Fields<'_>) {
        for name in ["channel", "url", "message", "payload", "headers"] {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::problems;

    #[test]
    fn every_bad_field_is_named() {
        let config =
            json!({"action": "send_notification", "channel": "pigeon", "url": "x", "payload": 1, "to": "me"});
        let found = problems("action", &config);
        let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(places, ["/channel", "/url", "/payload", "/to"]);
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

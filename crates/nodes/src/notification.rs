//! `action: send_notification`: a message to another system.

use std::sync::Arc;

use gathering_dag_engine::{ActFailed, Attempt, Fields, NodeFailure, Shape};
use gathering_tools::{SendNotification, ToolContext, Toolbox};
use serde_json::{Map, Value};

use crate::config::add_problems;
use crate::failure::{act_failed, failure_of_tool};
use crate::files::ProjectFiles;
use crate::secrets::AttemptSecrets;

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

const EMAIL: &[(&str, Shape)] = &[
    ("to", Shape::Texts),
    ("cc", Shape::Texts),
    ("bcc", Shape::Texts),
    ("reply_to", Shape::Text),
    ("subject", Shape::Text),
    ("message", Shape::Text),
    ("html", Shape::Text),
    ("attachments", Shape::Texts),
];

/// `send_notification {channel, ...}`, sent by the tool of the same name, whose output is the node's.
pub(crate) struct Notification {
    tools: Toolbox,
    files: Arc<dyn ProjectFiles>,
}

impl Notification {
    pub(crate) fn new(tools: Toolbox, files: Arc<dyn ProjectFiles>) -> Self {
        Self { tools, files }
    }

    pub(crate) fn check(config: &mut Fields<'_>) {
        let channel = config.required("channel", Shape::OneOf(&["webhook", "email"])).and_then(Value::as_str);
        match channel {
            Some("webhook") => {
                check_fields(config, "webhook", &["url"], WEBHOOK);
                if !config.has("message") && !config.has("payload") {
                    config.problem("message", "is missing: give `message`, `payload` or both");
                }
            }
            Some("email") => check_fields(config, "email", &["to", "subject", "message"], EMAIL),
            // The other fields depend on the channel.
            _ => Self::know_fields(config),
        }
    }

    pub(crate) fn output_fields(config: &Value) -> Option<&'static [&'static str]> {
        match config["channel"].as_str() {
            Some("webhook") => Some(&["delivered", "status"]),
            Some("email") => Some(&["delivered", "message_id", "recipients", "response"]),
            _ => None,
        }
    }

    /// Reads all fields, so that none is reported as unknown.
    pub(crate) fn know_fields(config: &mut Fields<'_>) {
        for name in WEBHOOK.iter().chain(EMAIL).map(|(name, _)| *name).chain(["channel"]) {
            config.optional(name, Shape::Any);
        }
    }

    pub(crate) async fn execute(
        &self,
        attempt: &Attempt,
        secrets: &AttemptSecrets,
    ) -> Result<Value, NodeFailure> {
        let params = params_of(&attempt.config);
        let class = self.tools.class_of(TOOL, &params).map_err(|error| failure_of_tool(&error))?;
        let mut context =
            ToolContext::new().with_idempotency_key(attempt.effects.idempotency_key(EFFECT, &params));
        // A notification without files needs none.
        if params.get("attachments").is_some() && !attempt.effects.is_done(EFFECT, &params) {
            context = context.with_workspace(self.files.open(attempt.project).await?);
        }
        let send = || async {
            let revealed = secrets.reveal(&attempt.config).map_err(ActFailed::before_it_took_place)?;
            let sent = self.tools.call(TOOL, params_of(&revealed), &context).await;
            sent.map_err(|error| act_failed(&error))
        };
        attempt.effects.once(EFFECT, class, &params, send).await
    }
}

/// The parameters of the tool in a config.
fn params_of(config: &Value) -> Value {
    let mut params = config.clone();
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
    params
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
    use gathering_dag_engine::testing::MemoryStore;
    use gathering_dag_engine::{JournalEvent, NodeTypes, SystemClock};
    use gathering_tools::{Outbound, OutboundPolicy};
    use serde_json::json;

    use super::*;
    use crate::testing::{NoPipelines, OneDirectory, drive, problems, tools, without_secrets};
    use crate::{ActionNode, ActionSpec};

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

    #[test]
    fn every_bad_field_of_an_e_mail_is_named() {
        let config = json!({
            "action": "send_notification", "channel": "email",
            "to": ["ada@example.org", "ada@example.org\r\nBcc: eve@example.org", "${{ input.to }}", "nobody"],
            "cc": 7, "bcc": "a@b@c", "reply_to": "x\n", "subject": "a\r\nBcc: eve@example.org", "message": "",
            "html": 1, "attachments": ["../secret", "a\nb", "", "fine.txt"], "url": "https://example.org/", "from": "me"
        });
        let found = problems("action", &config);
        let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(
            places,
            [
                "/cc",
                "/message",
                "/html",
                "/to/1",
                "/to/3",
                "/bcc",
                "/reply_to",
                "/subject",
                "/attachments/0",
                "/attachments/1",
                "/attachments/2",
                "/url",
                "/from"
            ]
        );
        assert!(!found.iter().any(|problem| problem.contains("eve")), "{found:?}");
        let nothing = problems("action", &json!({"action": "send_notification", "channel": "email"}));
        let places: Vec<&str> = nothing.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(places, ["/to", "/subject", "/message"]);
        let many: Vec<String> = (0..101).map(|at| format!("a{at}@example.org")).collect();
        let config = json!({
            "action": "send_notification", "channel": "email", "to": many, "cc": [], "subject": "s", "message": "m"
        });
        assert!(problems("action", &config)[0].starts_with("/to: a message has at most 100 recipients"));
        let config = json!({
            "action": "send_notification", "channel": "email", "to": [], "subject": "s", "message": "m"
        });
        assert_eq!(problems("action", &config), ["/to: must have at least one address"]);
    }

    #[test]
    fn a_computed_field_of_an_e_mail_passes_validation() {
        for to in [json!("${{ input.to }}"), json!(["ada@example.org", "${{ input.to }}"])] {
            let config = json!({
                "action": "send_notification", "channel": "email", "to": to, "cc": "${{ input.cc }}",
                "subject": "Order ${{ input.order }}", "message": "${{ input.text }}",
                "attachments": ["out/${{ input.file }}", "${{ input.file }}"]
            });
            let found = problems("action", &config);
            assert!(found.is_empty(), "{found:?}");
        }
        let channel =
            json!({"action": "send_notification", "channel": "${{ input.channel }}", "url": "x", "to": 1});
        assert!(problems("action", &channel).is_empty());
    }

    #[tokio::test]
    async fn an_e_mail_without_a_mail_server_fails_with_what_to_set_up() {
        let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
        let files = Arc::new(OneDirectory::new("/nonexistent"));
        let children = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let action =
            ActionNode::new(outbound.clone(), tools(&outbound), files, Arc::new(NoPipelines), children);
        let types = NodeTypes::builtin().with_parts("action", ActionSpec, without_secrets(action));
        let config = json!({
            "action": "send_notification", "channel": "email", "to": "ada@example.org", "subject": "s", "message": "m"
        });
        let retry = json!({"max_attempts": 3, "initial_backoff_ms": 1});
        let definition = json!({"nodes": [{"id": "n", "type": "action", "config": config, "retry": retry}]});
        let events = drive(types, &definition).await;
        let Some(JournalEvent::Failed(failure)) = events.last() else { panic!("{events:?}") };
        assert_eq!(failure.kind.as_str(), "not_configured");
        assert!(failure.message.contains("GATHERING_SMTP_HOST"), "{failure:?}");
    }
}

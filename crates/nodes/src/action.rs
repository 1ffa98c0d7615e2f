//! `action {action, ...}`: one call to the outside, chosen by the config field `action`.

use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::{
    Attempt, ChildRuns, Fields, NodeFailure, NodeSpec, Outcome, PollOutcome, SecretFields, Shape,
};
use gathering_domain::FailureKind;
use gathering_tools::{Outbound, Toolbox};
use serde_json::Value;

use crate::call_api::CallApi;
use crate::child_pipelines::ChildPipelines;
use crate::config::is_computed_text;
use crate::execute_pipeline::ExecutePipeline;
use crate::files::ProjectFiles;
use crate::notification::Notification;
use crate::secrets::{AttemptSecrets, OutsideNode};

/// All actions, as the messages list them.
const ACTIONS: &str = "call_api, execute_pipeline, send_notification";

/// The spec of `action`.
pub struct ActionSpec;

impl NodeSpec for ActionSpec {
    fn check(&self, config: &mut Fields<'_>) {
        let action = config.required("action", Shape::Text).and_then(Value::as_str);
        match action {
            Some("call_api") => CallApi::check(config),
            Some("execute_pipeline") => ExecutePipeline::check(config),
            Some("send_notification") => Notification::check(config),
            other => {
                match other {
                    Some(text) if is_computed_text(text) => {
                        config.problem("action", format!("must not be computed: write one of {ACTIONS}"));
                    }
                    Some(text) => {
                        let text: String = text.chars().take(64).collect();
                        config
                            .problem("action", format!("unknown action `{text}`: the actions are {ACTIONS}"));
                    }
                    // The field is missing or no text: `required` has reported it.
                    None => {}
                }
                // The other fields depend on the action.
                CallApi::know_fields(config);
                ExecutePipeline::know_fields(config);
                Notification::know_fields(config);
            }
        }
    }

    fn output_fields(&self, config: &Value) -> Option<&'static [&'static str]> {
        match config["action"].as_str()? {
            "call_api" => Some(&["status", "headers", "body", "body_encoding"]),
            "execute_pipeline" if config["wait"] == false => Some(&["run_id"]),
            "execute_pipeline" => Some(&["run_id", "output"]),
            "send_notification" => Notification::output_fields(config),
            _ => None,
        }
    }

    /// Not in a URL: those are in logs, here and at the receiver.
    fn secret_fields(&self, config: &Value) -> SecretFields {
        let within: &[&str] = match config["action"].as_str() {
            Some("call_api") => &["/headers", "/query", "/body", "/form", "/multipart"],
            Some("send_notification") => &["/headers", "/payload", "/message", "/html"],
            _ => &[],
        };
        SecretFields { within, except: &[] }
    }
}

/// The executor of `action`.
pub struct ActionNode {
    call_api: CallApi,
    execute_pipeline: ExecutePipeline,
    notification: Notification,
}

impl ActionNode {
    /// An executor that sends requests through `outbound` and notifications through `tools`, with `files` attached, starts
    /// pipelines through `pipelines` and waits for them in `children`.
    pub fn new(
        outbound: Outbound,
        tools: Toolbox,
        files: Arc<dyn ProjectFiles>,
        pipelines: Arc<dyn ChildPipelines>,
        children: Arc<dyn ChildRuns>,
    ) -> Self {
        Self {
            call_api: CallApi::new(outbound),
            execute_pipeline: ExecutePipeline::new(pipelines, children),
            notification: Notification::new(tools, files),
        }
    }
}

#[async_trait]
impl OutsideNode for ActionNode {
    async fn execute(&self, attempt: Attempt, secrets: &AttemptSecrets) -> Result<Outcome, NodeFailure> {
        let output = match attempt.config["action"].as_str() {
            Some("call_api") => self.call_api.execute(&attempt, secrets).await?,
            Some("execute_pipeline") => return self.execute_pipeline.execute(&attempt).await,
            Some("send_notification") => self.notification.execute(&attempt, secrets).await?,
            _ => {
                return Err(NodeFailure::permanent(
                    FailureKind::Config,
                    format!("`action` must be one of {ACTIONS}"),
                ));
            }
        };
        Ok(Outcome::Done(output))
    }

    async fn poll(&self, attempt: Attempt, _secrets: &AttemptSecrets) -> Result<PollOutcome, NodeFailure> {
        match attempt.config["action"].as_str() {
            Some("execute_pipeline") => Ok(self.execute_pipeline.poll(&attempt).await?.into()),
            _ => Ok(PollOutcome::Pending),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::problems;

    #[test]
    fn an_unknown_action_is_a_problem_that_lists_the_known_ones() {
        let found = problems("action", &json!({"action": "run_task", "url": "x"}));
        assert_eq!(
            found,
            [
                "/action: unknown action `run_task`: the actions are call_api, execute_pipeline, send_notification"
            ]
        );
        assert_eq!(
            problems("action", &json!({})),
            ["/action: is missing: it must be a string that is not empty"]
        );
        let computed = problems("action", &json!({"action": "${{ input.action }}"}));
        assert_eq!(
            computed,
            ["/action: must not be computed: write one of call_api, execute_pipeline, send_notification"]
        );
    }
}

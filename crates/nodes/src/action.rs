//! `action {action, …}`: one thing done outside, chosen by the word in `action`.

use async_trait::async_trait;
use gathering_dag_engine::{Attempt, Fields, NodeFailure, NodeType, Outcome, PollOutcome, Shape};
use gathering_tools::{Outbound, Toolbox};
use serde_json::Value;

use crate::call_api::CallApi;
use crate::execute_pipeline::ExecutePipeline;
use crate::is_computed_text;
use crate::notification::Notification;
use crate::services::NodeServices;

/// The actions that there are.
const ACTIONS: [&str; 3] = ["call_api", "execute_pipeline", "send_notification"];

/// The node type `action`.
pub struct Action {
    call_api: CallApi,
    execute_pipeline: ExecutePipeline,
    notification: Notification,
}

impl Action {
    /// Actions that reach out through `outbound` and `tools`, and find pipelines and runs in `places`.
    pub fn new(outbound: Outbound, tools: Toolbox, services: &NodeServices) -> Self {
        Self {
            call_api: CallApi::new(outbound),
            execute_pipeline: ExecutePipeline::new(services),
            notification: Notification::new(tools),
        }
    }
}

#[async_trait]
impl NodeType for Action {
    fn check(&self, config: &mut Fields<'_>) {
        let action = config.required("action", Shape::Text).and_then(Value::as_str);
        match action {
            Some("call_api") => CallApi::check(config),
            Some("execute_pipeline") => ExecutePipeline::check(config),
            Some("send_notification") => Notification::check(config),
            other => {
                let known = ACTIONS.join(", ");
                match other {
                    Some(text) if is_computed_text(text) => {
                        config.problem("action", format!("must not be computed: it is one of {known}"));
                    }
                    Some(text) => {
                        let text: String = text.chars().take(64).collect();
                        config.problem("action", format!("there is no action `{text}`: there are {known}"));
                    }
                    // Missing or no text, which was said already.
                    None => {}
                }
                // Its fields cannot be judged without knowing the action.
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
            "send_notification" => Some(&["delivered", "status"]),
            _ => None,
        }
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        match attempt.config["action"].as_str() {
            Some("execute_pipeline") => Ok(self.execute_pipeline.poll(&attempt).await?.into()),
            _ => Ok(PollOutcome::Pending),
        }
    }

    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let output = match attempt.config["action"].as_str() {
            Some("call_api") => self.call_api.execute(&attempt).await?,
            Some("execute_pipeline") => return self.execute_pipeline.execute(&attempt).await,
            Some("send_notification") => self.notification.execute(&attempt).await?,
            _ => {
                return Err(NodeFailure::permanent(
                    "config",
                    format!("there are only {}", ACTIONS.join(", ")),
                ));
            }
        };
        Ok(Outcome::Done(output))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::problems;

    #[test]
    fn an_unknown_action_is_a_problem_that_lists_the_known_ones() {
        let found = problems("action", &json!({"action": "run_task", "url": "x"}));
        assert_eq!(
            found,
            [
                "/action: there is no action `run_task`: there are call_api, execute_pipeline, send_notification"
            ]
        );
        assert_eq!(
            problems("action", &json!({})),
            ["/action: is missing: it must be a string that is not empty"]
        );
        let computed = problems("action", &json!({"action": "${{ input.action }}"}));
        assert_eq!(
            computed,
            ["/action: must not be computed: it is one of call_api, execute_pipeline, send_notification"]
        );
    }
}

//! Our side of the connection: what we answer to a server's requests, and what becomes of its notifications.
//!
//! Owns what this client is willing to do for a server. Never knows a transport.

use std::sync::Arc;

use gathering_domain::with_causes;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::McpError;
use crate::elicitation::{Elicitation, ElicitationAnswer, Elicitations};
use crate::hidden::Hidden;
use crate::message::RpcError;
use crate::notices::{McpNoticeKind, McpNotices};
use crate::tool_call::ToolCall;

/// The code of JSON-RPC for a method that we do not have.
const METHOD_NOT_FOUND: i64 = -32601;

/// What answers a server. The transports of all connections to it share it.
pub(crate) struct Peer {
    /// The server's name in the settings.
    pub(crate) server: String,
    pub(crate) elicitations: Option<Arc<dyn Elicitations>>,
    pub(crate) notices: McpNotices,
    /// What must not be told or logged.
    pub(crate) hidden: Hidden,
    /// The server says that its tools have changed. Several such messages wake one reader once.
    pub(crate) tools_changed: Notify,
}

impl Peer {
    /// What this client says of itself. A server shows more tools to a client that can do more.
    pub(crate) fn capabilities(&self) -> Value {
        // No roots: they would replace the directories that the operator gave to a server of files.
        if self.elicitations.is_some() { json!({"elicitation": {}}) } else { json!({}) }
    }

    /// Answers a request of the server.
    pub(crate) async fn answer(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        match method {
            "ping" => Ok(json!({})),
            "elicitation/create" => Ok(self.elicit(params).await.into_result()),
            "sampling/createMessage" => Err(RpcError::new(-1, "this client lends its model to no server")),
            _ => Err(RpcError::new(METHOD_NOT_FOUND, "this client does not have this method")),
        }
    }

    /// A server may ask a client that has not declared that it can answer, and waits for ever without an answer.
    async fn elicit(&self, params: &Value) -> ElicitationAnswer {
        let is_form = params.get("mode").is_none_or(|mode| mode == "form");
        let Some(elicitations) = self.elicitations.as_ref().filter(|_| is_form) else {
            return ElicitationAnswer::Declined;
        };
        let message = params.get("message").and_then(Value::as_str).unwrap_or_default();
        let question = Elicitation {
            server: self.server.clone(),
            message: message.to_owned(),
            requested_schema: params.get("requestedSchema").cloned().unwrap_or_default(),
        };
        elicitations.elicit(question).await
    }

    /// Takes a notification. `call_of` finds the call in flight with a progress token; without a token, the one to which
    /// the notification belongs, if that is known.
    pub(crate) fn note(
        &self,
        method: &str,
        params: &Value,
        call_of: impl FnOnce(Option<u64>) -> Option<Arc<ToolCall>>,
    ) {
        match method {
            "notifications/tools/list_changed" => self.tools_changed.notify_one(),
            "notifications/progress" => {
                let token = params.get("progressToken").and_then(Value::as_u64);
                let call = token.and_then(|token| call_of(Some(token)));
                if let Some(call) = call
                    && let Some(kind) = McpNoticeKind::progress(&call.tool, params)
                {
                    self.tell_of_call(kind, Some(&call));
                }
            }
            "notifications/message" => {
                self.tell_of_call(McpNoticeKind::log(params), call_of(None).as_deref())
            }
            _ => {}
        }
    }

    /// Tells it to the reader of the notices, without what is hidden.
    pub(crate) fn tell(&self, kind: McpNoticeKind) {
        self.tell_of_call(kind, None);
    }

    fn tell_of_call(&self, mut kind: McpNoticeKind, call: Option<&ToolCall>) {
        let hide = |text: &mut String| *text = self.hidden.hide(std::mem::take(text));
        match &mut kind {
            McpNoticeKind::Progress { message, .. } => message.iter_mut().for_each(hide),
            McpNoticeKind::Log { text, .. } => hide(text),
            McpNoticeKind::Down { reason } => hide(reason),
            McpNoticeKind::ToolsChanged | McpNoticeKind::Connected => {}
        }
        if let Some(call) = call {
            call.tell(&kind);
        }
        self.notices.tell(&self.server, kind.shortened());
    }

    /// An error as it may be logged.
    pub(crate) fn loggable(&self, error: &McpError) -> String {
        self.hidden.hide(with_causes(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{McpTransport, StdioCommand};

    fn peer(elicitations: Option<Arc<dyn Elicitations>>) -> Peer {
        Peer {
            server: "a".to_owned(),
            elicitations,
            notices: McpNotices::new(4),
            hidden: Hidden::of(&crate::McpServerConfig::new(
                "a",
                McpTransport::Stdio(StdioCommand::default()),
            )),
            tools_changed: Notify::new(),
        }
    }

    #[tokio::test]
    async fn every_request_of_a_server_is_answered() {
        let peer = peer(None);
        let code = |answered: Result<Value, RpcError>| answered.unwrap_err().code;
        assert_eq!(peer.answer("ping", &Value::Null).await, Ok(json!({})));
        assert_eq!(code(peer.answer("roots/list", &Value::Null).await), METHOD_NOT_FOUND);
        assert_eq!(code(peer.answer("sampling/createMessage", &Value::Null).await), -1);
        let declined = peer.answer("elicitation/create", &json!({"message": "?"})).await;
        assert_eq!(declined, Ok(json!({"action": "decline"})));
        assert_eq!(peer.capabilities(), json!({}));
    }

    #[test]
    fn progress_of_a_call_that_is_over_is_dropped() {
        let peer = peer(None);
        peer.note("notifications/progress", &json!({"progressToken": 7, "progress": 1}), |_| None);
        assert_eq!(peer.notices.try_next(), None);
        let call = |token| {
            (token == Some(7))
                .then(|| Arc::new(ToolCall { tool: "dig".to_owned(), headers: Vec::new(), notices: None }))
        };
        peer.note("notifications/progress", &json!({"progressToken": 7, "progress": 1}), call);
        assert!(peer.notices.try_next().is_some());
    }
}

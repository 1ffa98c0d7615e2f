//! Our side of the connection: what we answer to a server's requests, and what becomes of its notifications.
//!
//! Owns what this client is willing to do for a server. Never knows a transport.

use std::sync::Arc;

use gathering_domain::with_causes;
use gathering_tools::{ToolAnswer, ToolQuestions};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::McpError;
use crate::elicitation;
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
    /// Answers the questions of calls without a respondent of their own.
    pub(crate) questions: Option<ToolQuestions>,
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
        if self.questions.is_some() { json!({"elicitation": {"form": {}, "url": {}}}) } else { json!({}) }
    }

    /// Answers a request of the server. `id` is the request's own, if it has one; `call` is the call that it belongs to, if
    /// that is known.
    pub(crate) async fn answer(
        &self,
        id: Option<&Value>,
        method: &str,
        params: &Value,
        call: Option<&ToolCall>,
    ) -> Result<Value, RpcError> {
        match method {
            "ping" => Ok(json!({})),
            "elicitation/create" => self.elicit(id, params, call).await,
            "sampling/createMessage" => Err(RpcError::new(-1, "this client lends its model to no server")),
            _ => Err(RpcError::new(METHOD_NOT_FOUND, "this client does not have this method")),
        }
    }

    /// A server may ask a client that has not declared that it can answer, and waits for ever without an answer.
    async fn elicit(
        &self,
        id: Option<&Value>,
        params: &Value,
        call: Option<&ToolCall>,
    ) -> Result<Value, RpcError> {
        let question = elicitation::question(&self.server, params, &self.hidden)?;
        let request = question.request.clone();
        let answer = match (call, call.and_then(ToolCall::questions).or(self.questions.as_ref())) {
            (_, None) => ToolAnswer::Declined,
            (Some(call), Some(questions)) => call.ask(questions, id, question).await,
            (None, Some(questions)) => questions.ask(question).await,
        };
        Ok(elicitation::result(answer, &request))
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
            "notifications/cancelled" => {
                if let (Some(id), Some(call)) = (params.get("requestId"), call_of(None)) {
                    call.withdraw(id);
                }
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

    fn peer() -> Peer {
        Peer {
            server: "a".to_owned(),
            questions: None,
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
        let peer = peer();
        let code = |answered: Result<Value, RpcError>| answered.unwrap_err().code;
        assert_eq!(peer.answer(None, "ping", &Value::Null, None).await, Ok(json!({})));
        assert_eq!(code(peer.answer(None, "roots/list", &Value::Null, None).await), METHOD_NOT_FOUND);
        assert_eq!(code(peer.answer(None, "sampling/createMessage", &Value::Null, None).await), -1);
        let declined = peer.answer(None, "elicitation/create", &json!({"message": "?"}), None).await;
        assert_eq!(declined, Ok(json!({"action": "decline"})));
        assert_eq!(peer.capabilities(), json!({}));
    }

    #[test]
    fn progress_of_a_call_that_is_over_is_dropped() {
        let peer = peer();
        peer.note("notifications/progress", &json!({"progressToken": 7, "progress": 1}), |_| None);
        assert_eq!(peer.notices.try_next(), None);
        let call = |token| (token == Some(7)).then(|| Arc::new(ToolCall::new("dig", Vec::new(), None, None)));
        peer.note("notifications/progress", &json!({"progressToken": 7, "progress": 1}), call);
        assert!(peer.notices.try_next().is_some());
    }
}

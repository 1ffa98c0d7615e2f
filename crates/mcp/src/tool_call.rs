//! A call of a tool while it is in flight: what the links and the peer know of it.

use gathering_tools::{ToolNotice, ToolNotices};

use crate::notices::McpNoticeKind;

/// A call in flight.
#[derive(Debug, Clone)]
pub(crate) struct ToolCall {
    /// The server's name for the tool.
    pub(crate) tool: String,
    /// The headers that repeat marked parameters: names and values. Only HTTP since 2026-07-28 sends them.
    pub(crate) headers: Vec<(String, String)>,
    /// Who hears what the server tells of the call, if anybody does.
    pub(crate) notices: Option<ToolNotices>,
}

impl ToolCall {
    /// Tells the listener of this call, if it has one.
    pub(crate) fn tell(&self, kind: &McpNoticeKind) {
        let (Some(notices), Some(notice)) = (&self.notices, notice_of(kind)) else { return };
        notices.tell(notice);
    }
}

/// What concerns a call.
fn notice_of(kind: &McpNoticeKind) -> Option<ToolNotice> {
    match kind.clone() {
        McpNoticeKind::Progress { progress, total, message, .. } => {
            Some(ToolNotice::Progress { progress, total, message })
        }
        McpNoticeKind::Log { level, text } => Some(ToolNotice::Log { level, text }),
        McpNoticeKind::ToolsChanged | McpNoticeKind::Connected | McpNoticeKind::Down { .. } => None,
    }
}

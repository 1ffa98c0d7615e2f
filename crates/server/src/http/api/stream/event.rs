//! The events of a stream: how the document shows them, and their bytes.

use std::fmt::Write as _;

use gathering_control::Run;
use gathering_dag_engine::JournalEntry;
use gathering_nodes::RunNotice;
use gathering_tools::ToolNotice;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::api::run_view::{JournalEntryView, RunView};
use crate::http::api::words::{
    JournalKindSchema, RUN_ENDED, RunEndedSchema, TOOL_NOTICE, ToolNoticeNameSchema,
};

/// One event of a run's stream. Each field is a line of its own, and `data` is JSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = RunEvent)]
pub(crate) enum RunEventView {
    /// An entry was written to the journal.
    Journal(JournalEventView),
    /// A tool told something about a call that goes on.
    Notice(NoticeEventView),
    /// The run has ended, and every entry was sent.
    Ended(RunEndedView),
}

/// An entry was written to the journal of the run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JournalEvent)]
pub(crate) struct JournalEventView {
    /// The `seq` of the entry, for `Last-Event-ID`.
    id: i64,
    #[schema(value_type = JournalKindSchema)]
    event: &'static str,
    data: JournalEntryView,
}

/// A tool told something about a call that goes on. It is in no journal, so it has no id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolNoticeEvent)]
pub(crate) struct NoticeEventView {
    #[schema(value_type = ToolNoticeNameSchema)]
    event: &'static str,
    data: NoticeView,
}

/// What a tool of a mounted MCP server told. The values of the project's secrets are taken out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolNotice)]
pub(crate) struct NoticeView {
    /// The node that called the tool.
    node_id: String,
    /// Which attempt, from 1.
    attempt: i32,
    /// The tool, by its name in the project.
    tool: String,
    /// How far the call is.
    progress: Option<NoticeProgressView>,
    /// An entry of the server's log.
    log: Option<NoticeLogView>,
    /// A question to people, for whose answer the call waits.
    question: Option<NoticeQuestionView>,
    /// How many notices of the run were left out before this one, because there were too many at once.
    left_out: u64,
}

/// How far a call is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolProgress)]
pub(crate) struct NoticeProgressView {
    progress: f64,
    /// How far it will be, if the server knows.
    total: Option<f64>,
    /// What the server does now, at most 4 KiB.
    message: Option<String>,
}

/// An entry of the log of a server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolLogEntry)]
pub(crate) struct NoticeLogView {
    /// Such as `info`; the server's word.
    level: String,
    /// The entry, at most 4 KiB; JSON if it is no text.
    text: String,
}

/// A question to people. The run shows what is asked for, beside its node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolQuestionNotice)]
pub(crate) struct NoticeQuestionView {
    /// For the answer: `question` of a decision about the node.
    id: String,
    /// What the server asks, at most 4 KiB.
    message: String,
}

/// The run has ended, and every entry of its journal was sent. The stream ends with this event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunEndedEvent)]
pub(crate) struct RunEndedView {
    #[schema(value_type = RunEndedSchema)]
    event: &'static str,
    data: Box<RunView>,
}

impl RunEventView {
    pub(super) fn of_entry(entry: JournalEntry) -> Self {
        let (id, event) = (entry.seq, entry.record.event.kind());
        Self::Journal(JournalEventView { id, event, data: JournalEntryView::of(entry) })
    }

    pub(super) fn of_notice(told: RunNotice) -> Self {
        let RunNotice { node, attempt, tool, notice, n_left_out: left_out } = told;
        let (progress, log, question) = (None, None, None);
        let data = NoticeView { node_id: node.into(), attempt, tool, progress, log, question, left_out };
        let data = match notice {
            ToolNotice::Progress { progress, total, message } => {
                NoticeView { progress: Some(NoticeProgressView { progress, total, message }), ..data }
            }
            ToolNotice::Log { level, text } => {
                NoticeView { log: Some(NoticeLogView { level, text }), ..data }
            }
            ToolNotice::Question { id, message } => {
                NoticeView { question: Some(NoticeQuestionView { id, message }), ..data }
            }
            _ => data,
        };
        Self::Notice(NoticeEventView { event: TOOL_NOTICE, data })
    }

    pub(super) fn ended(run: Run) -> Self {
        Self::Ended(RunEndedView { event: RUN_ENDED, data: Box::new(RunView::of(run)) })
    }

    /// Appends the event in the form of server-sent events.
    pub(super) fn write_to(&self, text: &mut String) {
        match self {
            Self::Journal(JournalEventView { id, event, data }) => push(text, Some(*id), event, data),
            Self::Notice(NoticeEventView { event, data }) => push(text, None, event, data),
            Self::Ended(RunEndedView { event, data }) => push(text, None, event, data),
        }
    }
}

/// JSON has no line breaks of its own, so the data are one line.
fn push(text: &mut String, id: Option<i64>, event: &str, data: &impl Serialize) {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let data = serde_json::to_string(data).unwrap_or_default();
    // Writing to a string does not fail.
    write!(text, "{id}event: {event}\ndata: {data}\n\n").ok();
}

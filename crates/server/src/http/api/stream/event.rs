//! The events of a stream: how the document shows them, and their bytes.

use std::fmt::Write as _;

use gathering_control::Run;
use gathering_dag_engine::JournalEntry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::api::run_view::{JournalEntryView, RunView};
use crate::http::api::words::{JournalKindSchema, RUN_ENDED, RunEndedSchema};

/// One event of a run's stream. Each field is a line of its own, and `data` is JSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = RunEvent)]
pub(crate) enum RunEventView {
    /// An entry was written to the journal.
    Journal(JournalEventView),
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

    pub(super) fn ended(run: Run) -> Self {
        Self::Ended(RunEndedView { event: RUN_ENDED, data: Box::new(RunView::of(run)) })
    }

    /// Appends the event in the form of server-sent events.
    pub(super) fn write_to(&self, text: &mut String) {
        match self {
            Self::Journal(JournalEventView { id, event, data }) => push(text, Some(*id), event, data),
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

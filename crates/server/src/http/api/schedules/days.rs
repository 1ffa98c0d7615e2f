//! The days of a schedule, as the API takes and shows them.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Days, such as `["2026-12-25"]`, or an iCalendar file of the project's workspace: `{"file": "calendars/holidays.ics"}`.
/// The file is read again when it is written through this API, and every five minutes.
#[derive(Serialize, ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[serde(untagged)]
pub(super) enum ScheduleDays {
    Listed(Vec<String>),
    Calendar(CalendarFile),
}

/// An iCalendar file of the project's workspace.
#[derive(Serialize, ToSchema)]
pub(super) struct CalendarFile {
    /// Its path.
    #[schema(example = "calendars/holidays.ics")]
    file: String,
}

/// The lists of days that were sent.
pub(super) fn days_of(sent: [(&str, Option<Value>); 2]) -> Map<String, Value> {
    sent.into_iter().filter_map(|(field, days)| Some((field.to_owned(), days?))).collect()
}

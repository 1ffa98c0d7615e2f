//! The log of events: appended to by the transactions that cause them, read in one order, bounded by retention.

pub(crate) mod append;
mod list;
mod retention;
mod row;
mod settled;
mod store;

pub(crate) use row::Row as EventRow;
pub(crate) use settled::SettledLog;

pub use retention::delete_events_before;

//! The part of the port that keeps events.

use std::collections::HashMap;

use async_trait::async_trait;
use gathering_domain::ProjectId;

use crate::ControlError;
use crate::access::{Scoped, right};
use crate::events::{Audience, EventPage, EventSeq, EventsOf, NewEvent, PostedEvent};

/// Keeps the log of events.
///
/// The log has one order, that of the places of its events. A place is given before the transaction that writes the event
/// is committed, so a later place may be readable earlier. No method answers with an event while one with an earlier place
/// may still come: a reader that goes on after the last place that it saw misses nothing.
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Appends events in this order, all or none, and answers with each as it stands in the log. One whose key is in the log
    /// already is not appended, and answered with the first.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if the project is gone; nothing was appended.
    async fn append_events(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        events: &[NewEvent],
    ) -> Result<Vec<PostedEvent>, ControlError>;

    /// The events after `after`, at most `limit`, in order. The page tells up to where it is complete
    /// ([`EventPage::until`]): to the last event if there are `limit`, and else to the end of what can be read safely.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_events(
        &self,
        of: &EventsOf,
        after: EventSeq,
        limit: usize,
    ) -> Result<EventPage, ControlError>;

    /// Up to where the log can be read safely: a reader that wants only new events begins here. It never falls.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn last_event(&self) -> Result<EventSeq, ControlError>;

    /// Who sees the events of these projects. One that no account sees is absent.
    ///
    /// # Errors
    /// As [`ControlError`] says.
    async fn list_audiences(
        &self,
        projects: &[ProjectId],
    ) -> Result<HashMap<ProjectId, Audience>, ControlError>;
}

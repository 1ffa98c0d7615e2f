//! Events: what happened, in one log for all projects.
//!
//! Owns who posts and who reads events, what a posted event may be, and how they are followed: one task of an instance
//! reads the log ([`EventFeedService`]), and every reader gets its part of it ([`EventFeed`]). What the server itself
//! emits is written by the transactions that cause it; this module only reads that.

mod audiences;
mod cloud_events;
mod feed;
mod filter;
mod followed;
mod names;
mod post;
mod recent;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::{Caller, Role};
use gathering_domain::{ProjectId, UserId};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::access::{right, visible_to};
use crate::projects::ProjectControl;
use crate::{ControlError, ControlStore};

pub use audiences::Audience;
pub(crate) use cloud_events::percent_decoded;
pub use cloud_events::{cloud_event_of, cloud_event_of_headers, read_cloud_event};
pub use feed::{EventFeed, EventFeedService, FeedSettings};
pub use filter::EventFilter;
pub use followed::{FeedEvent, FollowEvents, Followed, FollowedEvents};
pub use names::{EventType, InvalidEventType, InvalidTypePattern, MAX_EVENT_TYPE_BYTES, TypePatterns};
pub use post::{MAX_EVENT_DATA_BYTES, MAX_POSTED_EVENTS, NewEvent, PostEvent, PostEvents, PostedEvent};

/// The place of an event in the log. It grows, with gaps; 0 is before the first.
pub type EventSeq = i64;

/// An event as the log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvent {
    /// Its place in the log.
    pub seq: EventSeq,
    /// The project; absent if the event is of the whole installation.
    pub project: Option<ProjectId>,
    /// What happened, such as `run.succeeded`.
    pub event_type: String,
    /// The id of a posted event; absent if the server wrote it.
    pub id: Option<Uuid>,
    /// What makes a posted event the same as an earlier one: of a CloudEvent its `id`.
    pub key: Option<String>,
    /// The `source` of a CloudEvent.
    pub source: Option<String>,
    /// What it is about: of an event of the server the id of the run, schedule, task or user.
    pub subject: Option<String>,
    /// The other attributes of a CloudEvent.
    pub attributes: Map<String, Value>,
    /// Its data.
    pub data: Value,
    /// When it was written, by the store's clock, in UTC.
    pub at: DateTime<Utc>,
}

impl LoggedEvent {
    /// What names it: the `id` of a CloudEvent, or else its own id, or else its place.
    pub fn name(&self) -> String {
        let of_source = self.source.as_ref().and(self.key.clone());
        of_source.or_else(|| self.id.map(|id| id.to_string())).unwrap_or_else(|| self.seq.to_string())
    }

    /// The event as expressions and readers see it.
    pub fn to_json(&self) -> Value {
        let Self { seq, project, event_type, key, source, subject, attributes, data, at, .. } = self;
        json!({
            "seq": seq, "id": self.name(), "type": event_type, "project_id": project, "subject": subject,
            "key": key, "source": source, "attributes": attributes, "data": data, "at": at,
        })
    }
}

/// Of which projects events are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventsOf {
    /// Of this one.
    Project(ProjectId),
    /// Of those that this account is a member of.
    Member(UserId),
    /// Of every project of accounts, and of the installation: what an admin sees.
    Admin,
    /// Everything, also what no account sees. For the server itself.
    Everything,
}

/// A part of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// The events, in order.
    pub events: Vec<LoggedEvent>,
    /// Nothing is missing up to here, and nothing will be: the next page goes on after it.
    pub until: EventSeq,
    /// Whether there are events after `until` that cannot be read yet, because an open transaction may still write an
    /// earlier one. They can in a moment.
    pub is_held_back: bool,
    /// Retention may have deleted events up to here.
    pub pruned_until: EventSeq,
}

/// What may be done with events. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct EventControl {
    store: Arc<dyn ControlStore>,
    projects: ProjectControl,
}

impl EventControl {
    /// The events of this store.
    pub fn new(store: Arc<dyn ControlStore>) -> Self {
        Self { projects: ProjectControl::new(Arc::clone(&store)), store }
    }

    /// Which events the caller may read: of the project, or of all that they see.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a project that the caller may not see; [`ControlError::Forbidden`] for an API key
    /// without the scope to read. Or the store's.
    pub async fn authorize_read(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
    ) -> Result<EventsOf, ControlError> {
        if let Some(project) = project {
            self.projects.find::<right::Read>(caller, project).await?;
            return Ok(EventsOf::Project(project));
        }
        visible_to(caller)?;
        Ok(match caller.role {
            Role::Admin => EventsOf::Admin,
            Role::Member => EventsOf::Member(caller.user),
        })
    }

    /// At most `limit` events after `after` that fit the filter, in order. Of a long log only a part is searched:
    /// [`EventPage::until`] tells how far.
    ///
    /// # Errors
    /// As [`EventControl::authorize_read`].
    pub async fn list(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        filter: &EventFilter,
        after: EventSeq,
        limit: usize,
    ) -> Result<EventPage, ControlError> {
        let of = self.authorize_read(caller, project).await?;
        let mut found: Option<EventPage> = None;
        for _ in 0..MAX_SEARCHES {
            let from = found.as_ref().map_or(after, |page| page.until);
            let mut page = self.store.list_events(&of, from, SEARCH).await?;
            let is_last = page.events.len() < SEARCH;
            page.events.retain(|event| filter.fits(event));
            let n_wanted = limit - found.as_ref().map_or(0, |page| page.events.len());
            let is_full = page.events.len() >= n_wanted;
            if page.events.len() > n_wanted {
                page.events.truncate(n_wanted);
                page.until = page.events.last().map_or(from, |event| event.seq);
            }
            if let Some(found) = found {
                page.events.splice(0..0, found.events);
            }
            if is_full || is_last {
                return Ok(page);
            }
            found = Some(page);
        }
        found.ok_or(ControlError::NotFound)
    }
}

/// How many events are read at once.
const SEARCH: usize = 500;

/// How many times a page is searched for, so that a filter that fits nothing does not read the whole log.
const MAX_SEARCHES: usize = 10;

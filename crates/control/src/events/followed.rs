//! A listener: reads the log up to where the feed is, and then gets what the feed publishes. One that is too slow for the
//! feed reads the log again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gathering_auth::Caller;
use gathering_domain::{ProjectId, UserId};
use gathering_events::{Delivery, SubscribeError, Subscription};
use serde_json::Value;

use super::feed::{EventFeed, Shared};
use super::{EventFilter, EventPage, EventSeq, EventsOf, LoggedEvent, cloud_event_of};
use crate::ControlError;

/// How many events a listener reads at once.
const PAGE: usize = 200;

/// How long the feed may take to begin: the end of the log is known when those who write to it at this moment have ended.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// An event on its way to many listeners, written as text once for all of them.
#[derive(Debug)]
pub struct FeedEvent {
    event: LoggedEvent,
    json: OnceLock<Value>,
    text: OnceLock<String>,
    cloud: OnceLock<String>,
}

/// Each event is in the log once.
impl PartialEq for FeedEvent {
    fn eq(&self, other: &Self) -> bool {
        self.event.seq == other.event.seq
    }
}

impl FeedEvent {
    pub(super) fn of(event: LoggedEvent) -> Self {
        let (json, text, cloud) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { event, json, text, cloud }
    }

    /// The event.
    pub const fn event(&self) -> &LoggedEvent {
        &self.event
    }

    /// The event as JSON.
    pub fn text(&self) -> &str {
        self.text.get_or_init(|| self.json().to_string())
    }

    /// The event as a CloudEvent in its JSON format.
    pub fn cloud_text(&self) -> &str {
        self.cloud.get_or_init(|| cloud_event_of(&self.event).to_string())
    }

    fn json(&self) -> &Value {
        self.json.get_or_init(|| self.event.to_json())
    }

    /// About how much memory it takes.
    pub(super) fn n_bytes(&self) -> usize {
        self.text().len()
    }
}

/// What a listener asks for.
#[derive(Debug, Clone, Default)]
pub struct FollowEvents {
    /// Only events of this project.
    pub project: Option<ProjectId>,
    /// Only events that fit.
    pub filter: EventFilter,
    /// Only events after this one; those that come from now on if absent.
    pub after: Option<EventSeq>,
}

/// What a listener gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// Events in their order, at least one.
    Events(Vec<Arc<FeedEvent>>),
    /// Events after `after` and up to `until` may have been deleted by retention. The rest follows.
    Gap {
        /// The last event that the listener has seen.
        after: EventSeq,
        /// The last one that may be missing.
        until: EventSeq,
    },
}

/// A listener. Dropping it ends it.
pub struct FollowedEvents {
    shared: Arc<Shared>,
    of: EventsOf,
    filter: EventFilter,
    user: UserId,
    is_admin: bool,
    subscription: Subscription<Arc<FeedEvent>>,
    stage: Stage,
    /// Everything up to here was given out, or does not fit.
    after: EventSeq,
    /// The last event that a gap was told up to.
    told_gap: EventSeq,
    /// What was received and not given out yet.
    received: VecDeque<Arc<FeedEvent>>,
    _listening: Listening,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The log is read.
    Reading,
    /// The feed is followed.
    Live,
}

/// One of those who listen.
struct Listening(Arc<Shared>);

impl Listening {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.state.send_modify(|state| state.n_listeners += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.n_listeners -= 1);
    }
}

impl EventFeed {
    /// Follows the events that the caller may see. `None` if there are too many listeners, or the feed has ended. Without a
    /// place to begin, every event is given that is written after this has returned.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a project that the caller may not see; [`ControlError::Forbidden`] for an API key
    /// without the scope to read; [`ControlError::TimedOut`] if the log cannot be read. Or the store's.
    pub async fn follow(
        &self,
        caller: &Caller,
        request: FollowEvents,
    ) -> Result<Option<FollowedEvents>, ControlError> {
        let FollowEvents { project, filter, after } = request;
        let of = self.shared.events.authorize_read(caller, project).await?;
        let listening = Listening::begin(&self.shared);
        let wanted = filter.clone();
        let subscribed = self.shared.bus.subscribe_where(move |event| {
            let event = event.payload.event();
            project.is_none_or(|project| event.project == Some(project))
                && wanted.fits_type(&event.event_type)
        });
        let subscription = match subscribed {
            Ok(subscription) => subscription,
            Err(SubscribeError::TooMany { .. } | SubscribeError::Ended) => return Ok(None),
        };
        let (stage, after) = match after {
            Some(after) => (Stage::Reading, after),
            // Before the listener is told that it follows: what is posted then is new.
            None => (Stage::Live, self.shared.begin_of_new().await?),
        };
        Ok(Some(FollowedEvents {
            shared: Arc::clone(&self.shared),
            of,
            filter,
            user: caller.user,
            is_admin: caller.role == gathering_auth::Role::Admin,
            subscription,
            stage,
            after,
            told_gap: 0,
            received: VecDeque::new(),
            _listening: listening,
        }))
    }
}

impl Shared {
    /// Where the feed is; waits until the log is read.
    async fn position(&self) -> EventSeq {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| state.position.is_some()).await {
            Ok(state) => state.position.unwrap_or_default(),
            // The sender is this value's own.
            Err(_) => std::future::pending().await,
        }
    }

    /// The place after which events are new.
    async fn begin_of_new(&self) -> Result<EventSeq, ControlError> {
        let position = tokio::time::timeout(BEGIN_LIMIT, self.position()).await;
        position.map_err(|_| ControlError::TimedOut("the log of events is not read".into()))
    }
}

impl FollowedEvents {
    /// Which events these are; a caller who may read others now must ask again.
    pub const fn of(&self) -> EventsOf {
        self.of
    }

    /// Waits for the next events; `None` when the feed has ended. After an error, which may pass, it goes on where it was.
    ///
    /// Cancel: safe; nothing is lost.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] when the caller may not see the project any more. Or the store's.
    pub async fn next(&mut self) -> Result<Option<Followed>, ControlError> {
        loop {
            if !self.received.is_empty() {
                if let Some(events) = self.give().await? {
                    return Ok(Some(Followed::Events(events)));
                }
                continue;
            }
            match self.stage {
                Stage::Reading => {
                    if let Some(gap) = self.read().await? {
                        return Ok(Some(gap));
                    }
                }
                Stage::Live => match self.subscription.recv().await {
                    None => return Ok(None),
                    Some(Delivery::Lagged(_)) => self.stage = Stage::Reading,
                    Some(Delivery::Events(events)) => {
                        let after = self.after;
                        let fresh = events.iter().filter(|event| event.payload.event().seq > after);
                        self.received.extend(fresh.map(|event| Arc::clone(&event.payload)));
                    }
                },
            }
        }
    }

    /// Whether the caller may still see what was asked for.
    ///
    /// # Errors
    /// As [`FollowedEvents::next`].
    pub async fn check(&self) -> Result<(), ControlError> {
        let EventsOf::Project(project) = self.of else { return Ok(()) };
        let known = self.shared.audiences.of(&HashSet::from([project])).await?;
        match known.get(&project) {
            Some(Some(audience)) if self.is_admin || audience.members.contains(&self.user) => Ok(()),
            _ => Err(ControlError::NotFound),
        }
    }

    /// Reads the next part of the log, or of what is kept of it.
    async fn read(&mut self) -> Result<Option<Followed>, ControlError> {
        let position = self.shared.position().await;
        if let Some(events) = self.shared.recent.between(&self.of, self.after, position) {
            self.received.extend(events);
            self.stage = Stage::Live;
            if self.received.is_empty() {
                self.after = self.after.max(position);
            }
            return Ok(None);
        }
        let EventPage { events, until, pruned_until, .. } =
            self.shared.store.list_events(&self.of, self.after, PAGE).await?;
        let gap = Followed::Gap { after: self.after, until: pruned_until };
        let is_gap = self.after > 0 && pruned_until > self.after.max(self.told_gap);
        self.told_gap = pruned_until;
        if events.len() < PAGE && until >= position {
            self.stage = Stage::Live;
        }
        if events.is_empty() {
            self.after = until;
        }
        self.received.extend(events.into_iter().map(|event| Arc::new(FeedEvent::of(event))));
        Ok(is_gap.then_some(gap))
    }

    /// Those of the received events that fit and that the caller sees.
    async fn give(&mut self) -> Result<Option<Vec<Arc<FeedEvent>>>, ControlError> {
        let projects = self.received.iter().filter_map(|event| event.event().project).collect();
        let known = self.shared.audiences.of(&projects).await?;
        let audience = |project: &ProjectId| known.get(project).and_then(Option::as_ref);
        if let EventsOf::Project(project) = &self.of
            && !audience(project).is_some_and(|seen| self.is_admin || seen.members.contains(&self.user))
        {
            return Err(ControlError::NotFound);
        }
        let is_seen = |event: &FeedEvent| match &event.event().project {
            None => self.is_admin,
            Some(project) => {
                audience(project).is_some_and(|seen| self.is_admin || seen.members.contains(&self.user))
            }
        };
        if let Some(last) = self.received.back() {
            self.after = self.after.max(last.event().seq);
        }
        let received = std::mem::take(&mut self.received);
        let given: Vec<_> = received
            .into_iter()
            .filter(|event| {
                let event: &FeedEvent = event;
                self.filter.fits_type(&event.event().event_type)
                    && is_seen(event)
                    && self.filter.fits_json(event.json())
            })
            .collect();
        Ok((!given.is_empty()).then_some(given))
    }
}

//! The log of events in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::Utc;
use gathering_domain::ProjectId;

use super::MemoryControl;
use super::state::State;
use crate::{
    Audience, ControlError, EventPage, EventSeq, EventStore, EventsOf, LoggedEvent, NewEvent, PostedEvent,
    Schedule, ScheduleNews, Scoped, right,
};

impl State {
    fn is_seen(&self, of: &EventsOf, event: &LoggedEvent) -> bool {
        let project = event.project.and_then(|project| self.projects.get(&project));
        match of {
            EventsOf::Project(wanted) => event.project == Some(*wanted),
            EventsOf::Member(user) => project.is_some_and(|project| project.role(*user).is_some()),
            EventsOf::Admin => event.project.is_none() || project.is_some(),
            EventsOf::Everything => true,
        }
    }

    fn find_event(&self, project: ProjectId, new: &NewEvent) -> Option<&LoggedEvent> {
        new.key.as_ref()?;
        let is_same_kind =
            |event: &LoggedEvent| new.source.is_some() || event.event_type == new.event_type.as_str();
        self.events.iter().find(|event| {
            event.project == Some(project)
                && event.key == new.key
                && event.source == new.source
                && is_same_kind(event)
        })
    }

    pub(super) fn append(&mut self, project: ProjectId, new: &NewEvent) -> PostedEvent {
        if let Some(first) = self.find_event(project, new) {
            return PostedEvent { event: first.clone(), is_repeated: true };
        }
        let event = LoggedEvent {
            seq: self.last_seq() + 1,
            project: Some(project),
            event_type: new.event_type.as_str().to_owned(),
            id: Some(new.id),
            key: new.key.clone(),
            source: new.source.clone(),
            subject: new.subject.clone(),
            attributes: new.attributes.clone(),
            data: new.data.clone(),
            at: Utc::now(),
        };
        self.events.push(event.clone());
        PostedEvent { event, is_repeated: false }
    }

    /// Appends what the server itself tells of a schedule.
    pub(super) fn tell(&mut self, schedule: &Schedule, news: ScheduleNews) {
        let event = LoggedEvent {
            seq: self.last_seq() + 1,
            project: Some(schedule.project),
            event_type: news.event_type().to_owned(),
            id: None,
            key: None,
            source: None,
            subject: Some(schedule.id.to_string()),
            attributes: serde_json::Map::new(),
            data: news.data(schedule),
            at: Utc::now(),
        };
        self.events.push(event);
    }

    pub(super) fn last_seq(&self) -> EventSeq {
        self.events.last().map_or(0, |event| event.seq)
    }
}

#[async_trait]
impl EventStore for MemoryControl {
    async fn append_events(
        &self,
        project: &Scoped<ProjectId, right::Run>,
        events: &[NewEvent],
    ) -> Result<Vec<PostedEvent>, ControlError> {
        let mut state = self.lock();
        if !state.projects.contains_key(project.thing()) {
            return Err(ControlError::NotFound);
        }
        Ok(events.iter().map(|event| state.append(*project.thing(), event)).collect())
    }

    async fn list_events(
        &self,
        of: &EventsOf,
        after: EventSeq,
        limit: usize,
    ) -> Result<EventPage, ControlError> {
        let state = self.lock();
        let seen = state.events.iter().filter(|event| event.seq > after && state.is_seen(of, event));
        let events: Vec<LoggedEvent> = seen.take(limit).cloned().collect();
        let end = state.last_seq().max(after);
        let until = events.last().filter(|_| events.len() == limit).map_or(end, |event| event.seq);
        Ok(EventPage { events, until, is_held_back: false, pruned_until: 0 })
    }

    async fn last_event(&self) -> Result<EventSeq, ControlError> {
        Ok(self.lock().last_seq())
    }

    async fn list_audiences(
        &self,
        projects: &[ProjectId],
    ) -> Result<HashMap<ProjectId, Audience>, ControlError> {
        let state = self.lock();
        let of_accounts =
            projects.iter().filter_map(|project| Some((*project, state.projects.get(project)?)));
        Ok(of_accounts.map(|(id, project)| (id, Audience { members: project.members().collect() })).collect())
    }
}
